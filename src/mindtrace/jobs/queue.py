"""Floor 8: the jobs, for whoever submits, asks and cancels; any process, any machine.

In: the configuration of a training. Out: its job. That a job is accepted, that it has one
key and that no more wait than may is one transaction; a worker finds the job there and
hands it to DBOS. Nothing here imports DBOS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from mindtrace.errors import ConflictError, NotFoundError, QueueFullError, UsageError
from mindtrace.jobs import events
from mindtrace.jobs.database import Database, Row, Work
from mindtrace.jobs.job import (
    CANCELLED,
    ENDED,
    QUEUED,
    RUNNING,
    STATES,
    Event,
    Job,
    Request,
    is_job_id,
    new_job_id,
    now,
)
from mindtrace.jobs.workers import is_alive

_EVENTS = 500


class JobQueue:
    """Submit, get, list, cancel; events and log.

    Attributes:
        database: holds the jobs.
        max_queued: how many may wait.
    """

    def __init__(self, database: Database, max_queued: int) -> None:
        self.database = database
        self.max_queued = max_queued

    def submit(
        self, request: Request, *, request_digest: str | None = None, key_digest: str | None = None
    ) -> Job:
        """Put a job at the end of the queue.

        Args:
            request: what to train.
            request_digest: of what the client asked.
            key_digest: of the client's key; a job that has it already is returned.

        Raises:
            QueueFullError: `max_queued` jobs wait already.
            UsageError: the key belongs to another request.
            StoreError: the database is away.
        """
        with self.database.transaction() as work:
            work.rows(work.alone)
            job = _keyed(work, request_digest, key_digest)
            if job is not None:
                return job
            self._demand_room(work)
            job_id = new_job_id()
            work.changed(
                "insert into mindtrace_jobs"
                " (job_id, state, submitted_at, request, request_digest, key_digest)"
                " values (?, ?, ?, ?, ?, ?)",
                *(job_id, QUEUED, now(), request.to_json(), request_digest, key_digest),
            )
            return events.tell_state(work, job_id)

    def submitted(self, request_digest: str, key_digest: str) -> Job | None:
        """The job that has this key already, if one has.

        Raises:
            UsageError: the key belongs to another request.
            StoreError: the database is away.
        """
        if not self.database.exists():
            return None
        with self._read() as work:
            return _keyed(work, request_digest, key_digest)

    def get(self, job_id: str) -> Job:
        """A job as it is now.

        Raises:
            NotFoundError: there is no such job.
            StoreError: the database is away.
        """
        with self._read() as work:
            return _demanded(work, job_id)

    def list(self, limit: int = 20, before: str | None = None) -> Sequence[Job]:
        """Jobs, newest first; those older than the job `before`, if that is given."""
        if not self.database.exists():
            return []
        where, values = ("where job_id < ?", (before,)) if before else ("", ())
        with self._read() as work:
            rows = work.rows(
                f"select * from mindtrace_jobs {where} order by job_id desc limit ?",
                *(*values, limit),
            )
        return [Job.from_row(row) for row in rows]

    def counts(self) -> Mapping[str, int]:
        """How many jobs are in each state; all zero, and nothing made, without a database."""
        counts = dict.fromkeys(STATES, 0)
        if self.database.exists():
            with self._read() as work:
                for row in work.rows("select state, count(*) n from mindtrace_jobs group by state"):
                    counts[row["state"]] = row["n"]
        return counts

    def unfinished(self) -> bool:
        """Whether a worker is wanted: a job waits, runs, or ended and may have left a run open."""
        if not self.database.exists():
            return False
        with self._read() as work:
            sql = "select 1 from mindtrace_jobs where ended_at is null or swept = 0 limit 1"
            return work.row(sql) is not None

    def cancel(self, job_id: str) -> Job:
        """Take a job out of the queue, or ask for the end of one that runs.

        Raises:
            NotFoundError: there is no such job.
            ConflictError: it has ended, or its version is being registered.
        """
        with self.database.transaction() as work:
            _demanded(work, job_id)
            row = _locked(work, job_id)
            if row["state"] in ENDED:
                raise ConflictError(f"job {job_id} has ended: {row['state']}")
            if row["registering"]:
                raise ConflictError(
                    f"job {job_id} has begun to register its version: too late to cancel"
                )
            if row["state"] == RUNNING and is_alive(work, row["worker_id"]):
                if row["cancelling"]:
                    return Job.from_row(row)
                work.changed("update mindtrace_jobs set cancelling = 1 where job_id = ?", job_id)
                return events.tell_state(work, job_id)
            # A higher fence: the worker, should it come back, finds that it lost the job.
            work.changed(
                "update mindtrace_jobs set state = ?, ended_at = ?, fence = fence + 1, swept = ?"
                " where job_id = ?",
                *(CANCELLED, now(), int(row["attempts"] == 0), job_id),
            )
            return events.tell_state(work, job_id)

    def events(self, job_id: str, after: int = 0) -> Sequence[Event]:
        """What happened to a job behind the event with that number, in order.

        Raises:
            NotFoundError: there is no such job.
        """
        with self._read() as work:
            _demanded(work, job_id)
            return events.read_events(work, job_id, after, _EVENTS)

    def log(self, job_id: str, offset: int = 0) -> bytes:
        """A part of a job's log, from a place in bytes on; empty at its end for now.

        Raises:
            NotFoundError: there is no such job.
        """
        with self._read() as work:
            _demanded(work, job_id)
            return events.read_log(work, job_id, offset)

    def _read(self) -> AbstractContextManager[Work]:
        return self.database.transaction(write=False)

    def _demand_room(self, work: Work) -> None:
        row = work.row("select count(*) n from mindtrace_jobs where state = ?", QUEUED)
        waiting = 0 if row is None else row["n"]
        if waiting >= self.max_queued:
            raise QueueFullError(
                f"{waiting} jobs wait already, [jobs] max_queued = {self.max_queued}",
                hint="try again when one of them has ended",
            )


def _demanded(work: Work, job_id: str) -> Job:
    job = events.read_job(work, job_id) if is_job_id(job_id) else None
    if job is None:
        rows = work.rows("select job_id from mindtrace_jobs order by job_id desc limit 3")
        raise NotFoundError("job", job_id[:64], [row["job_id"] for row in rows])
    return job


def _locked(work: Work, job_id: str) -> Row:
    row = work.row(f"select * from mindtrace_jobs where job_id = ? {work.locking}", job_id)
    assert row is not None
    return row


def _keyed(work: Work, request_digest: str | None, key_digest: str | None) -> Job | None:
    """The job with that key, if one has it; the request must be the same."""
    if key_digest is None:
        return None
    row = work.row("select * from mindtrace_jobs where key_digest = ?", key_digest)
    if row is None:
        return None
    if row["request_digest"] != request_digest:
        raise UsageError(
            "this Idempotency-Key was sent before with another request",
            hint="send a new key with a new request",
        )
    return Job.from_row(row)
