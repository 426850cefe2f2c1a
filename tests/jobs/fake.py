"""A worker that does what a test says: it claims jobs and writes as DBOS would, no longer."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mindtrace.jobs.attempt import Attempt, Workplace
from mindtrace.jobs.database import records, streams, workflows
from mindtrace.jobs.job import Job, Request
from mindtrace.jobs.queue import JobQueue

STATUSES = {"succeeded": "SUCCESS", "failed": "ERROR", "cancelled": "CANCELLED"}
_STREAMS = sa.table("streams", *map(sa.column, (*streams.c.keys(), "function_id")))
_INPUTS = sa.table("workflow_input", sa.column("workflow_uuid"), sa.column("inputs"))


class LostError(BaseException):
    """The job is another worker's; DBOS's own error is no Exception either."""


class FakeWorker:
    """A claim on a job, made by a worker that lives."""

    def __init__(
        self, queue: JobQueue, job_id: str, executor_id: str = "w", work: Workplace | None = None
    ) -> None:
        self.queue = queue
        self.job_id = job_id
        self.executor_id = executor_id
        queue.beat(executor_id, 60)
        taken = self._change(
            workflows.c.status.in_(("ENQUEUED", "PENDING")),
            status="PENDING",
            executor_id=executor_id,
            recovery_attempts=workflows.c.recovery_attempts + 1,
        )
        assert taken
        fence = queue.fence(job_id, executor_id)
        assert fence is not None
        self.fence = fence
        root = Path("/nowhere")
        work = work or Workplace(queue, root, root, {}, threading.Event())
        self.attempt = Attempt(work, self, queue.get(job_id), self.request(), self.fence)

    def begin(self) -> FakeWorker:
        """An attempt begins, as in a worker."""
        self.attempt._begin(self.attempt.job.lost + self.attempt.job.begun)
        return self

    def tell(self, *events: dict[str, Any], text: str = "") -> None:
        """Report what a training wrote."""
        lines = [json.dumps(event).encode() for event in events]
        self.attempt._report_lines([*lines, *([text.encode()] if text else [])])

    def finish(self, state: str, **fields: Any) -> None:
        """End the job."""
        self.attempt.save(**{**fields, "begun": False})
        assert self._change(self._mine(), status=STATUSES[state], completed_at=1)

    def release(self) -> None:
        """Put it back."""
        self.attempt._put_back()
        assert self._change(self._mine(), status="ENQUEUED")

    @property
    def job(self) -> Job:
        return self.queue.get(self.job_id)

    def decision(self) -> str | None:
        return self.queue.decision(self.job_id, self.fence)

    def request(self) -> Request:
        """What was asked, as DBOS hands it to a workflow."""
        with self.queue.engine.connect() as connection:
            query = sa.select(_INPUTS.c.inputs).where(_INPUTS.c.workflow_uuid == self.job_id)
            fields = json.loads(connection.execute(query).scalar_one())
        return Request.from_fields(fields["positionalArgs"][0])

    # The journal of its attempt.

    def set_event(self, key: str, value: Any) -> None:
        own = (records.c.workflow_uuid == self.job_id, records.c.key == key)
        with self.queue.engine.begin() as connection:
            self._require_claim(connection)
            connection.execute(sa.delete(records).where(*own))
            connection.execute(
                sa.insert(records).values(
                    workflow_uuid=self.job_id, key=key, value=json.dumps(value)
                )
            )

    def write_stream(self, key: str, value: Any) -> None:
        own = (streams.c.workflow_uuid == self.job_id, streams.c.key == key)
        with self.queue.engine.begin() as connection:
            self._require_claim(connection)
            length = sa.select(sa.func.count()).select_from(streams).where(*own)
            values = {"workflow_uuid": self.job_id, "key": key, "value": json.dumps(value)}
            offset = connection.execute(length).scalar_one()
            connection.execute(sa.insert(_STREAMS).values(**values, offset=offset, function_id=1))

    def _mine(self) -> sa.ColumnElement[bool]:
        return sa.and_(workflows.c.status == "PENDING", workflows.c.recovery_attempts == self.fence)

    def _require_claim(self, connection: sa.Connection) -> None:
        own = sa.update(workflows).where(workflows.c.workflow_uuid == self.job_id, self._mine())
        if not connection.execute(own.values(executor_id=self.executor_id)).rowcount:
            raise LostError(self.job_id)

    def _change(self, where: sa.ColumnElement[bool], **values: Any) -> bool:
        changes = sa.update(workflows).where(workflows.c.workflow_uuid == self.job_id, where)
        with self.queue.engine.begin() as connection:
            return connection.execute(changes.values(**values)).rowcount == 1


def taken(queue: JobQueue, job: Job | str, executor_id: str = "w") -> FakeWorker:
    """A job on which an attempt has begun."""
    job_id = job if isinstance(job, str) else job.job_id
    return FakeWorker(queue, job_id, executor_id).begin()
