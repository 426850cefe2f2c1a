"""Floor 9: the jobs of a running server, for a command.

In: a server's URL. Out: documents of jobs, and what happens to one until its end, over
as many connections as that takes. The server's refusals come back as the errors that they
were there.
"""

from __future__ import annotations

import http.client
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mindtrace.errors import (
    ConfigError,
    ConflictError,
    Fault,
    MindtraceError,
    NotFoundError,
    QueueFullError,
    UsageError,
)
from mindtrace.jobs.job import END
from mindtrace.service.local_jobs import Document, Happening
from mindtrace.service.remote import Link, Reply
from mindtrace.service.retrain import Order

_JSON = {"Content-Type": "application/json"}
_TRIES = 20  # of a connection that broke while a job was followed
_PAUSE = 2.0  # seconds between them


class RemoteJobs:
    """The jobs of the server at the other end of a link."""

    def __init__(self, link: Stream, *, sleep: Callable[[float], object] = time.sleep) -> None:
        self._link = link
        self._sleep = sleep

    def submit(self, order: Order, *, idempotency_key: str | None) -> Document:
        """`POST /retrain`."""
        fields: Document = {**order.overlay.sections()}
        if order.base is not None:
            fields["base"] = order.base
        flags = {"warm_start": order.warm_start, "force": order.force}
        fields.update({name: True for name, flag in flags.items() if flag})
        # Always one: a connection that breaks is tried again, and one job is wanted.
        key = {"Idempotency-Key": idempotency_key or secrets.token_hex(16)}
        return self._ask("POST", "/retrain", json.dumps(fields).encode(), {**_JSON, **key})

    def show(self, job_id: str) -> Document:
        """`GET /jobs/{job_id}`."""
        return self._ask("GET", f"/jobs/{_safe(job_id)}")

    def list(self, limit: int) -> Sequence[Document]:
        """`GET /jobs`, as many pages as it takes."""
        rows: list[Document] = []
        cursor = ""
        while len(rows) < limit:
            page = self._ask("GET", f"/jobs?limit={min(100, limit - len(rows))}{cursor}")
            rows += page["items"]
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        return rows

    def cancel(self, job_id: str) -> Document:
        """`DELETE /jobs/{job_id}`."""
        return self._ask("DELETE", f"/jobs/{_safe(job_id)}")

    def follow(self, job_id: str) -> Iterator[Happening]:
        """`GET /jobs/{job_id}/events`; a server that starts again is waited for."""
        after, tries = 0, 0
        while True:
            try:
                for number, name, data in self._link.events(f"/jobs/{_safe(job_id)}/events", after):
                    yield name, data
                    after, tries = number, 0
                    if name == END:
                        return
            except _RefusedError as refused:
                tries += 1  # of a server whose database is away, or which has many followers
                if refused.reply.status != 503 or tries >= _TRIES:
                    raise _meant(self._link, refused.reply) from refused
            except (OSError, http.client.HTTPException) as error:
                tries += 1
                if tries >= _TRIES:
                    raise self._link.stranger("does not answer any more") from error
            self._sleep(_PAUSE if tries else 0.1)

    def log(self, job_id: str, offset: int) -> bytes:
        """`GET /jobs/{job_id}/log`."""
        try:
            return self._link.text(f"/jobs/{_safe(job_id)}/log?offset={offset}")
        except _RefusedError as refused:
            raise _meant(self._link, refused.reply) from refused
        except (OSError, http.client.HTTPException) as error:
            raise self._link.stranger(f"does not answer: {error}") from error

    def close(self) -> None:
        """Give the connection back."""
        self._link.close()

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Document:
        reply = self._link.ask(method, path, body, headers or {})
        if reply.status >= 300:
            raise _meant(self._link, reply)
        return dict(reply.fields)


class _RefusedError(Exception):
    """An answer that is no stream."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


class Stream(Link):
    """A link that also reads answers which are no JSON."""

    def events(self, path: str, after: int) -> Iterator[tuple[int, str, Document]]:
        """Number, name and data of server-sent events behind a number."""
        fields: dict[str, str] = {}
        for line in self._open(path, {"Last-Event-ID": str(after)} if after else {}):
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif "data" in fields:
                yield int(fields["id"]), fields["event"], json.loads(fields["data"])
                fields = {}

    def text(self, path: str) -> bytes:
        """The whole body of an answer."""
        return b"".join(self._open(path, {}))

    def _open(self, path: str, headers: Mapping[str, str]) -> Iterator[bytes]:
        self.close()  # a stream that was left half read would answer the next question
        self._connection.request("GET", self._prefix + path, headers={**self._headers, **headers})
        response = self._connection.getresponse()
        if response.status >= 300:
            raise _RefusedError(Reply(response.status, _object(response.read())))
        yield from response


def _meant(link: Link, reply: Reply) -> MindtraceError:
    """The error that a refusal was at the server."""
    detail, hint = reply.fields.get("detail"), reply.fields.get("hint")
    if not isinstance(detail, str):
        return link.refused(reply)
    message = f"{link.url}: {detail}"
    if reply.status == 404:
        error = NotFoundError("job", None, hint=hint)
        error.message, error.args = message, (message,)
        return error
    if reply.status == 422 and reply.fields.get("errors"):
        return ConfigError([_fault(row) for row in reply.fields["errors"]], hint=hint)
    kinds: dict[int, type[MindtraceError]] = {
        409: ConflictError,
        422: UsageError,
        429: QueueFullError,
    }
    kind = kinds.get(reply.status)
    return link.refused(reply) if kind is None else kind(message, hint=hint)


def _fault(row: Mapping[str, Any]) -> Fault:
    place = (row.get("line"), row.get("section"), row.get("key"))
    return Fault("request", *place, str(row.get("message")))


def _object(body: bytes) -> Document:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _safe(job_id: str) -> str:
    """An id as a part of a path; what cannot be one is one that nobody has."""
    return job_id if job_id.isascii() and job_id.replace("-", "").isalnum() else "none"
