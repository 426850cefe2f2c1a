"""The jobs as DBOS keeps them, by SQL: its API neither pages by id nor counts by state."""

import json
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from mindtrace import errors
from mindtrace.jobs.database import (
    EVENTS,
    KEY,
    LOG,
    RECORD,
    REQUEST,
    WORKFLOW,
    Database,
    enqueue,
    heartbeats,
    records,
    streams,
    workflows,
)
from mindtrace.jobs.job import (
    END,
    STATE,
    Event,
    Job,
    Request,
    State,
    is_job_id,
    iso_time,
    new_job_id,
)

# More attributes of a workflow. The mark is the one decision about a job; the first one holds.
_MARK, _OPEN_RUNS = "mark", "open_runs"
CANCELLING, REGISTERING, LOST = "cancelling", "registering", "lost"  # the last is not stored
_PAGE = 500  # events
_LONGEST_LEASE = 60.0  # seconds, above the one of any worker
_STATES = {
    "ENQUEUED": State.QUEUED,
    "DELAYED": State.QUEUED,
    "PENDING": State.RUNNING,
    "SUCCESS": State.SUCCEEDED,
    "ERROR": State.FAILED,
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": State.FAILED,
    "CANCELLED": State.CANCELLED,
}
_id, _status, _attributes = workflows.c.workflow_uuid, workflows.c.status, workflows.c.attributes
_ours = workflows.c.name == WORKFLOW
_waits = _status.in_(("ENQUEUED", "DELAYED"))
_unfinished = _status.in_(("ENQUEUED", "DELAYED", "PENDING"))
_open_runs = _attributes[_OPEN_RUNS].as_string() == "yes"


