"""Submit, ask and cancel: limits, keys, pages, and what another process sees."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mindtrace.errors import ConflictError, NotFoundError, QueueFullError, StoreError, UsageError
from mindtrace.jobs import workers
from mindtrace.jobs.database import Database, open_database
from mindtrace.jobs.hold import CANCEL, Hold, registering
from mindtrace.jobs.job import Job, Request, is_job_id, new_job_id
from mindtrace.jobs.queue import JobQueue

ANY = Request("[train]\n")


def taken(database: Database, job: Job, worker_id: str = "w") -> Hold:
    """A hold on a job by a worker that lives."""
    workers.beat(database, worker_id, 60)
    hold = Hold(database, job.job_id, worker_id)
    assert hold.take()
    assert hold.begin()
    return hold


def test_a_job_is_kept_and_shown(queue: JobQueue) -> None:
    job = queue.submit(Request("[train]\nlr = 1\n", parent="m/1", warm_start=True))
    assert queue.get(job.job_id) == job
    document = job.document()
    assert document["state"] == "queued"
    assert document["schema_version"] == 1
    assert document["progress"] == {"epoch": None, "max_epochs": None, "val_acc": None}
    assert "request_digest" not in document
    hold = taken(queue.database, job)
    assert hold.request == Request("[train]\nlr = 1\n", "m/1", True, False)


def test_no_more_than_max_queued_wait(queue: JobQueue) -> None:
    first, *_ = [queue.submit(ANY) for _ in range(3)]
    with pytest.raises(QueueFullError, match="max_queued = 3"):
        queue.submit(ANY)
    taken(queue.database, first)
    queue.submit(ANY)  # a running job waits no more


def test_submissions_at_once_keep_the_limit(
    queue: JobQueue, database_url: str | None, tmp_path: Path
) -> None:
    outcomes: list[str] = []

    def submit() -> None:
        # Connections of their own, as those of processes are.
        own = JobQueue(open_database(database_url, tmp_path), 3)
        try:
            own.submit(ANY)
            outcomes.append("accepted")
        except QueueFullError:
            outcomes.append("full")
        finally:
            own.database.close()

    threads = [threading.Thread(target=submit) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["accepted"] * 3 + ["full"] * 17


def test_one_key_is_one_job(queue: JobQueue) -> None:
    first = queue.submit(ANY, request_digest="r1", key_digest="k")
    assert queue.submit(ANY, request_digest="r1", key_digest="k") == first
    with pytest.raises(UsageError, match="Idempotency-Key"):
        queue.submit(ANY, request_digest="r2", key_digest="k")
    assert len(queue.list()) == 1
    for _ in range(2):
        queue.submit(ANY)
    # It is no new job, so a full queue takes it.
    assert queue.submit(ANY, request_digest="r1", key_digest="k") == first


def test_lists_come_in_pages(queue: JobQueue) -> None:
    assert queue.list() == []
    ids = [queue.submit(ANY).job_id for _ in range(3)]
    assert ids == sorted(ids)
    page = queue.list(limit=2)
    assert [job.job_id for job in page] == ids[:0:-1]
    assert [job.job_id for job in queue.list(before=page[-1].job_id)] == ids[:1]


def test_counts_make_nothing(tmp_path: Path) -> None:
    queue = JobQueue(open_database(None, tmp_path), 3)
    assert set(queue.counts().values()) == {0}
    assert not queue.unfinished()
    assert list(tmp_path.iterdir()) == []
    job = queue.submit(ANY)
    assert queue.counts()["queued"] == 1
    assert queue.unfinished()
    queue.cancel(job.job_id)
    assert queue.counts() == {
        **dict.fromkeys(("queued", "running", "succeeded", "failed"), 0),
        "cancelled": 1,
    }
    assert not queue.unfinished()
    queue.database.close()


def test_a_worker_is_wanted_until_no_run_can_be_open(queue: JobQueue) -> None:
    hold = taken(queue.database, queue.submit(ANY))
    assert hold.finish("failed", swept=False)
    assert queue.unfinished()
    with queue.database.transaction() as work:
        work.changed("update mindtrace_jobs set swept = 1")
    assert not queue.unfinished()


def test_cancel_while_it_waits(queue: JobQueue) -> None:
    job = queue.submit(ANY)
    assert queue.cancel(job.job_id).state == "cancelled"
    assert not Hold(queue.database, job.job_id, "w").take()
    with pytest.raises(ConflictError, match="cancelled"):
        queue.cancel(job.job_id)


def test_cancel_while_it_runs_is_a_wish(queue: JobQueue) -> None:
    hold = taken(queue.database, queue.submit(ANY))
    assert queue.cancel(hold.job_id).state == "running"
    assert hold.wanted() == CANCEL
    with queue.database.transaction() as work:
        assert not registering(work, hold.job_id, hold.fence)


def test_cancel_of_a_job_whose_worker_is_gone_needs_nobody(queue: JobQueue) -> None:
    hold = taken(queue.database, queue.submit(ANY))
    workers.leave(queue.database, "w")
    assert queue.cancel(hold.job_id).state == "cancelled"
    assert not hold.finish("succeeded", swept=True, version=1)  # should it come back
    assert queue.get(hold.job_id).version is None


def test_what_registers_cannot_be_cancelled(queue: JobQueue) -> None:
    hold = taken(queue.database, queue.submit(ANY))
    with queue.database.transaction() as work:
        assert registering(work, hold.job_id, hold.fence)
    with pytest.raises(ConflictError, match="too late"):
        queue.cancel(hold.job_id)


@pytest.mark.parametrize(
    "name", ["", "x", "..", "../../etc", "20250131T235959123456-0a1b2c3", "a" * 1000, "a\0b", "'"]
)
def test_strange_ids_are_not_found(queue: JobQueue, name: str) -> None:
    queue.submit(ANY)
    for ask in (queue.get, queue.cancel, queue.events, queue.log):
        with pytest.raises(NotFoundError):
            ask(name)
    assert not is_job_id(name)


def test_ids_are_ids() -> None:
    assert is_job_id(new_job_id())
    assert new_job_id() != new_job_id()


def test_a_file_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    queue = JobQueue(open_database(None, tmp_path / "file"), 1)
    with pytest.raises(StoreError, match="jobs database"):
        queue.submit(ANY)


def test_a_database_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").write_text("not a database" * 100)
    with pytest.raises(StoreError, match=r"jobs\.db"):
        JobQueue(open_database(None, tmp_path), 1).list()


@pytest.mark.postgres
def test_a_server_that_is_away_and_comes_back(postgres_database: str, tmp_path: Path) -> None:
    from tests.registry.servers import execute, free_port

    host, _, name = postgres_database.rpartition("/")
    away = JobQueue(open_database(f"postgresql://u:secret@127.0.0.1:{free_port()}/x", tmp_path), 1)
    with pytest.raises(StoreError) as caught:
        away.submit(ANY)
    assert "secret" not in str(caught.value)
    queue = JobQueue(open_database(postgres_database, tmp_path), 1)
    job = queue.submit(ANY)
    execute(
        f"{host}/postgres",
        f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'",
    )
    assert queue.get(job.job_id) == job  # by another connection
    queue.database.close()
