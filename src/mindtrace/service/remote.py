"""Classifies images on a running server, over one kept connection."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import SplitResult, urlsplit

from mindtrace.errors import ConflictError, ImageError, MindtraceError, UsageError
from mindtrace.service.predict import STDIN, Document, failure, read_file

PATIENCE = 60.0  # seconds without a byte from the server


@dataclass(frozen=True)
class Reply:
    """HTTP status, JSON object, and the seconds of Retry-After."""

    status: int
    fields: Mapping[str, Any]
    retry_after: float | None = None


class Link:
    """One kept connection to `mindtrace serve`."""

    errors: ClassVar[Mapping[int, type[MindtraceError]]] = {
        **dict.fromkeys((401, 403, 421), UsageError),
        **dict.fromkeys((429, 503), ConflictError),
    }

    def __init__(self, url: str, token: bytes | None = None, *, patience: float = PATIENCE) -> None:
        """Check the URL; the first request opens the connection."""
        parts = _parsed(url)
        self.url = url.rstrip("/")
        self._prefix = parts.path.rstrip("/")
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=patience)
        self._headers = {"Accept": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token.decode('ascii')}"

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}
    ) -> Reply:
        """Send a request and read its reply; once more where the connection breaks."""
        request = (method, self._prefix + path, body, {**self._headers, **headers})
        try:
            return self._exchange(*request)
        except (ConnectionError, http.client.HTTPException):
            self._connection.close()  # the server may have closed it while it was idle
        except OSError as error:
            raise self._no_answer(error) from error
        try:
            return self._exchange(*request)
        except (OSError, http.client.HTTPException) as error:
            raise self._no_answer(error) from error

    def close(self) -> None:
        self._connection.close()

    def refused(self, reply: Reply) -> MindtraceError:
        """A reply of 300 and above as the error of the command."""
        detail, hint = reply.fields.get("detail"), reply.fields.get("hint")
        if not isinstance(detail, str) or reply.status in (404, 405, 415):
            return self.stranger(f"answers {reply.status}")
        message, kind = f"{self.url}: {detail}", self.errors.get(reply.status)
        if kind is None:
            return MindtraceError(f"{message} ({reply.status})", hint=hint)
        if reply.status == 401:
            hint = "--token-file FILE, the one that the server was given"
        elif reply.status in (429, 503):
            hint = hint or "the server is busy; try again later"
        return kind(message, hint=hint)

    def stranger(self, what: str) -> MindtraceError:
        """The error for an answer that is not mindtrace's."""
        return MindtraceError(
            f"{self.url} {what}", hint="--url is what `mindtrace serve` says when it starts"
        )

    def _exchange(self, *request: Any) -> Reply:
        # The server may refuse, and close, before the whole body was sent.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._connection.request(*request)
        try:
            response = self._connection.getresponse()
            fields = json.loads(response.read())
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            raise self.stranger(f"answers {response.status} and no JSON object")
        after = response.headers.get("Retry-After", "")
        return Reply(response.status, fields, float(after) if after.isdecimal() else None)

    def _no_answer(self, error: Exception) -> MindtraceError:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return MindtraceError(
            f"no answer from {self.url}: {reason}", hint="start it: mindtrace serve"
        )


