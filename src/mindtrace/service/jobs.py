"""Jobs for the command line, HTTP and Python: those of the settings, or of a server by its URL."""

from __future__ import annotations

import functools
import http.client
import json
import os
import secrets as random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mindtrace.config.sections import SECTIONS
from mindtrace.config.settings import Settings
from mindtrace.config.urls import masked
from mindtrace.errors import (
    ConfigError,
    ConflictError,
    Fault,
    MindtraceError,
    NotFoundError,
    QueueFullError,
    StoreError,
    UsageError,
)
from mindtrace.jobs.job import END, STATES, database_file
from mindtrace.service.remote import Link, Reply

if TYPE_CHECKING:
    from mindtrace.jobs.queue import JobQueue
    from mindtrace.jobs.sidecar import WorkerSidecar
    from mindtrace.service.retrain_request import RetrainRequest

_POLL = 0.3  # seconds
_LOCAL_TRIES = 100  # to read a database that is away
_JSON = {"Content-Type": "application/json"}
_REMOTE_TRIES = 20  # of a connection that broke while a job was followed
_PAUSE = 2.0  # seconds between them

Document = dict[str, Any]


def queue(settings: Settings) -> JobQueue:
    """The jobs of these settings; one object for each process."""
    return _queue(settings.jobs.database_url, settings.dirs.root, settings.jobs.max_queued)


@functools.lru_cache(maxsize=8)
def _queue(database_url: str | None, root: Path, max_queued: int) -> JobQueue:
    from mindtrace.jobs.queue import JobQueue

    return JobQueue(database_url, root, max_queued)


def counts(settings: Settings) -> Mapping[str, int]:
    """How many jobs are in each state; StoreError. Cheap where nobody ever submitted one."""
    return queue(settings).counts() if _exists(settings) else dict.fromkeys(STATES, 0)


def _exists(settings: Settings) -> bool:
    file = database_file(settings.jobs.database_url, settings.dirs.root)
    return file is None or file.exists()


def sidecar(settings: Settings, *, serving: bool) -> WorkerSidecar:
    """Starts a worker beside this process once there are jobs; to be stopped at the end.

    `serving`: this process answers requests, to which trainings give way; else it is a command.
    """
    from mindtrace.jobs.process import listed_environment
    from mindtrace.jobs.sidecar import WorkerSidecar, worker_command

    return WorkerSidecar(
        settings.dirs.root,
        unfinished=lambda: _exists(settings) and queue(settings).unfinished(),
        config=lambda: settings.to_ini([*SECTIONS]),
        environ=listed_environment(os.environ, secrets(settings)),
        command=functools.partial(worker_command, serving=serving),
    )


def work(
    settings: Settings,
    stopping: threading.Event,
    *,
    lease: float,
    grace: float,
    gives_way: bool,
    ready: Callable[[str], Any],
) -> None:
    """Take jobs until `stopping` is set; see `Worker`. Blocks; StoreError."""
    from mindtrace.jobs.process import listed_environment
    from mindtrace.jobs.worker import Worker

    environ = listed_environment(os.environ, own_places(settings))
    worker = Worker(settings, environ, stopping, lease=lease, grace=grace, gives_way=gives_way)
    worker.run(ready)


def secrets(settings: Settings) -> dict[str, str]:
    """Values with passwords, as environment variables: no file ever holds them."""
    values = {
        "REGISTRY__TRACKING_URI": settings.registry.tracking_uri,
        "DATA__MIRROR": settings.data.mirror,
        "JOBS__DATABASE_URL": settings.jobs.database_url,
    }
    return {name: text for name, text in values.items() if text and masked(text) != text}


def own_places(settings: Settings) -> dict[str, str]:
    """This machine's folders and stores, above what a job's configuration says of another's."""
    values = {
        "DIR_PATHS__ROOT": str(settings.dirs.root),
        "DIR_PATHS__DATA": str(settings.dirs.data),
        "REGISTRY__TRACKING_URI": settings.registry.tracking_uri,
        "DATA__MIRROR": settings.data.mirror,
        "JOBS__DATABASE_URL": settings.jobs.database_url,
    }
    return {name: text for name, text in values.items() if text}


class Jobs(Protocol):
    """What a command does with jobs, here or at a server."""

    def submit(self, request: RetrainRequest, *, idempotency_key: str | None) -> Document:
        """Put a retraining into the queue; its document."""

    def show(self, job_id: str) -> Document:
        """A job's document."""

    def list(self, limit: int) -> Sequence[Document]:
        """The newest jobs' documents."""

    def cancel(self, job_id: str) -> Document:
        """Ask for a job's end; its document as it was then."""

    def follow(self, job_id: str) -> Iterator[tuple[str, Document]]:
        """Name and data of what happens to a job, from its beginning to its end."""

    def log(self, job_id: str, offset: int) -> bytes:
        """A part of a job's log from a place in bytes on; empty at its end for now."""

    def close(self) -> None:
        """Nothing more is wanted."""


