"""What the holder of a job may do, and that whoever lost it may do nothing."""

from __future__ import annotations

import json

import pytest
from tests.jobs.test_queue import ANY, taken

from mindtrace.jobs import events, workers
from mindtrace.jobs.hold import GO_ON, LOST, Hold, registering
from mindtrace.jobs.queue import JobQueue

EPOCH = {"epoch": 1, "max_epochs": 3, "metrics": {"val_acc": 0.5}, "event": "epoch"}


def test_the_course_of_a_job_is_told_in_order(queue: JobQueue) -> None:
    job = queue.submit(ANY)
    hold = taken(queue.database, job)
    hold.tell([{"event": "started", "max_epochs": 3}])
    hold.tell([EPOCH])
    assert hold.wanted() == GO_ON
    assert hold.finish("succeeded", swept=True, model_name="m", version=7)

    done = queue.get(job.job_id)
    assert (done.state, done.model_name, done.version, done.attempts) == ("succeeded", "m", 7, 1)
    assert (done.epoch, done.max_epochs, done.val_acc) == (1, 3, 0.5)
    assert done.submitted_at <= (done.started_at or "") <= (done.ended_at or "")
    found = queue.events(job.job_id)
    assert [event.id for event in found] == [1, 2, 3, 4, 5]
    assert [event.name for event in found] == ["state", "state", "state", "epoch", "end"]
    assert json.loads(found[-1].data) == done.document()
    assert "event" not in json.loads(found[3].data)
    assert [event.id for event in queue.events(job.job_id, after=3)] == [4, 5]


def test_who_lost_a_job_changes_nothing(queue: JobQueue) -> None:
    job = queue.submit(ANY)
    zombie = taken(queue.database, job, "a")
    heir = taken(queue.database, job, "b")
    before = queue.get(job.job_id), queue.events(job.job_id)
    assert zombie.wanted() == LOST
    zombie.tell([{"event": "started", "max_epochs": 9}])
    zombie.tell([EPOCH])
    zombie.tell([], "late")
    zombie.release()
    assert not zombie.begin()
    assert zombie.promoting() is None
    assert not zombie.finish("failed", swept=True)
    with queue.database.transaction() as work:
        assert not registering(work, job.job_id, zombie.fence)
    assert (queue.get(job.job_id), queue.events(job.job_id)) == before
    assert queue.log(job.job_id) == b""
    assert heir.wanted() == GO_ON
    assert heir.finish("succeeded", swept=True, version=1)
    assert not heir.finish("failed", swept=True)  # there is one end


def test_an_attempt_that_was_left_counts_and_one_that_was_put_back_does_not(
    queue: JobQueue,
) -> None:
    job = queue.submit(ANY)
    first = taken(queue.database, job, "a")
    assert first.lost == 0
    second = taken(queue.database, job, "b")
    assert second.lost == 1
    second.release()
    assert queue.get(job.job_id).state == "queued"
    third = taken(queue.database, job, "c")
    assert third.lost == 1
    assert queue.get(job.job_id).attempts == 3


def test_who_died_before_an_attempt_began_lost_none(queue: JobQueue) -> None:
    job = queue.submit(ANY)
    for _ in range(5):
        hold = Hold(queue.database, job.job_id, "w")
        assert hold.take()
        assert hold.lost == 0
    taken(queue.database, job)
    for _ in range(5):
        assert hold.take()
        assert hold.lost == 1


def test_registering_lasts_until_the_end(queue: JobQueue) -> None:
    hold = taken(queue.database, queue.submit(ANY))
    with queue.database.transaction() as work:
        assert registering(work, hold.job_id, hold.fence)
        assert registering(work, hold.job_id, hold.fence)  # a second look
    assert hold.finish("succeeded", swept=True, version=1)
    with queue.database.transaction() as work:
        assert not registering(work, hold.job_id, hold.fence)


def test_promoting_is_remembered(queue: JobQueue) -> None:
    job = queue.submit(ANY)
    assert taken(queue.database, job, "a").promoting() is False
    assert taken(queue.database, job, "b").promoting() is True


def test_workers_live_for_a_lease(queue: JobQueue) -> None:
    one = workers.new_worker_id()
    assert one != workers.new_worker_id()
    workers.beat(queue.database, one, 60)
    workers.beat(queue.database, "silent", -1)
    assert workers.alive(queue.database) == {one}
    workers.beat(queue.database, one, 60)
    workers.leave(queue.database, one)
    assert workers.alive(queue.database) == set()


def test_a_log_is_read_from_any_place(queue: JobQueue) -> None:
    hold = taken(queue.database, queue.submit(ANY))
    parts = ["loading\n", "größer\n", "\n", "x" * 5000, "nul\0\n"]
    for part in parts:
        hold.tell([], part)
    whole = "".join(parts).replace("\0", "?").encode()
    assert queue.log(hold.job_id) == whole
    for offset in (0, 1, 9, 10, 11, len(whole) - 1, len(whole), len(whole) + 5):
        assert queue.log(hold.job_id, offset) == whole[offset:]


def test_a_log_has_an_end(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LOG_LIMIT", 100)
    hold = taken(queue.database, queue.submit(ANY))
    for _ in range(50):
        hold.tell([], "0123456789\n")
    text = queue.log(hold.job_id).decode()
    assert "ends here" in text
    assert len(text) < 200


def test_a_job_that_is_not_there_cannot_be_taken(queue: JobQueue) -> None:
    assert not Hold(queue.database, "nobody", "w").take()
