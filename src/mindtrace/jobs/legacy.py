"""Jobs of releases that kept a table of their own in the same database: they become DBOS's."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from mindtrace.jobs.job import Job, Request

TABLE = "mindtrace_jobs"
_PLAIN = ("started_at", "ended_at", "attempts", "epoch", "max_epochs", "val_acc")
_MORE = ("model_name", "version", "reused", "promotion", "error")
_REQUEST = ("request", "request_digest", "key_digest")
_jobs = sa.table(TABLE, *map(sa.column, ("job_id", "state", *_PLAIN, *_MORE, *_REQUEST)))
_workflows = sa.table("workflow_status", sa.column("workflow_uuid"), sa.column("status"))
_STATUSES = {"succeeded": "SUCCESS", "failed": "ERROR", "cancelled": "CANCELLED"}
# What such a release had DBOS keep of a job, which is not to be repeated.
_FORMER = ("workflow_input", "workflow_output", "operation_outputs", "workflow_status")


def adopt(connection: sa.Connection, enqueue: Callable[..., None]) -> None:
    """Take them over under their own ids: those that had not ended wait again."""
    if not sa.inspect(connection).has_table(TABLE):
        return
    for name in _FORMER:
        former = sa.table(name, sa.column("workflow_uuid"))
        ids = sa.select(_jobs.c.job_id)
        connection.execute(sa.delete(former).where(former.c.workflow_uuid.in_(ids)))
    for row in connection.execute(sa.select(_jobs).order_by(_jobs.c.job_id)).mappings().all():
        request = Request.from_fields(json.loads(row["request"]))
        enqueue(row["job_id"], request, row["request_digest"], row["key_digest"])
        connection.execute(
            sa.text(
                "insert into workflow_events (workflow_uuid, key, value, serialization)"
                " values (:job_id, 'job', :record, 'portable_json')"
            ),
            {"job_id": row["job_id"], "record": json.dumps(_record(row))},
        )
        if row["state"] in _STATUSES:
            connection.execute(
                sa.text(
                    "update workflow_status set status = :status where workflow_uuid = :job_id"
                ),
                {"job_id": row["job_id"], "status": _STATUSES[row["state"]]},
            )
    connection.execute(sa.text(f"alter table {TABLE} rename to {TABLE}_before"))


def _record(row: Any) -> dict[str, Any]:
    values = {name: row[name] for name in (*_PLAIN, "model_name", "version")}
    for name in ("promotion", "error"):
        values[name] = None if row[name] is None else json.loads(row[name])
    job = Job.from_record(row["job_id"], row["state"], {**values, "reused": bool(row["reused"])})
    return job.record()