class LocalJobs:
    """The jobs of the database that the settings name."""

    def __init__(self, settings: Settings, *, sleep: Callable[[float], object] = time.sleep):
        self._settings = settings
        self._queue = queue(settings)
        self._sleep = sleep
        self._sidecar = sidecar(settings, serving=False)

    def submit(self, request: RetrainRequest, *, idempotency_key: str | None) -> Document:
        """See `retrain.submit`."""
        from mindtrace.service import retrain

        job = retrain.submit(self._settings, request, idempotency_key=idempotency_key)
        return job.document()

    def show(self, job_id: str) -> Document:
        """NotFoundError."""
        return self._queue.get(job_id).document()

    def list(self, limit: int) -> Sequence[Document]:
        """Newest first."""
        return [job.document() for job in self._queue.list(limit)]

    def cancel(self, job_id: str) -> Document:
        """NotFoundError, ConflictError."""
        return self._queue.cancel(job_id).document()

    def follow(self, job_id: str) -> Iterator[tuple[str, Document]]:
        """Look again and again; a worker is started, if none runs."""
        self._sidecar.start()
        after, tries = 0, 0
        while True:
            try:
                found = self._queue.events(job_id, after)
                tries = 0
            except StoreError:
                tries += 1
                if tries >= _LOCAL_TRIES:
                    raise
                found = []
            for event in found:
                yield event.name, dict(event.data)
                after = event.id
                if event.name == END:
                    return
            if not found:
                self._sleep(_POLL)

    def log(self, job_id: str, offset: int) -> bytes:
        """NotFoundError."""
        return self._queue.log(job_id, offset)

    def close(self) -> None:
        """End the worker that we started, which puts its job back."""
        self._sidecar.stop()


class RemoteJobs:
    """The jobs of a running server; its refusals come back as the errors that they were there."""

    def __init__(self, link: Stream, *, sleep: Callable[[float], object] = time.sleep):
        self._link = link
        self._sleep = sleep

    def submit(self, request: RetrainRequest, *, idempotency_key: str | None) -> Document:
        """`POST /retrain`."""
        # Always one: a connection that breaks is tried again, and one job is wanted.
        key = {"Idempotency-Key": idempotency_key or random.token_hex(16)}
        return self._ask(
            "POST", "/retrain", json.dumps(request.document()).encode(), {**_JSON, **key}
        )

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

    def follow(self, job_id: str) -> Iterator[tuple[str, Document]]:
        """`GET /jobs/{job_id}/events`; a server that starts again is waited for."""
        after, tries = 0, 0
        while True:
            try:
                for number, name, data in self._link.events(f"/jobs/{_safe(job_id)}/events", after):
                    yield name, data
                    after, tries = number, 0
                    if name == END:
                        return
            except RefusedError as refused:
                tries += 1  # of a server whose database is away
                if refused.reply.status != 503 or tries >= _REMOTE_TRIES:
                    raise _meaning(self._link, refused.reply) from refused
            except (OSError, http.client.HTTPException) as error:
                tries += 1
                if tries >= _REMOTE_TRIES:
                    raise self._link.stranger("does not answer any more") from error
            self._sleep(_PAUSE if tries else 0.1)

    def log(self, job_id: str, offset: int) -> bytes:
        """`GET /jobs/{job_id}/log`."""
        try:
            return self._link.text(f"/jobs/{_safe(job_id)}/log?offset={offset}")
        except RefusedError as refused:
            raise _meaning(self._link, refused.reply) from refused
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
            raise _meaning(self._link, reply)
        return dict(reply.fields)


class RefusedError(Exception):
    """An answer that is no stream."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


class Stream(Link):
    """A link that also reads answers which are no JSON."""

    def events(self, path: str, after: int) -> Iterator[tuple[int, str, Document]]:
        """Number, name and data of server-sent events after a number."""
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
            try:
                fields = json.loads(response.read())
            except ValueError:
                fields = {}
            raise RefusedError(Reply(response.status, fields if isinstance(fields, dict) else {}))
        yield from response


def _meaning(link: Link, reply: Reply) -> MindtraceError:
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


def _safe(job_id: str) -> str:
    """An id as a part of a path; what cannot be one is one that nobody has."""
    return job_id if job_id.isascii() and job_id.replace("-", "").isalnum() else "none"
