"""What must be right before a server runs, then the server."""

import errno
import importlib
import ipaddress
import os
import socket
from collections.abc import Callable
from pathlib import Path

from mindtrace.config.settings import Settings
from mindtrace.errors import PortInUseError, UsageError

# The layer above, by name: this is where the command line crosses over to it.
_SERVER = "mindtrace.application.serve"
_BACKLOG = 2048
_TOKEN_HINT = "openssl rand -hex 32 > token.txt; mindtrace serve --token-file token.txt"


def serve(
    settings: Settings,
    model_ref: str | None = None,
    *,
    worker: bool = True,
    allow_label_change: bool = False,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP, then drain; `ready` gets the URL of the server."""
    check_token_rule(settings)
    # Read while numpy is loaded: a worker answers on one core.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with listen(settings.serve.host, settings.serve.port) as listener:
        url = url_of(*listener.getsockname()[:2])
        importlib.import_module(_SERVER).run(
            settings,
            model_ref,
            listener,
            lambda: ready and ready(url),
            worker=worker,
            allow_label_change=allow_label_change,
        )


def check_token_rule(settings: Settings) -> None:
    """Only a server of this machine alone may do without a token."""
    host = settings.serve.host
    if read_token(settings.serve.token_file) is None and not is_loopback(host):
        message = f"[serve] host = {host}: other machines could reach it, so it needs a token_file"
        raise UsageError(message, hint=f"{_TOKEN_HINT} --host {host}")


def read_token(path: Path | None) -> bytes | None:
    """The token in a file, if one is named: one line of visible ASCII characters."""
    if path is None:
        return None
    try:
        token = path.read_bytes().strip()
    except OSError as error:
        reason = error.strerror
        raise UsageError(f"[serve] token_file = {path}: {reason}", hint=_TOKEN_HINT) from error
    if not token or not all(0x21 <= byte <= 0x7E for byte in token):
        message = f"[serve] token_file = {path}: must hold one line of visible ASCII characters"
        raise UsageError(message, hint=_TOKEN_HINT)
    return token


def is_loopback(host: str) -> bool:
    """Whether a name or an address can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens already: early connections wait until the server runs."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = found[0]
        both = family == socket.AF_INET6  # :: takes IPv4 too
        return socket.create_server(address, family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    except socket.gaierror as error:
        raise UsageError(f"[serve] host = {host}: no such address") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(host, port) from error
        reason = os.strerror(error.errno or 0)  # without the address, which is named already
        raise UsageError(f"cannot listen on {host}:{port}: {reason}") from error


def url_of(host: str, port: int) -> str:
    """The URL of a server; an IPv6 address stands in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
