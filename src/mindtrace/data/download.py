"""Downloads of torchvision that time out, log in to a mirror, and report progress."""

from __future__ import annotations

import base64
import contextlib
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

from mindtrace.data.decode import reporter
from mindtrace.progress import Progress

_TIMEOUT_S = 20.0  # seconds without a byte


@contextlib.contextmanager
def downloads(source: str, mirror: str | None, progress: Progress) -> Iterator[None]:
    """While it lasts, torchvision's bar on stderr is `progress`, and urllib has `_Requests`."""
    import torchvision.datasets.utils as utils

    class Bar:
        """Stands in for tqdm's."""

        def __init__(self, total: int | None = None, **_: Any) -> None:
            self._done = 0
            self._report = reporter(progress, f"downloading {source}", total) if total else None

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            """Nothing is open."""

        def update(self, count: int) -> None:
            self._done += count
            if self._report is not None:
                self._report(self._done)

    opener, bar = getattr(urllib.request, "_opener", None), utils.tqdm
    urllib.request.install_opener(urllib.request.build_opener(_Requests(mirror)))
    utils.tqdm = Bar
    try:
        yield
    finally:
        urllib.request.install_opener(opener)
        utils.tqdm = bar


class _Requests(urllib.request.BaseHandler):
    """What torchvision's requests lack: a time limit, and the login in a mirror's address."""

    handler_order = 100  # before the handlers that read the host

    def __init__(self, mirror: str | None) -> None:
        self._scheme = urlsplit(mirror or "").scheme

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        """Called by urllib for each request, redirected ones too."""
        request.timeout = _TIMEOUT_S
        login, _, request.host = request.host.rpartition("@")
        if login:
            if request.type != self._scheme:
                # torchvision falls back from https to http.
                raise urllib.error.URLError("the login is not sent without encryption")
            token = base64.b64encode(unquote(login).encode()).decode()
            # Unredirected: another host does not get the password.
            request.add_unredirected_header("Authorization", f"Basic {token}")
        return request

    def http_response(self, _: urllib.request.Request, response: Any) -> Any:
        """Called by urllib for each answer: nothing else closes the connection of a refusal."""
        if response.status >= 400:
            response.close()
        return response

    https_request = http_request
    https_response = http_response
