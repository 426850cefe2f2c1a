"""What torchvision's downloads lack: time limits, retries, progress and the login of a mirror."""

import base64
import contextlib
import functools
import http.client
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from mindtrace.data.decode import reporter
from mindtrace.progress import Progress

_TIMEOUT_S = 20.0  # seconds without a byte
_ATTEMPTS, _PAUSE_S = 3, 0.5


@contextlib.contextmanager
def downloads(source: str, mirror: str | None, progress: Progress) -> Iterator[None]:
    """While it lasts, torchvision downloads with `_retrieve`."""
    import torchvision.datasets.utils as utils

    before = utils._get_redirect_url, utils._urlretrieve
    # urlopen follows redirects itself.
    utils._get_redirect_url = lambda url, max_hops=0: url
    utils._urlretrieve = functools.partial(
        _retrieve, mirror=mirror, progress=progress, text=f"downloading {source}"
    )
    try:
        yield
    finally:
        utils._get_redirect_url, utils._urlretrieve = before


def _retrieve(
    url: str, filename: str, *, mirror: str | None, progress: Progress, text: str
) -> None:
    """Download one file; URLError, which makes torchvision try the next address."""
    request = _request(url, mirror)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with urlopen(request, timeout=_TIMEOUT_S) as reply, Path(filename).open("wb") as file:
                total, done = reply.length or 0, 0
                report = reporter(progress, text, total)
                while data := reply.read(2**16):
                    file.write(data)
                    done += len(data)
                    report(done)
            if done < total:
                raise http.client.IncompleteRead(b"", total - done)
            return
        except HTTPError as error:
            error.close()
            if error.code < 500 or attempt == _ATTEMPTS:
                raise
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            # Without a network or a server another attempt would only cost time.
            lasting = isinstance(reason, ConnectionRefusedError | socket.gaierror)
            if lasting or attempt == _ATTEMPTS:
                raise URLError(reason) from error
        time.sleep(attempt * _PAUSE_S)


def _request(url: str, mirror: str | None) -> Request:
    parts = urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    request = Request(parts._replace(netloc=host).geturl(), headers={"User-Agent": "mindtrace"})
    if login:
        if parts.scheme != urlsplit(mirror or "").scheme:
            # torchvision falls back from https to http.
            raise URLError("the login is not sent without encryption")
        token = base64.b64encode(unquote(login).encode()).decode()
        # Unredirected: another host does not get the password.
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request
