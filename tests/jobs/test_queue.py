"""The queue on disk: its limits, its records, and what other processes see."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mindtrace.errors import ConflictError, NotFoundError, QueueFullError, StoreError, UsageError
from mindtrace.jobs.job import Job, is_job_id, new_job_id
from mindtrace.jobs.queue import JobQueue


@pytest.fixture
def queue(tmp_path: Path) -> JobQueue:
    return JobQueue(tmp_path / "jobs", max_queued=3)


def test_a_job_is_kept_and_shown(queue: JobQueue) -> None:
    job = queue.submit("[train]\n")
    assert queue.get(job.job_id) == job
    document = job.document()
    assert document["state"] == "queued"
    assert document["schema_version"] == 1
    assert document["progress"] == {"epoch": None, "max_epochs": None, "val_acc": None}
    assert "key_digest" not in document
    assert (queue.folder_of(job.job_id) / "config.ini").read_text() == "[train]\n"


def test_no_more_than_max_queued_wait(queue: JobQueue) -> None:
    for _ in range(3):
        queue.submit("")
    with pytest.raises(QueueFullError, match="max_queued = 3"):
        queue.submit("")
    with queue.running_lock() as ours:
        assert ours
        assert queue.claim() is not None
        queue.submit("")  # a running job waits no more


def test_submissions_at_once_keep_the_limit(queue: JobQueue) -> None:
    outcomes: list[str] = []

    def submit() -> None:
        try:
            queue.submit("")
            outcomes.append("accepted")
        except QueueFullError:
            outcomes.append("full")

    threads = [threading.Thread(target=submit) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["accepted"] * 3 + ["full"] * 17


def test_one_key_is_one_job(queue: JobQueue) -> None:
    first = queue.submit("a", request_digest="r1", key_digest="k")
    assert queue.submit("a", request_digest="r1", key_digest="k") == first
    with pytest.raises(UsageError, match="Idempotency-Key"):
        queue.submit("b", request_digest="r2", key_digest="k")
    assert len(queue.list()) == 1


def test_jobs_are_claimed_in_their_order(queue: JobQueue) -> None:
    ids = [queue.submit("").job_id for _ in range(3)]
    assert ids == sorted(ids)
    claimed = [queue.claim() for _ in range(4)]
    # A second claim finds the first still running, and knows that its runner is gone.
    assert [job and job.job_id for job in claimed] == [*ids, None]
    assert [job.state for job in queue.list()] == ["failed", "failed", "failed"]


def test_lists_come_in_pages(queue: JobQueue) -> None:
    ids = [queue.submit("").job_id for _ in range(3)]
    page = queue.list(limit=2)
    assert [job.job_id for job in page] == ids[:0:-1]
    assert [job.job_id for job in queue.list(before=page[-1].job_id)] == ids[:1]


def test_cancel_while_it_waits(queue: JobQueue) -> None:
    job = queue.submit("")
    assert queue.cancel(job.job_id).state == "cancelled"
    assert queue.claim() is None
    with pytest.raises(ConflictError, match="cancelled"):
        queue.cancel(job.job_id)


def test_cancel_while_it_runs_is_a_wish(queue: JobQueue) -> None:
    queue.submit("")
    with queue.running_lock():
        job = queue.claim()
        assert job is not None
        assert queue.cancel(job.job_id).state == "running"
        assert queue.cancel_wanted(job.job_id)


def test_a_running_job_that_nobody_runs_has_failed(queue: JobQueue) -> None:
    queue.submit("")
    with queue.running_lock():
        job = queue.claim()
        assert job is not None
        assert queue.get(job.job_id).state == "running"
    lost = queue.get(job.job_id)
    assert lost.state == "failed"
    assert lost.error is not None
    assert "gone" in lost.error["message"]
    assert lost.ended_at is not None
    assert not queue.unfinished()


def test_only_one_runs_jobs(queue: JobQueue) -> None:
    with queue.running_lock() as first, queue.running_lock() as second:
        assert (first, second) == (True, False)
    with queue.running_lock() as again:
        assert again


@pytest.mark.parametrize(
    "name", ["", "x", "..", "../../etc", "20250131T235959123456-0a1b2c3", "a" * 1000, "a\0b"]
)
def test_strange_ids_are_not_found(queue: JobQueue, name: str) -> None:
    queue.submit("")
    with pytest.raises(NotFoundError):
        queue.get(name)
    assert not is_job_id(name)


def test_ids_are_ids() -> None:
    assert is_job_id(new_job_id())
    assert new_job_id() != new_job_id()


def test_a_record_of_a_later_mindtrace_is_read() -> None:
    job = Job("i", "queued", "t")
    text = job.to_json().replace("{", '{"priority": 3, ', 1)
    assert Job.from_json(text) == job


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        JobQueue(tmp_path / "file" / "jobs", 1).submit("")