class JobQueue(Database):
    """The jobs of one database."""

    def submit(
        self,
        request: Request,
        max_queued: int = 8,
        *,
        request_digest: str | None = None,
        key_digest: str | None = None,
    ) -> Job:
        """Put a job into the queue, or find the one of this key; QueueFullError, UsageError."""
        client, job_id = self.client, new_job_id()
        with self.locked() as connection:
            row = connection.execute(_with_key(key_digest)).first() if key_digest else None
            if row is None:
                count = sa.select(sa.func.count()).select_from(workflows).where(_ours, _waits)
                waiting = connection.execute(count).scalar_one()
                if waiting >= max_queued:
                    message = f"{waiting} jobs wait already, [jobs] max_queued = {max_queued}"
                    hint = "try again when one of them has ended"
                    raise errors.QueueFullError(message, hint=hint)
                enqueue(client, connection, job_id, request, request_digest, key_digest)
        return self.get(job_id if row is None else _same_request(row, request_digest))

    def submitted(self, request_digest: str, key_digest: str) -> Job | None:
        """The job that has this key; UsageError if that is another request."""
        for row in self.rows(_with_key(key_digest)):
            return self.get(_same_request(row, request_digest))
        return None

    def get(self, job_id: str) -> Job:
        """A job as it is now; NotFoundError."""
        if is_job_id(job_id):
            for job in self.find([job_id]):
                return job
        raise errors.NotFoundError("job", job_id[:64], [job.job_id for job in self.list(3)])

    def find(self, job_ids: Sequence[str]) -> Sequence[Job]:
        """The jobs of these ids, as far as they exist."""
        return self._jobs(_id.in_(job_ids))

    def list(self, limit: int = 20, before: str | None = None) -> Sequence[Job]:
        """Jobs, newest first; those older than the job `before`, if that is given."""
        return self._jobs(*([_id < before] if before else []), limit=limit)

    def counts(self) -> Mapping[str, int]:
        """How many jobs are in each state."""
        counts: dict[str, int] = dict.fromkeys(State, 0)
        query = sa.select(_status, sa.func.count()).where(_ours).group_by(_status)
        for row in self.rows(query):
            counts[_STATES[row[0]]] += row[1]
        return counts

    def attended(self) -> bool:
        """Whether a worker is alive."""
        return bool(self.rows(self._alive))

    def unfinished(self) -> bool:
        """Whether a worker is needed: a job waits, runs, or may have left a run open."""
        query = sa.select(_id).where(_ours, sa.or_(_unfinished, _open_runs)).limit(1)
        return bool(self.rows(query))

    def with_open_runs(self, limit: int) -> Sequence[Job]:
        """Ended jobs whose runs could not be closed."""
        return self._jobs(sa.not_(_unfinished), _open_runs, limit=limit)

    def cancel(self, job_id: str) -> Job:
        """Take a job out of the queue, or ask for its end; NotFoundError, ConflictError."""
        job = self.get(job_id)
        if job.ended:
            raise errors.ConflictError(f"job {job_id} has ended: {job.state}")
        if self._decide(job_id, CANCELLING) != CANCELLING:
            message = f"job {job_id} has begun to register its version: too late to cancel"
            raise errors.ConflictError(message)
        runs = (_id == job_id, _status == "PENDING", workflows.c.executor_id.in_(self._alive))
        # A live worker does it, once its training has ended.
        if not self.rows(sa.select(_id).where(*runs)):
            self.note_open_runs(job_id, job.attempts > 0)
            self.end_cancelled(job_id)
            if job.attempts == 0 and self.get(job_id).attempts > 0:  # it began meanwhile
                self.note_open_runs(job_id, True)
        return self.get(job_id)

    def end_cancelled(self, job_id: str) -> None:
        """Mark a job as cancelled."""
        with self.reported():
            self.client.cancel_workflow(job_id)

    def note_open_runs(self, job_id: str, found: bool) -> None:
        """Note whether a run of a job may still say RUNNING in MLflow."""
        noted = {_OPEN_RUNS: "yes" if found else "no"}
        with self.reported():
            self.client.update_workflow_attributes(job_id, noted, merge=True)

    def events(self, job_id: str, after: int = 0) -> Sequence[Event]:
        """A page of a job's events after a number, in order; NotFoundError."""
        job = self.get(job_id)  # before the stream, which is complete once the job has ended
        first = Job.from_record(job_id, State.QUEUED, {}).document()
        found = [Event(1, STATE, first)] if after < 1 else []
        rows = self.rows(_stream(job_id, EVENTS, max(after - 1, 0)).limit(_PAGE))
        for row in rows:
            value = json.loads(row.value)
            found.append(Event(row.offset + 2, value["event"], value["data"]))
        if job.ended and len(rows) < _PAGE:
            last = len(self.rows(_stream(job_id, EVENTS))) + 2
            if last > after:
                found.append(Event(last, END, job.document()))
        return found

    def log(self, job_id: str, offset: int = 0) -> bytes:
        """A job's log from an offset in bytes, UTF-8; empty at its end. NotFoundError."""
        self.get(job_id)
        rows = self.rows(_stream(job_id, LOG))
        return "".join(json.loads(row.value) for row in rows).encode()[offset:]

    # For workers and trainings. A fence is the number of a claim on a job: DBOS raises it with
    # each claim.

    def fence(self, job_id: str, executor_id: str) -> int | None:
        """The fence of the worker's claim on the job; None if it has none."""
        query = sa.select(workflows.c.recovery_attempts).where(
            _id == job_id, _status == "PENDING", workflows.c.executor_id == executor_id
        )
        rows = self.rows(query)
        return int(rows[0][0]) if rows else None

    def decision(self, job_id: str, fence: int) -> str | None:
        """What was decided about a job, None for nothing yet; LOST if the claim is another's."""
        query = sa.select(_attributes).where(
            _id == job_id, _status == "PENDING", workflows.c.recovery_attempts == fence
        )
        rows = self.rows(query)
        return (rows[0][0] or {}).get(_MARK) if rows else LOST

    def begin_registering(self, job_id: str, fence: int) -> bool:
        """Decide that a job registers: nobody can cancel it then. False if cancelled or lost."""
        if self.decision(job_id, fence) != LOST:
            self._decide(job_id, REGISTERING)
        return self.decision(job_id, fence) == REGISTERING

    # Workers are alive for a lease after each heartbeat, by the database's clock. What expires
    # later than any lease was written before that clock was set back.
    @property
    def _alive(self) -> sa.Select[tuple[str]]:
        own = heartbeats.c.expires.between(self.now, self.now + _LONGEST_LEASE)
        return sa.select(heartbeats.c.executor_id).where(own)

    def beat(self, executor_id: str, lease: float) -> None:
        """A heartbeat: the worker is alive for `lease` seconds from now."""
        mine, expires = heartbeats.c.executor_id == executor_id, self.now + lease
        old = heartbeats.c.expires < self.now - 3600
        with self.changing() as connection:
            connection.execute(sa.delete(heartbeats).where(sa.or_(mine, old)))
            connection.execute(
                sa.insert(heartbeats).values(executor_id=executor_id, expires=expires)
            )

    def leave(self, executor_id: str) -> None:
        """A worker is gone; its job may be taken at once."""
        with self.changing() as connection:
            mine = heartbeats.c.executor_id == executor_id
            connection.execute(sa.delete(heartbeats).where(mine))

    def dead(self) -> Sequence[str]:
        """The workers that have a job and are not alive."""
        owner = workflows.c.executor_id
        query = sa.select(owner).where(_ours, _status == "PENDING", owner.not_in(self._alive))
        return sorted({row[0] for row in self.rows(query)})

    def has_job(self, executor_id: str) -> bool:
        """Whether a job is this worker's."""
        mine = sa.and_(_ours, _status == "PENDING", workflows.c.executor_id == executor_id)
        return bool(self.rows(sa.select(_id).where(mine).limit(1)))

    def _jobs(self, *where: Any, limit: int | None = None) -> Sequence[Job]:
        """Jobs, newest first."""
        record = sa.and_(records.c.workflow_uuid == _id, records.c.key == RECORD)
        query = (
            sa.select(workflows, records.c.value)
            .select_from(workflows.outerjoin(records, record))
            .where(_ours, *where)
            .order_by(_id.desc())
            .limit(limit)
        )
        return [_job(row) for row in self.rows(query)]

    def _decide(self, job_id: str, mark: str) -> str | None:
        """Decide about an unfinished job, unless that is done; the decision that holds."""
        found = sa.select(_attributes).where(_id == job_id, _unfinished)
        undecided = _attributes[_MARK].as_string().is_(None)
        with self.changing() as connection:
            attributes = connection.execute(found).scalar()
            # Nothing else of the attributes changes before the job has ended.
            connection.execute(
                sa.update(workflows)
                .where(_id == job_id, _unfinished, undecided)
                .values(attributes={**(attributes or {}), _MARK: mark})
            )
            return (connection.execute(found).scalar() or {}).get(_MARK)


