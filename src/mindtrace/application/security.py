"""Who may ask: rules on a request's head that keep web pages from driving a local server."""

from __future__ import annotations

import functools
import hmac
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from mindtrace.application.problems import Problem
from mindtrace.service.serve import is_loopback

_AUTHORITY = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9._-]{1,253}))(?::(?P<port>\d{1,5}))?"
)
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
# What an HTML form may send to any site; multipart is left, Origin covers it.
_FORM_TYPES = frozenset({"text/plain", "application/x-www-form-urlencoded"})
_ONCE = (b"host", b"authorization", b"content-type", b"content-length", b"origin")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Head:
    """What the rules look at; `server` is our end of the connection."""

    method: str
    path: str
    scheme: str
    server: tuple[str, int | None]
    headers: Mapping[bytes, bytes]

    @classmethod
    def of(cls, scope: Scope) -> Head:
        """Read it from an ASGI scope; a header that must be single and is not is a 400."""
        pairs = scope["headers"]
        headers = dict(pairs)
        if len(headers) != len(pairs):
            names = [name for name, _ in pairs]
            for name in _ONCE:
                if names.count(name) > 1:
                    raise Problem(400, f"more than one {name.decode()} header")
        server = scope.get("server") or ("", None)
        return cls(scope["method"], scope["path"], scope["scheme"], tuple(server), headers)

    @property
    def exempt(self) -> bool:
        """Whether this is a probe of `/healthz`, which every orchestrator may send."""
        return self.path.startswith("/healthz/")

    @property
    def of_page(self) -> bool:
        """Whether this asks for the page itself: files that are the same for everybody."""
        return self.method in _SAFE and (self.path == "/" or self.path.startswith("/static/"))


Rule = Callable[[Head], None]


class SecurityMiddleware:
    """Asks every rule before the application hears of the request."""

    def __init__(self, app: ASGIApp, rules: Sequence[Rule]) -> None:
        self.app = app
        self.rules = tuple(rules)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or raise the `Problem` of the rule it breaks."""
        if scope["type"] == "http":
            head = Head.of(scope)
            for rule in self.rules:
                rule(head)
        await self.app(scope, receive, send)


def rules(token: bytes | None, allowed_hosts: Sequence[str]) -> tuple[Rule, ...]:
    """All rules, in the order in which they are asked."""
    first = (loopback_rule,) if token is None else (token_rule(token),)
    return (host_rule(allowed_hosts), *first, origin_rule, content_type_rule)


def host_rule(allowed_hosts: Sequence[str]) -> Rule:
    """Host must be a loopback name with our port, or one of `allowed_hosts`: NAME or NAME:PORT."""
    allowed = frozenset(filter(None, (parse_authority(text) for text in allowed_hosts)))

    @functools.lru_cache(maxsize=64)
    def is_allowed(host: bytes, scheme: str, our_port: int | None) -> bool:
        parsed = parse_authority(host.decode("latin-1"))
        if parsed is None:
            return False
        name, port = parsed
        port = port or _PORTS.get(scheme, 80)
        if (name, None) in allowed or (name, port) in allowed:
            return True
        return is_loopback(name) and port == our_port

    def rule(head: Head) -> None:
        if head.exempt:
            return
        host = head.headers.get(b"host")
        if host is None:
            raise Problem(400, "the Host header is missing")
        if not is_allowed(host, head.scheme, head.server[1]):
            raise Problem(
                421,
                "this server does not answer under the name in the Host header",
                hint="[serve] allowed_hosts = NAME lets the server answer under another name",
                kind="host",
            )

    return rule


def loopback_rule(head: Head) -> None:
    """Without a token only this machine is answered, however the server was started."""
    address = head.server[0]
    if not (head.exempt or is_loopback(address) or address.startswith("/")):
        raise Problem(
            403,
            "this server has no token, so it answers on loopback addresses only",
            hint="mindtrace serve --token-file FILE",
            kind="token-needed",
        )


def token_rule(token: bytes) -> Rule:
    """Everything but `/healthz` and the page wants `Authorization: Bearer` with this token."""

    def rule(head: Head) -> None:
        if head.exempt or head.of_page:
            return
        scheme, _, given = head.headers.get(b"authorization", b"").partition(b" ")
        # Compared even where the scheme is wrong: no timing side channel.
        right = hmac.compare_digest(given.strip(), token)
        if not (right and scheme.lower() == b"bearer"):
            raise Problem(
                401,
                "a token is needed" if not given else "the token is wrong",
                hint="send Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": 'Bearer realm="mindtrace"'},
            )

    return rule


def origin_rule(head: Head) -> None:
    """A change that a page of another site asks for is refused."""
    if head.method in _SAFE:
        return
    site = head.headers.get(b"sec-fetch-site", b"none")
    origin = head.headers.get(b"origin")
    if site not in (b"same-origin", b"none") or not (origin is None or _is_own(origin, head)):
        raise Problem(403, "a page of another site may not ask for this", kind="foreign-origin")


def content_type_rule(head: Head) -> None:
    """A body needs a type, and not one that any page's form could send."""
    if head.method not in _WITH_BODY:
        return
    kind = media_type(head.headers.get(b"content-type"))
    if not kind and b"inference-header-content-length" in head.headers:
        return  # a client of /v2; no page can send that header without asking first
    if not kind or kind in _FORM_TYPES:
        given = f"Content-Type {kind} is not accepted here" if kind else "Content-Type is missing"
        raise Problem(415, given, hint="send Content-Type: application/json")


def media_type(header: bytes | None) -> str:
    """`image/png` of `Image/PNG; q=1`; empty without a header."""
    return (header or b"").partition(b";")[0].strip().lower().decode("latin-1")


def parse_authority(text: str) -> tuple[str, int | None] | None:
    """`("127.0.0.1", 8000)` of `127.0.0.1:8000`; IPv6 in its shortest form; None if it is none."""
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        return None
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 0 < port < 65536:
        return None
    if match["v6"] is None:
        return match["name"].lower(), port
    try:
        return str(ipaddress.IPv6Address(match["v6"])), port
    except ValueError:
        return None


def _is_own(origin: bytes, head: Head) -> bool:
    """Whether the page came from the very address that it now calls."""
    try:
        parts = urlsplit(origin.decode("ascii"))
    except (UnicodeDecodeError, ValueError):
        return False
    theirs = parse_authority(parts.netloc)
    ours = parse_authority(head.headers.get(b"host", b"").decode("latin-1"))
    if theirs is None or ours is None or parts.scheme not in _PORTS or parts.path or parts.query:
        return False
    # A proxy may speak TLS for us: then Host has no port and its default is theirs.
    default = _PORTS[parts.scheme]
    return (theirs[0], theirs[1] or default) == (ours[0], ours[1] or default)
