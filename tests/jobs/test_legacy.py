"""Jobs that an earlier release left: the ended ones are shown, the others are queued again."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa
from dbos import DBOS
from tests.jobs.fake import taken

from mindtrace.errors import ConflictError
from mindtrace.jobs.job import Request
from mindtrace.jobs.queue import JobQueue

TABLE = """
create table mindtrace_jobs (
    job_id text primary key, state text not null, submitted_at text not null, started_at text,
    ended_at text, attempts integer not null default 0, epoch integer, max_epochs integer,
    val_acc double precision, model_name text, version integer,
    reused integer not null default 0, promotion text, error text, request text not null,
    request_digest text, key_digest text unique, dispatched integer not null default 0
)
"""
DONE, FAILED, WAITS, RUNS = (f"2025010{day}T000000000000-0000000{day}" for day in range(1, 5))
TIME = "2025-01-01T00:00:00.000+00:00"


@pytest.fixture
def old(queue: JobQueue) -> JobQueue:
    """A database as the release before left it."""
    error = json.dumps({"type": "DataError", "message": "no images"})
    request = json.dumps({"config": "[train]\n", "parent": "m/1", "warm_start": True})
    rows = [
        (DONE, "succeeded", TIME, 1, None, None),
        (FAILED, "failed", TIME, None, error, None),
        (WAITS, "queued", None, None, None, "key"),
        (RUNS, "running", None, None, None, None),
    ]
    names = ("job_id", "state", "ended_at", "version", "error", "key_digest")
    DBOS.migrate(queue._url)
    with queue.reported(), queue.engine.begin() as connection:
        connection.execute(sa.text(TABLE))
        for row in rows:
            connection.execute(
                sa.text(
                    "insert into mindtrace_jobs (submitted_at, request, request_digest, job_id,"
                    " state, ended_at, version, error, key_digest) values (:time, :request, 'r',"
                    " :job_id, :state, :ended_at, :version, :error, :key_digest)"
                ),
                {"time": TIME, "request": request, **dict(zip(names, row, strict=True))},
            )
        # What it told DBOS is not done once more.
        for told in (
            "workflow_status (workflow_uuid, status, name, queue_name)"
            " values (:job_id, 'PENDING', 'retrain', 'retrain')",
            "workflow_input (workflow_uuid, inputs) values (:job_id, 'old')",
        ):
            connection.execute(sa.text(f"insert into {told}"), {"job_id": RUNS})
    return queue


def test_ended_ones_are_shown_and_the_others_are_queued_under_their_own_ids(old: JobQueue) -> None:
    assert [job.job_id for job in old.list()] == [RUNS, WAITS, FAILED, DONE]
    states = {"queued": 2, "running": 0, "succeeded": 1, "failed": 1, "cancelled": 0}
    assert old.counts() == states
    done = old.get(DONE)
    assert (done.state, done.version, done.ended_at) == ("succeeded", 1, TIME)
    assert old.get(FAILED).error == {"type": "DataError", "message": "no images"}
    assert [event.name for event in old.events(DONE)] == ["state", "end"]
    with pytest.raises(ConflictError):
        old.cancel(DONE)
    assert old.submitted("r", "key") == old.get(WAITS)
    worker = taken(old, RUNS)
    assert worker.request() == Request("[train]\n", "m/1", True)
    worker.finish("succeeded", version=2)
    assert old.cancel(WAITS).state == "cancelled"
    assert not old.unfinished()
