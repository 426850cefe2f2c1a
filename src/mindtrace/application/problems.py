"""Exceptions as RFC 9457 problem documents; messages that name files or stores go to the log."""

import json
import logging
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any

from mindtrace import errors

MEDIA_TYPE = "application/problem+json"
log = logging.getLogger("mindtrace.application")
# Of the request that is being answered; every line of the log that it causes has it.
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")

# Every error class has a line of its own; a test walks the tree.
STATUS: Mapping[type[errors.MindtraceError], int] = {
    errors.MindtraceError: 500,
    errors.ConfigError: 422,
    errors.UsageError: 422,
    errors.DataError: 500,
    errors.DataFolderError: 500,
    errors.DownloadError: 502,
    errors.ImageError: 422,
    errors.NotFoundError: 404,
    errors.BundleError: 503,
    errors.TrainingError: 500,
    errors.StoreError: 503,
    errors.ConflictError: 409,
    errors.PortInUseError: 500,
    errors.QueueFullError: 429,
    errors.VerdictError: 409,
    errors.InterruptedByUser: 503,
}

_SILENT = {
    500: "the server failed; its log says more under this request_id",
    502: "a source of images could not be fetched; the server's log says more",
    503: "the server cannot do this right now; its log says more under this request_id",
}
# RFC 9110's words; Python's own table had older ones before 3.13.
_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}
# The client may see the names of these; the name of a registry or a folder is a path.
_NAMEABLE = frozenset({"model", "version", "alias", "job"})
_RETRY_AFTER = {429: "30", 503: "5"}


class Problem(Exception):  # noqa: N818 - it is what RFC 9457 calls it
    """A refusal of a request; `kind` is the last part of the document's `type`."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        hint: str | None = None,
        errors: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
        kind: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.hint = hint
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.members: dict[str, Any] = {}
        self.title = _TITLES.get(status) or HTTPStatus(status).phrase
        self.kind = kind or self.title.lower().replace(" ", "-")

    def document(self, request_id: str) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "type": f"urn:mindtrace:problem:{self.kind}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
        }
        if self.hint:
            fields["hint"] = self.hint
        if self.errors:
            fields["errors"] = [dict(error) for error in self.errors]
        return {**fields, **self.members}

    def body(self, request_id: str) -> bytes:
        text = json.dumps(self.document(request_id), ensure_ascii=False)
        # The detail may quote the client, and half a surrogate pair cannot be encoded.
        return text.encode(errors="replace")

    def http_headers(self, body: bytes) -> list[tuple[bytes, bytes]]:
        headers = {"content-type": MEDIA_TYPE, "content-length": str(len(body)), **self.headers}
        return [(k.lower().encode(), v.encode("latin-1")) for k, v in headers.items()]


def body_too_long(limit: int) -> Problem:
    """The answer to a body of more than `limit` bytes; the rest of it is not read."""
    return Problem(413, f"the body is longer than {limit:,} bytes", headers={"Connection": "close"})


def from_error(error: Exception) -> Problem:
    """What a client may know of an error; the rest is logged."""
    if isinstance(error, Problem):
        return error
    if not isinstance(error, errors.MindtraceError):
        log.error("the request failed", exc_info=error)
        return Problem(500, _SILENT[500])
    status = status_of(type(error))
    kind = kind_of(type(error).__name__)
    retry = {"Retry-After": _RETRY_AFTER[status]} if status in _RETRY_AFTER else None
    if status >= 500:
        log.error("%s: %s", type(error).__name__, error.message)
        return Problem(status, _SILENT[status], headers=retry, kind=kind)
    if isinstance(error, errors.NotFoundError) and error.kind not in _NAMEABLE:
        return Problem(status, f"there is no {error.kind}", hint=error.hint, kind=kind)
    faults = error.faults if isinstance(error, errors.ConfigError) else ()
    rows = [
        {"message": fault.message, "section": fault.section, "key": fault.key, "line": fault.line}
        for fault in faults
    ]
    detail = f"{len(rows)} faults" if len(rows) > 1 else error.message
    return Problem(status, detail, hint=error.hint, errors=rows, headers=retry, kind=kind)


def status_of(kind: type[errors.MindtraceError]) -> int:
    """The HTTP status of an error class: its own, or its nearest ancestor's."""
    return next(STATUS[ancestor] for ancestor in kind.__mro__ if ancestor in STATUS)


def kind_of(name: str) -> str:
    """`not-found` of `NotFoundError`: the last part of a problem's type."""
    words = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name)
    return words.lstrip("-").removesuffix("-error")
