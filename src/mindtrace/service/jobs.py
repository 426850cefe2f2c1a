"""Jobs for the command line, HTTP and Python: those of the settings, or of a server by its URL."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import lru_cache, partial
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, ClassVar

from mindtrace.bundle import manifest
from mindtrace.config.sections import SECTIONS, STARTS, TRAVELLING
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
from mindtrace.jobs.job import END, FLAGS, Event, Job, Request, State, database_file
from mindtrace.jobs.process import listed_environment
from mindtrace.jobs.sidecar import WorkerSidecar
from mindtrace.registry.reference import locate, parse_reference, settings_of_bundle
from mindtrace.service.remote import Link
from mindtrace.service.retrain_request import TRAINED_WITH, RetrainRequest
from mindtrace.system import last_json

if TYPE_CHECKING:
    from mindtrace.jobs.queue import JobQueue

_POLL = 0.3  # seconds
_TRIES = 20  # to read the events of a job, while its database or its server is away
_PAUSE = 2.0  # seconds between them
_AWAY = (StoreError, ConflictError)

Document = dict[str, Any]


def queue(settings: Settings) -> JobQueue:
    """The jobs of these settings; one object for each process."""
    return _queue(settings.jobs.database_url, settings.dirs.root)


@lru_cache(maxsize=8)
def _queue(database_url: str | None, root: Path) -> JobQueue:
    from mindtrace.jobs.queue import JobQueue

    return JobQueue(database_url, root)


def counts(settings: Settings) -> Mapping[str, int]:
    """How many jobs are in each state; StoreError. Cheap where nobody ever submitted one."""
    return queue(settings).counts() if _exists(settings) else dict.fromkeys(State, 0)


def _exists(settings: Settings) -> bool:
    file = database_file(settings.jobs.database_url, settings.dirs.root)
    return file is None or file.exists()


def submit(
    settings: Settings, request: RetrainRequest, *, idempotency_key: str | None = None
) -> Job:
    """Put a retraining into the queue; the same key and request give the same job."""
    ours, digest, key = queue(settings), request.digest(), None
    if idempotency_key is not None:
        key = hashlib.sha256(idempotency_key.encode()).hexdigest()
        # Before anything else: the base may be gone since the job was accepted.
        job = ours.submitted(digest, key)
        if job is not None:
            return job
    merged, parent = job_settings(settings, request)
    config = merged.to_ini(TRAINED_WITH, given=True)
    flags = {name: getattr(request, name) for name in FLAGS}
    job_request = Request(config, parent, promote=settings.jobs.promote, **flags)
    limit = settings.jobs.max_queued
    return ours.submit(job_request, limit, request_digest=digest, key_digest=key)


def job_settings(settings: Settings, request: RetrainRequest) -> tuple[Settings, str | None]:
    """A job's settings (the server's, the base's over them, then the client's), and its parent."""
    if request.base is None:
        if request.warm_start:
            raise UsageError("warm_start needs a base", hint='{"base": "NAME", "warm_start": true}')
        return request.laid_over(settings, secrets(settings)), None
    based, parent = _based(settings, request.base)
    return request.laid_over(based, secrets(based)), parent


def _based(settings: Settings, base: str) -> tuple[Settings, str]:
    """The settings with a version's configuration over them, and that version."""
    if parse_reference(base).folder is not None:
        raise UsageError("base must be a registered version", hint="NAME, NAME@ALIAS, NAME/VERSION")
    located = locate(settings, base)
    assert located.row is not None, "only a folder has none"
    name = located.row.name
    config = manifest.check_one(located.folder, "config.ini", located.digest)
    made = settings_of_bundle(settings, config.decode())
    weights = made.model.weights
    if weights not in STARTS and not Path(weights).is_file():
        # It began with weights that only another machine has.
        made = made.replace(**{"model.weights": "none"})
    values = {f"{part}.{key}": value for part in TRAVELLING for key, value in getattr(made, part)}
    values |= {"compute.device": settings.compute.device, "registry.model_name": name}
    return settings.replace(**values), f"{name}/{located.row.version}"


def sidecar(settings: Settings, *, serving: bool) -> WorkerSidecar:
    """Starts a worker beside this process once there are jobs; the caller must stop it."""
    return WorkerSidecar(
        settings.dirs.root,
        unfinished=lambda: _exists(settings) and queue(settings).unfinished(),
        config=lambda: settings.to_ini([*SECTIONS]),
        environ=listed_environment(os.environ, secrets(settings)),
        serving=serving,
    )


def work(
    settings: Settings,
    stopping: threading.Event,
    *,
    lease: float,
    grace: float,
    ready: Callable[[str], Any],
) -> None:
    """Take jobs until `stopping` is set; see `Worker`. Blocks; StoreError."""
    from mindtrace.jobs.attempt import Workplace
    from mindtrace.jobs.queue import JobQueue
    from mindtrace.jobs.worker import Worker

    dirs, jobs = settings.dirs, settings.jobs
    workplace = Workplace(
        queue=JobQueue(jobs.database_url, dirs.root, durable=False),
        root=dirs.root,
        checkpoints=dirs.checkpoints,
        # A job takes pretrained weights that are on this machine, and downloads none.
        environ=listed_environment(os.environ, own_places(settings) | {"HF_HUB_OFFLINE": "1"}),
        stopping=stopping,
        grace=grace,
    )
    Worker(workplace, lease=lease).run(ready)


def secrets(settings: Settings) -> dict[str, str]:
    """URLs with passwords, as environment variables: no file ever holds them."""
    return {name: url for name, url in _urls(settings).items() if masked(url) != url}


