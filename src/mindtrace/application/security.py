"""Who may ask: rules on a request's head that keep web pages from driving a local server."""

import hmac
from collections.abc import Mapping, Sequence

from starlette.types import Scope

from mindtrace.application.problems import Problem
from mindtrace.config.urls import parse_authority
from mindtrace.service.serve import is_loopback

_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_ONCE = (b"host", b"authorization", b"content-type", b"content-length", b"origin")
_PAGES = ("/", "/docs", "/redoc")
_PORTS = {"http": 80, "https": 443}
Headers = Mapping[bytes, bytes]


class Rules:
    """What every request must obey; `allowed_hosts` are NAME or NAME:PORT."""

    def __init__(self, token: bytes | None, allowed_hosts: Sequence[str]) -> None:
        self._token = token
        self._allowed = frozenset(map(parse_authority, allowed_hosts))

    def check(self, scope: Scope) -> None:
        """Raise the Problem of the first rule that a request breaks."""
        headers: Headers = dict(scope["headers"])
        if len(headers) != len(scope["headers"]):
            names = [name for name, _ in scope["headers"]]
            for name in _ONCE:
                if names.count(name) > 1:
                    raise Problem(400, f"more than one {name.decode()} header")
        path, is_safe = scope["path"], scope["method"] in _SAFE
        if not path.startswith("/healthz/"):  # probes, which every orchestrator may send
            address, port = scope.get("server") or ("", None)
            self._check_host(headers.get(b"host"), scope["scheme"], port)
            if self._token is None:
                # Only this machine is answered then, however the server was started.
                if not (is_loopback(address) or address.startswith("/")):
                    detail = "this server has no token, so it answers on loopback addresses only"
                    hint = "mindtrace serve --token-file FILE"
                    raise Problem(403, detail, hint=hint, kind="token-needed")
            # Pages are files that are the same for everybody; they ask for the token themselves.
            elif not (is_safe and (path in _PAGES or path.startswith("/static/"))):
                self._check_token(headers.get(b"authorization", b""))
        if not is_safe:
            _check_origin(headers)

    def _check_host(self, host: bytes | None, scheme: str, our_port: int | None) -> None:
        if host is None:
            raise Problem(400, "the Host header is missing")
        parsed = parse_authority(host.decode("latin-1"))
        if parsed is not None:
            name, port = parsed[0], parsed[1] or _PORTS.get(scheme, 80)
            if (name, None) in self._allowed or (name, port) in self._allowed:
                return
            if is_loopback(name) and port == our_port:
                return
        hint = "[serve] allowed_hosts = NAME lets the server answer under another name"
        detail = "this server does not answer under the name in the Host header"
        raise Problem(421, detail, hint=hint, kind="host")

    def _check_token(self, authorization: bytes) -> None:
        scheme, _, given = authorization.partition(b" ")
        # Compared even where the scheme is wrong: no timing side channel.
        right = hmac.compare_digest(given.strip(), self._token or b"")
        if not (right and scheme.lower() == b"bearer"):
            detail = "a token is needed" if not given else "the token is wrong"
            headers = {"WWW-Authenticate": 'Bearer realm="mindtrace"'}
            raise Problem(401, detail, hint="send Authorization: Bearer TOKEN", headers=headers)


def _check_origin(headers: Headers) -> None:
    """A change that a page of another site asks for is refused."""
    site, origin = headers.get(b"sec-fetch-site", b"none"), headers.get(b"origin")
    is_own = origin is None or _is_own(origin, headers.get(b"host", b""))
    if site not in (b"same-origin", b"none") or not is_own:
        raise Problem(403, "a page of another site may not ask for this", kind="foreign-origin")


def _is_own(origin: bytes, host: bytes) -> bool:
    """Whether the page came from the very address that it now calls."""
    scheme, _, place = origin.decode("latin-1").partition("://")
    theirs, ours = parse_authority(place), parse_authority(host.decode("latin-1"))
    if theirs is None or ours is None or scheme not in _PORTS:
        return False
    # A proxy may speak TLS for us: then Host has no port and its default is theirs.
    default = _PORTS[scheme]
    return (theirs[0], theirs[1] or default) == (ours[0], ours[1] or default)