def _parsed(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    if not right or not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError("--url is not the address of a server", hint="--url http://127.0.0.1:8000")
    if parts.username is not None or parts.query or parts.fragment:
        raise UsageError(
            "--url takes neither credentials nor a query",
            hint="--url http://127.0.0.1:8000 --token-file FILE",
        )
    return parts


TRIES = 4  # of a request that is answered with 503
LONGEST_WAIT = 5.0  # seconds before the next try, whatever Retry-After says
# A larger image is sent alone and as it is; smaller ones in base64, together.
ALONE = 1024 * 1024
MOST_BYTES = 4 * ALONE
MOST_IMAGES = 64  # together, and fewer once that was too much for the server
_MAGIC = {b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}


# What an answer holds besides its path.
_FIELDS = (
    *("label", "class_name", "confidence", "probabilities", "top_k", "model_name", "version"),
)
_File = tuple[str, bytes | ImageError]


def predict_remote(
    link: Link,
    paths: Sequence[str],
    *,
    top_k: int = 1,
    stdin: Callable[[], bytes],
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[Document]:
    """A running server's answer for each file, in order; closes `link` at the end."""
    try:
        yield from _RemotePredictor(link, top_k, sleep).answers(_read(paths, stdin))
    finally:
        link.close()


def _read(paths: Iterable[str], stdin: Callable[[], bytes]) -> Iterator[_File]:
    for path in paths:
        try:
            yield path, stdin() if path == STDIN else read_file(path)
        except ImageError as error:
            yield path, error


class _RemotePredictor:
    """Sends images in batches."""

    def __init__(self, link: Link, top_k: int, sleep: Callable[[float], object]) -> None:
        self._link = link
        self._top_k = top_k
        self._sleep = sleep
        self._size = MOST_IMAGES

    def answers(self, files: Iterable[_File]) -> Iterator[Document]:
        """The answers for `files`, in their order."""
        batch: list[_File] = []
        size = 0
        for path, data in files:
            weight = 0 if isinstance(data, ImageError) else len(data)
            # A large one fills a batch by itself.
            weight = weight if weight < ALONE else MOST_BYTES + 1
            if batch and (size + weight > MOST_BYTES or len(batch) >= self._size):
                yield from self._answered(batch)
                batch, size = [], 0
            batch.append((path, data))
            size += weight
        yield from self._answered(batch)

    def _answered(self, batch: Sequence[_File]) -> Iterator[Document]:
        sent = [(path, data) for path, data in batch if isinstance(data, bytes)]
        answers = iter(self._ask(sent) if sent else ())
        for path, data in batch:
            yield failure(path, data) if isinstance(data, ImageError) else next(answers)

    def _ask(self, sent: Sequence[tuple[str, bytes]]) -> list[Document]:
        reply = self._patient_reply([data for _, data in sent])
        if reply.status in (413, 504) and len(sent) > 1:
            self._size = half = len(sent) // 2
            return self._ask(sent[:half]) + self._ask(sent[half:])
        if reply.status in (400, 413, 422) and len(sent) == 1:
            detail = reply.fields.get("detail", f"the server answers {reply.status}")
            error = ImageError(str(detail), hint=reply.fields.get("hint"))
            return [failure(sent[0][0], error)]
        if reply.status != 200:
            raise self._link.refused(reply)
        rows = reply.fields.get("items", [reply.fields])
        try:
            return [_document(path, row) for (path, _), row in zip(sent, rows, strict=True)]
        except (TypeError, ValueError, KeyError) as error:
            raise self._link.stranger("answers otherwise than a mindtrace server") from error

    def _patient_reply(self, images: Sequence[bytes]) -> Reply:
        """The reply; the request is repeated while the server is busy."""
        request = self._request(images)
        reply = self._link.ask("POST", *request)
        for _ in range(TRIES - 1):
            if reply.status != 503 or reply.retry_after is None:
                break
            self._sleep(min(reply.retry_after, LONGEST_WAIT))
            reply = self._link.ask("POST", *request)
        return reply

    def _request(self, images: Sequence[bytes]) -> tuple[str, bytes, Mapping[str, str]]:
        """Path, body and headers."""
        data = images[0]
        if len(data) >= ALONE:
            # By the first bytes; the server checks again.
            kinds = (kind for magic, kind in _MAGIC.items() if data.startswith(magic))
            kind = {"Content-Type": next(kinds, "image/png")}
            return f"/inference?top_k={self._top_k}", data, kind
        # By hand, for speed: base64 has no character that JSON would have to escape.
        texts = b'", "'.join(base64.b64encode(image) for image in images)
        body = b'{"images": ["%b"], "top_k": %d}' % (texts, self._top_k)
        return "/inference", body, {"Content-Type": "application/json"}


def _document(path: str, row: Mapping[str, Any]) -> Document:
    if "error" in row:
        return failure(path, ImageError(str(row["error"]["message"])))
    return {"path": path, **{name: row[name] for name in _FIELDS}}