def own_places(settings: Settings) -> dict[str, str]:
    """This machine's folders and URLs, which override those in a job's configuration."""
    dirs = settings.dirs
    folders = {"DIR_PATHS__ROOT": str(dirs.root), "DIR_PATHS__DATA": str(dirs.data)}
    return folders | _urls(settings)


def _urls(settings: Settings) -> dict[str, str]:
    values = {
        "REGISTRY__TRACKING_URI": settings.registry.tracking_uri,
        "DATA__MIRROR": settings.data.mirror,
        "JOBS__DATABASE_URL": settings.jobs.database_url,
    }
    return {name: url for name, url in values.items() if url}


def _followed(read: Callable[[int], Iterable[Event]]) -> Iterator[tuple[str, Document]]:
    """Events of `read(after)`, to the end; it is asked again where what it reads is away."""
    after, failed = 0, 0
    while True:
        try:
            for event in read(after):
                yield event.name, dict(event.data)
                after, failed = event.id, 0
                if event.name == END:
                    return
        except _AWAY:
            failed += 1
            if failed >= _TRIES:
                raise
        time.sleep(_PAUSE if failed else _POLL)


class LocalJobs:
    """The jobs of the database that the settings name, as documents."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._queue = queue(settings)
        self._sidecar = sidecar(settings, serving=False)

    def submit(self, request: RetrainRequest, *, idempotency_key: str | None) -> Document:
        return submit(self._settings, request, idempotency_key=idempotency_key).document()

    def show(self, job_id: str) -> Document:
        return self._queue.get(job_id).document()

    def waits(self, documents: Sequence[Document]) -> bool:
        """Whether one of these jobs is queued and no worker is there to take it."""
        queued = any(document["state"] == "queued" for document in documents)
        return queued and not self._queue.attended()

    def list(self, limit: int) -> Sequence[Document]:
        return [job.document() for job in self._queue.list(limit)]

    def cancel(self, job_id: str) -> Document:
        return self._queue.cancel(job_id).document()

    def follow(self, job_id: str) -> Iterator[tuple[str, Document]]:
        """Name and data of a job's events, to its end; starts a worker if none runs."""
        self._sidecar.start()
        yield from _followed(partial(self._queue.events, job_id))

    def log(self, job_id: str, offset: int) -> bytes:
        """A part of a job's log from an offset in bytes; empty at its end for now."""
        return self._queue.log(job_id, offset)

    def close(self) -> None:
        """End the worker that we started, which puts its job back."""
        self._sidecar.stop()


class RemoteJobs(Link):
    """The same for a running server; its refusals are raised as the errors they were there."""

    errors: ClassVar = {**Link.errors, 409: ConflictError, 422: UsageError, 429: QueueFullError}
    patient = False

    def submit(self, request: RetrainRequest, *, idempotency_key: str | None) -> Document:
        # Always with a key: a broken connection is tried again, and must not make a second job.
        key = {"Idempotency-Key": idempotency_key or token_hex(16)}
        return self._ask("POST", "/retrain", json=request.document(), headers=key)

    def show(self, job_id: str) -> Document:
        return self._ask("GET", f"/jobs/{_safe(job_id)}")

    def waits(self, documents: Sequence[Document]) -> bool:
        """The server has a worker, or its operator knows why not."""
        return False

    def list(self, limit: int) -> Sequence[Document]:
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
        return self._ask("DELETE", f"/jobs/{_safe(job_id)}")

    def follow(self, job_id: str) -> Iterator[tuple[str, Document]]:
        """Name and data of a job's events, to its end; waits for a server that restarts."""
        yield from _followed(partial(self._events, f"/jobs/{_safe(job_id)}/events"))

    def log(self, job_id: str, offset: int) -> bytes:
        return b"".join(self._open(f"/jobs/{_safe(job_id)}/log?offset={offset}"))

    def refused(self, status: int, fields: Document) -> MindtraceError:
        detail, hint = fields.get("detail"), fields.get("hint")
        if status == 404 and isinstance(detail, str):
            error = NotFoundError("job", None, hint=f"mindtrace jobs list --url {self.url}")
            error.message = f"{self.url}: {detail}"
            error.args = (error.message,)
            return error
        if status == 422 and fields.get("errors"):
            return ConfigError([_fault(row) for row in fields["errors"]], hint=hint)
        return super().refused(status, fields)

    def _ask(self, method: str, path: str, **request: Any) -> Document:
        status, fields = self.ask(method, path, **request)
        if status >= 300:
            raise self.refused(status, fields)
        return fields

    def _events(self, path: str, after: int) -> Iterator[Event]:
        """Server-sent events after a number."""
        fields: dict[str, str] = {}
        headers = {"Last-Event-ID": str(after)} if after else {}
        for line in self._open(path, headers=headers):
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif "data" in fields:
                yield Event(int(fields["id"]), fields["event"], json.loads(fields["data"]))
                fields = {}

    def _open(self, path: str, **request: Any) -> Iterator[bytes]:
        """The lines of an answer that is not JSON; StoreError where none comes."""
        from urllib3.exceptions import HTTPError

        try:
            with closing(self.send("GET", path, preload_content=False, **request)) as response:
                if response.status < 300:
                    yield from response
                    return
                fields = last_json(response.data)
        except HTTPError as error:
            raise StoreError(f"{self.url} does not answer: {error}") from error
        if response.status == 503 and not fields:  # of a proxy, whose server restarts
            raise StoreError(f"{self.url} does not answer: 503")
        raise self.refused(response.status, fields)


def _fault(row: Mapping[str, Any]) -> Fault:
    place = (row.get("line"), row.get("section"), row.get("key"))
    return Fault("request", *place, str(row.get("message")))


def _safe(job_id: str) -> str:
    """An id as a part of a path; `none` for what cannot be one."""
    return job_id if job_id.isascii() and job_id.replace("-", "").isalnum() else "none"
