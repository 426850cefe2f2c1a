"""Floor 8: the jobs of one ROOT, a folder each under `<ROOT>/jobs`.

In: the configuration of a training. Out: its job, whose record can be asked for at any
time, from any process. A record is replaced by a rename, so a reader sees the old or the
new one; changes are made under a lock that all processes share.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mindtrace.errors import ConflictError, NotFoundError, QueueFullError, StoreError, UsageError
from mindtrace.jobs.job import (
    CANCELLED,
    FAILED,
    QUEUED,
    RUNNING,
    Job,
    is_job_id,
    new_job_id,
    now,
)

CONFIG = "config.ini"
LOG = "log.txt"
_RECORD = "job.json"
_CANCEL = "cancel"
_CHANGING = ".changing"
_RUNNING = ".running"


class JobQueue:
    """Submit, get, list, cancel; and claim, update for whoever runs the jobs.

    Attributes:
        folder: holds a folder for each job.
    """

    def __init__(self, folder: Path, max_queued: int) -> None:
        self.folder = folder
        self.max_queued = max_queued

    def submit(
        self, config: str, *, request_digest: str | None = None, key_digest: str | None = None
    ) -> Job:
        """Put a job at the end of the queue.

        Args:
            config: the whole configuration of the training, INI text.
            request_digest: of what the client asked.
            key_digest: of the client's key; a job that has it already is returned.

        Raises:
            QueueFullError: `max_queued` jobs wait already.
            UsageError: the key belongs to another request.
            StoreError: the folder cannot be written.
        """
        with self._changing():
            jobs = list(self._jobs())
            for job in jobs:
                if key_digest is not None and job.key_digest == key_digest:
                    return _same_request(job, request_digest)
            waiting = sum(job.state == QUEUED for job in jobs)
            if waiting >= self.max_queued:
                raise QueueFullError(
                    f"{waiting} jobs wait already, [jobs] max_queued = {self.max_queued}",
                    hint="try again when one of them has ended",
                )
            job = Job(
                new_job_id(), QUEUED, now(), request_digest=request_digest, key_digest=key_digest
            )
            folder = self.folder_of(job.job_id)
            folder.mkdir()
            (folder / CONFIG).write_text(config, encoding="utf-8")
            self._write(job)
        return job

    def get(self, job_id: str) -> Job:
        """The record of a job as it is now.

        Raises:
            NotFoundError: there is no such job.
        """
        job = self._read(job_id) if is_job_id(job_id) else None
        if job is None:
            raise NotFoundError("job", job_id[:64], self._ids()[:3])
        return self._true(job)

    def list(self, limit: int = 20, before: str | None = None) -> Sequence[Job]:
        """Jobs, newest first; those older than the job `before`, if that is given."""
        ids = [job_id for job_id in self._ids() if before is None or job_id < before]
        jobs = (self._read(job_id) for job_id in ids[:limit])
        return [self._true(job) for job in jobs if job is not None]

    def cancel(self, job_id: str) -> Job:
        """Take a job out of the queue, or ask for the end of one that runs.

        Raises:
            NotFoundError: there is no such job.
            ConflictError: it has ended.
        """
        job = self.get(job_id)
        with self._changing():
            job = self._read(job_id) or job
            if job.ended:
                raise ConflictError(f"job {job_id} has ended: {job.state}")
            if job.state == RUNNING:
                (self.folder_of(job_id) / _CANCEL).touch()
                return job
            job = replace(job, state=CANCELLED, ended_at=now())
            self._write(job)
        return job

    def claim(self) -> Job | None:
        """Mark the oldest waiting job as running; only for who holds `running_lock`."""
        with self._changing():
            for job in reversed(list(self._jobs())):
                if job.state == RUNNING:
                    self._write(_lost(job))
                elif job.state == QUEUED:
                    job = replace(job, state=RUNNING, started_at=now(), attempts=job.attempts + 1)
                    self._write(job)
                    return job
        return None

    def update(self, job: Job, **changes: Any) -> Job:
        """Replace the record of a running job; only for who runs it."""
        job = replace(job, **changes)
        self._write(job)
        return job

    def cancel_wanted(self, job_id: str) -> bool:
        """Whether somebody asked for the end of a running job."""
        return (self.folder_of(job_id) / _CANCEL).exists()

    def unfinished(self) -> bool:
        """Whether a job waits, or was left behind by a process that is gone."""
        return any(not job.ended for job in self._jobs())

    def folder_of(self, job_id: str) -> Path:
        """Where a job keeps its configuration, record and log."""
        return self.folder / job_id

    @contextlib.contextmanager
    def running_lock(self) -> Iterator[bool]:
        """Held by the one process that runs jobs of this ROOT; yields whether we got it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with _locked(self.folder / _RUNNING, wait=False) as ours:
            yield ours

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _locked(self.folder / _CHANGING, wait=True):
                yield
        except OSError as error:
            raise StoreError(f"{self.folder} cannot be written: {error.strerror}") from error

    def _true(self, job: Job) -> Job:
        """A job that says it runs while nobody runs jobs was left behind."""
        if job.state != RUNNING:
            return job
        with self.running_lock() as ours:
            if not ours:
                return job
            # Only while we hold the lock can no new one be running.
            job = self._read(job.job_id) or job
            if job.state == RUNNING:
                job = _lost(job)
                self._write(job)
            return job

    def _jobs(self) -> Iterator[Job]:
        for job_id in self._ids():
            job = self._read(job_id)
            if job is not None:
                yield job

    def _ids(self) -> Sequence[str]:
        try:
            names = [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        return sorted(filter(is_job_id, names), reverse=True)

    def _read(self, job_id: str) -> Job | None:
        try:
            return Job.from_json((self.folder_of(job_id) / _RECORD).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def _write(self, job: Job) -> None:
        path = self.folder_of(job.job_id) / _RECORD
        fresh = path.with_suffix(f".{os.getpid()}.tmp")
        with fresh.open("w", encoding="utf-8") as file:
            file.write(job.to_json())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)


def _same_request(job: Job, request_digest: str | None) -> Job:
    if job.request_digest != request_digest:
        raise UsageError(
            "this Idempotency-Key was sent before with another request",
            hint="send a new key with a new request",
        )
    return job


def _lost(job: Job) -> Job:
    message = "the server that ran this job is gone"
    return replace(
        job, state=FAILED, ended_at=now(), error={"type": "TrainingError", "message": message}
    )


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock of a file; the system lets go of it when the process dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield _lock(descriptor, wait)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True
