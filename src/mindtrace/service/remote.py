"""Classifies images on a running server, over one kept connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import SplitResult, urlsplit

from mindtrace.errors import ConflictError, ImageError, MindtraceError, UsageError
from mindtrace.service.predict import STDIN, Document, failure, read_file

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

PATIENCE = 60.0  # seconds without a byte from the server
TRIES = 4  # of a request that is answered with 503 and Retry-After
LONGEST_WAIT = 5  # seconds before the next try, whatever Retry-After says
# What an answer holds besides its path.
_FIELDS = ["label", "class_name", "confidence", "probabilities", "top_k", "model_name", "version"]


class Link:
    """One kept connection to `mindtrace serve`."""

    errors: ClassVar[Mapping[int, type[MindtraceError]]] = {
        **dict.fromkeys((401, 403, 421), UsageError),
        **dict.fromkeys((429, 503), ConflictError),
    }
    patient: ClassVar = True  # and asks again after 503, as Retry-After says

    def __init__(self, url: str, token: bytes | None = None) -> None:
        """Check the URL; the first request opens the connection."""
        import urllib3

        self._prefix = _parsed(url).path.rstrip("/")
        self.url = url.rstrip("/")
        headers = {"Accept": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token.decode('ascii')}"
        retries = urllib3.Retry(
            TRIES - 1,
            connect=0,
            read=1,  # the server may have closed the connection while it was idle
            status=None if self.patient else 0,
            allowed_methods=None,
            raise_on_status=False,
            retry_after_max=LONGEST_WAIT,
        )
        self._pool = urllib3.connection_from_url(
            self.url, headers=headers, retries=retries, timeout=PATIENCE
        )

    def ask(self, method: str, path: str, **request: Any) -> tuple[int, Document]:
        """Send a request, again where the connection breaks; the reply's status and fields."""
        from urllib3.exceptions import HTTPError

        try:
            response = self.send(method, path, **request)
        except HTTPError as error:
            root: BaseException = error
            while root.__context__ is not None:
                root = root.__context__
            reason = getattr(root, "strerror", None) or str(root) or type(root).__name__
            hint = "mindtrace serve  # starts it"
            raise MindtraceError(f"no answer from {self.url}: {reason}", hint=hint) from root
        try:
            fields = response.json()
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            raise self.stranger(f"answers {response.status} and no JSON object")
        return response.status, fields

    def send(
        self, method: str, path: str, headers: Mapping[str, str] = {}, **request: Any
    ) -> BaseHTTPResponse:
        """Send a request; urllib3's errors."""
        sent = {**self._pool.headers, **headers}
        url = self._prefix + path
        return self._pool.request(method, url, headers=sent, redirect=False, **request)

    def close(self) -> None:
        self._pool.close()

    def refused(self, status: int, fields: Document) -> MindtraceError:
        """A reply of 300 and above as the error of the command."""
        detail, hint = fields.get("detail"), fields.get("hint")
        if not isinstance(detail, str) or status in (404, 405, 415):
            return self.stranger(f"answers {status}")
        message, kind = f"{self.url}: {detail}", self.errors.get(status)
        if kind is None:
            return MindtraceError(f"{message} ({status})", hint=hint)
        if status == 401:
            hint = "--token-file FILE  # the one that the server was given"
        elif status in (429, 503):
            hint = hint or "the server is busy; try again later"
        return kind(message, hint=hint)

    def stranger(self, what: str) -> MindtraceError:
        """The error for an answer that is not mindtrace's."""
        hint = "give the URL that the server prints when it starts"
        return MindtraceError(f"{self.url} {what}", hint=hint)


def _parsed(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    if not right or not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError("--url is not the address of a server", hint="--url http://127.0.0.1:8000")
    if parts.username is not None or parts.query or parts.fragment:
        hint = "--url http://127.0.0.1:8000 --token-file FILE"
        raise UsageError("--url takes neither credentials nor a query", hint=hint)
    return parts


def predict_remote(
    link: Link, paths: Sequence[str], *, top_k: int = 1, stdin: Callable[[], bytes]
) -> Iterator[Document]:
    """A running server's answer for each file, in order; closes `link` at the end."""
    with closing(link):
        for path in paths:
            try:
                image = stdin() if path == STDIN else read_file(path)
                yield _answer(link, path, image, top_k)
            except ImageError as error:
                yield failure(path, error)


def _answer(link: Link, path: str, image: bytes, top_k: int) -> Document:
    # As a form: a body of its own would have to name its format.
    form = {"image": ("image", image)}
    status, fields = link.ask("POST", f"/inference?top_k={top_k}", fields=form)
    if status in (400, 413, 422):
        detail = fields.get("detail", f"the server answers {status}")
        raise ImageError(str(detail), hint=fields.get("hint"))
    if status != 200:
        raise link.refused(status, fields)
    if not fields.keys() >= {*_FIELDS}:
        raise link.stranger("answers otherwise than a mindtrace server")
    return {"path": path, **{name: fields[name] for name in _FIELDS}}
