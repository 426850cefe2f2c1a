"""Jobs that an earlier release left: the ended ones are shown, the others are queued again."""

from __future__ import annotations

import json
from pathlib import Path

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
    return queue


def test_they_are_listed_and_shown(old: JobQueue) -> None:
    assert [job.job_id for job in old.list()] == [RUNS, WAITS, FAILED, DONE]
    assert [job.job_id for job in old.list(1, before=RUNS)] == [WAITS]
    states = {"queued": 2, "running": 0, "succeeded": 1, "failed": 1, "cancelled": 0}
    assert old.counts() == states
    done = old.get(DONE)
    assert (done.state, done.version, done.ended_at) == ("succeeded", 1, TIME)
    assert old.get(FAILED).error == {"type": "DataError", "message": "no images"}
    assert [event.name for event in old.events(DONE)] == ["state", "end"]
    assert old.log(DONE) == b""
    with pytest.raises(ConflictError):
        old.cancel(DONE)


def test_those_that_wait_are_queued_under_their_own_ids(old: JobQueue) -> None:
    assert old.unfinished()
    assert old.submitted("r", "key") == old.get(WAITS)
    worker = taken(old, RUNS)
    assert worker.request() == Request("[train]\n", "m/1", True)
    worker.finish("succeeded", version=2)
    assert old.cancel(WAITS).state == "cancelled"
    assert not old.unfinished()
    assert len(old.list()) == 4


def test_what_the_release_before_told_dbos_is_not_repeated(
    old: JobQueue, database_url: str | None, tmp_path: Path
) -> None:
    other = JobQueue(database_url, tmp_path, 3)
    DBOS.migrate(other._url)
    with other.changing() as connection:
        connection.execute(
            sa.text(
                "insert into workflow_status (workflow_uuid, status, name, queue_name)"
                " values (:job_id, 'PENDING', 'retrain', 'retrain')"
            ),
            {"job_id": WAITS},
        )
        connection.execute(
            sa.text("insert into workflow_input (workflow_uuid, inputs) values (:job_id, 'old')"),
            {"job_id": WAITS},
        )
    other.close()
    assert old.get(WAITS).state == "queued"
    assert taken(old, WAITS).request().parent == "m/1"