@dataclass(frozen=True)
class RegistrationGuard:
    """Lets the attempt that has the job register a version; used in the training process."""

    job_id: str
    fence: int
    force: bool  # train even if such a version exists
    queue: JobQueue

    def require(self) -> None:
        """After this the job cannot be cancelled; InterruptedByUser if it was, or is another's."""
        if not self.queue.begin_registering(self.job_id, self.fence):
            raise errors.InterruptedByUser(signal.SIGTERM)


def _with_key(key_digest: str) -> sa.Select[Any]:
    return sa.select(_id, _attributes).where(_ours, _attributes[KEY].as_string() == key_digest)


def _same_request(row: Any, request_digest: str | None) -> str:
    """The id of the job that has the key; the request must be the same."""
    if row.attributes[REQUEST] != request_digest:
        hint = "send a new key with a new request"
        raise errors.UsageError(
            "this Idempotency-Key was sent before with another request", hint=hint
        )
    return str(row.workflow_uuid)


def _stream(job_id: str, key: str, start: int = 0) -> sa.Select[Any]:
    column = streams.c
    return (
        sa.select(column.offset, column.value)
        .where(column.workflow_uuid == job_id, column.key == key, column.offset >= start)
        .order_by(column.offset)
    )


def _job(row: Any) -> Job:
    record: dict[str, Any] = {} if row.value is None else json.loads(row.value)
    state = _STATES[row.status]
    cancelling = (row.attributes or {}).get(_MARK) == CANCELLING
    job = Job.from_record(row.workflow_uuid, state, record, cancelling=cancelling)
    if not job.ended or job.ended_at is not None:
        return job
    # DBOS writes whole seconds into SQLite: never before the job was submitted or started.
    ended = iso_time(datetime.fromtimestamp((row.completed_at or 0) / 1000, UTC))
    return replace(job, ended_at=max(ended, job.started_at or "", job.submitted_at))
