"""Submit, ask and cancel; limits, keys, pages; what a worker may write, and who lost a job not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.jobs.fake import FakeWorker, LostError, taken

from mindtrace.errors import (
    ConflictError,
    InterruptedByUser,
    NotFoundError,
    QueueFullError,
    StoreError,
    UsageError,
)
from mindtrace.jobs import attempt
from mindtrace.jobs.job import Request, is_job_id, new_job_id
from mindtrace.jobs.queue import CANCELLING, LOST, REGISTERING, JobQueue, RegistrationGuard

ANY = Request("[train]\n")
EPOCH = {"epoch": 1, "max_epochs": 3, "metrics": {"val_acc": 0.5}, "event": "epoch"}


def guard(queue: JobQueue, worker: FakeWorker) -> RegistrationGuard:
    return RegistrationGuard(worker.job_id, worker.fence, False, queue)


def test_a_job_is_kept_and_shown(queue: JobQueue) -> None:
    request = Request("[train]\nlr = 1\n", parent="m/1", warm_start=True)
    job = queue.submit(request)
    assert queue.get(job.job_id) == job
    document = job.document()
    assert document["state"] == "queued"
    assert document["schema_version"] == 1
    assert document["progress"] == {"epoch": None, "max_epochs": None, "val_acc": None}
    assert not {"request_digest", "begun", "lost"} & set(document)
    assert taken(queue, job).request() == request


def test_no_more_than_max_queued_wait(queue: JobQueue) -> None:
    first, *_ = [queue.submit(ANY) for _ in range(3)]
    with pytest.raises(QueueFullError, match="max_queued = 3"):
        queue.submit(ANY, 3)
    taken(queue, first)
    queue.submit(ANY, 3)  # a running job waits no more


@pytest.mark.proof
def test_submissions_at_once_keep_the_limit(database_url: str | None, tmp_path: Path) -> None:
    """Into a database that none of them finds there."""
    outcomes: list[str] = []

    def submit() -> None:
        # Connections of their own, as those of processes are.
        own = JobQueue(database_url, tmp_path)
        try:
            own.submit(ANY, 3)
            outcomes.append("accepted")
        except QueueFullError:
            outcomes.append("full")
        finally:
            own.close()

    with ThreadPoolExecutor(20) as pool:
        for _ in range(20):
            pool.submit(submit)
    assert sorted(outcomes) == ["accepted"] * 3 + ["full"] * 17


def test_one_key_is_one_job(queue: JobQueue) -> None:
    assert queue.submitted("r1", "k") is None
    first = queue.submit(ANY, request_digest="r1", key_digest="k")
    assert queue.submit(ANY, request_digest="r1", key_digest="k") == first
    assert queue.submitted("r1", "k") == first
    with pytest.raises(UsageError, match="Idempotency-Key"):
        queue.submit(ANY, request_digest="r2", key_digest="k")
    assert len(queue.list()) == 1
    for _ in range(2):
        queue.submit(ANY)
    # It is no new job, so a full queue takes it.
    assert queue.submit(ANY, 3, request_digest="r1", key_digest="k") == first
    queue.cancel(first.job_id)
    assert queue.submit(ANY, request_digest="r1", key_digest="k").state == "cancelled"


def test_lists_come_in_pages(queue: JobQueue) -> None:
    assert queue.list() == []
    ids = [queue.submit(ANY).job_id for _ in range(3)]
    assert ids == sorted(ids)
    page = queue.list(limit=2)
    assert [job.job_id for job in page] == ids[:0:-1]
    assert [job.job_id for job in queue.list(before=page[-1].job_id)] == ids[:1]


def test_counts_make_nothing_and_a_waiting_job_is_cancelled(tmp_path: Path) -> None:
    queue = JobQueue(None, tmp_path)
    assert set(queue.counts().values()) == {0}
    assert not queue.unfinished()
    assert list(tmp_path.iterdir()) == []
    job = queue.submit(ANY)
    assert queue.counts()["queued"] == 1
    assert queue.unfinished()
    assert queue.cancel(job.job_id).state == "cancelled"
    assert [event.name for event in queue.events(job.job_id)] == ["state", "end"]
    with pytest.raises(ConflictError, match="cancelled"):
        queue.cancel(job.job_id)
    zero = dict.fromkeys(("queued", "running", "succeeded", "failed"), 0)
    assert queue.counts() == {**zero, "cancelled": 1}
    assert not queue.unfinished()
    queue.close()


def test_the_course_of_a_job_is_told_in_order(queue: JobQueue) -> None:
    job = queue.submit(ANY)
    worker = taken(queue, job)
    worker.tell({"event": "started", "max_epochs": 3})
    worker.tell(EPOCH)
    assert worker.decision() is None
    worker.finish("succeeded", model_name="m", version=7)
    done = queue.get(job.job_id)
    assert (done.state, done.model_name, done.version, done.attempts) == ("succeeded", "m", 7, 1)
    assert (done.epoch, done.max_epochs, done.val_acc) == (1, 3, 0.5)
    assert done.submitted_at <= (done.started_at or "") <= (done.ended_at or "")
    found = queue.events(job.job_id)
    assert [event.id for event in found] == [1, 2, 3, 4, 5]
    assert [event.name for event in found] == ["state", "state", "state", "epoch", "end"]
    assert [event.data["state"] for event in found[:3]] == ["queued", "running", "running"]
    assert found[-1].data == done.document()
    assert "event" not in found[3].data
    for after in range(7):
        assert [event.id for event in queue.events(job.job_id, after)] == [1, 2, 3, 4, 5][after:]


def test_who_lost_a_job_changes_nothing(queue: JobQueue) -> None:
    job = queue.submit(ANY)
    zombie, heir = taken(queue, job, "a"), taken(queue, job, "b")
    before = queue.get(job.job_id), queue.events(job.job_id)
    assert zombie.decision() == LOST
    for change in (zombie.begin, zombie.release, lambda: zombie.tell(EPOCH, text="late")):
        with pytest.raises(LostError):
            change()
    with pytest.raises(InterruptedByUser):
        guard(queue, zombie).require()
    assert (queue.get(job.job_id), queue.events(job.job_id)) == before
    assert queue.log(job.job_id) == b""
    assert heir.decision() is None
    heir.finish("succeeded", version=1)
    for late in (zombie, heir):  # there is one end
        with pytest.raises(LostError):
            late.finish("failed")


def test_an_attempt_that_was_left_counts_and_one_that_was_put_back_does_not(
    queue: JobQueue,
) -> None:
    job = queue.submit(ANY)
    taken(queue, job, "a")
    second = taken(queue, job, "b")
    assert queue.get(job.job_id).lost == 1
    second.release()
    assert queue.get(job.job_id).state == "queued"
    for _ in range(5):
        FakeWorker(queue, job.job_id)  # these die before an attempt begins
    taken(queue, job, "c")
    found = queue.get(job.job_id)
    assert (found.lost, found.attempts) == (1, 3)


def test_cancel_while_it_runs_is_for_its_worker(queue: JobQueue) -> None:
    worker = taken(queue, queue.submit(ANY))
    for _ in range(2):
        job = queue.cancel(worker.job_id)
        assert (job.state, job.cancelling) == ("running", True)
    assert worker.decision() == CANCELLING
    with pytest.raises(InterruptedByUser):
        guard(queue, worker).require()
    heir = FakeWorker(queue, worker.job_id, "heir")  # the wish outlives the worker
    assert heir.decision() == CANCELLING


def test_cancel_of_a_job_whose_worker_is_gone_needs_nobody(queue: JobQueue) -> None:
    worker = taken(queue, queue.submit(ANY))
    queue.leave("w")
    assert queue.cancel(worker.job_id).state == "cancelled"
    with pytest.raises(LostError):  # should it come back
        worker.finish("succeeded", version=1)
    assert queue.get(worker.job_id).version is None
    # A worker is wanted until no run can be open.
    assert queue.unfinished()
    assert [job.job_id for job in queue.with_open_runs(9)] == [worker.job_id]
    queue.note_open_runs(worker.job_id, False)
    assert not queue.unfinished()


def test_what_registers_cannot_be_cancelled_whoever_goes_on_with_it(queue: JobQueue) -> None:
    worker = taken(queue, queue.submit(ANY))
    assert worker.decision() is None
    for _ in range(2):  # the second is the look right before the version is made
        guard(queue, worker).require()
    assert worker.decision() == REGISTERING
    heir = taken(queue, worker.job_id, "heir")
    with pytest.raises(InterruptedByUser):
        guard(queue, worker).require()
    guard(queue, heir).require()
    queue.leave("heir")
    with pytest.raises(ConflictError, match="too late"):
        queue.cancel(worker.job_id)
    heir.finish("succeeded", version=1)
    with pytest.raises(InterruptedByUser):
        guard(queue, heir).require()


@pytest.mark.proof
def test_cancel_and_registering_at_once_have_one_winner(queue: JobQueue) -> None:
    for number in range(10):
        worker = taken(queue, queue.submit(ANY), f"w{number}")
        with ThreadPoolExecutor(2) as pool:
            cancel = pool.submit(queue.cancel, worker.job_id)
            register = pool.submit(guard(queue, worker).require)
        errors = cancel.exception(), register.exception()
        assert errors.count(None) == 1
        assert isinstance(errors[0] or errors[1], ConflictError | InterruptedByUser)
        worker.finish("cancelled")


def test_workers_live_for_a_lease(queue: JobQueue) -> None:
    worker = taken(queue, queue.submit(ANY), "one")
    taken(queue, queue.submit(ANY), "silent")
    assert queue.dead() == []
    for left in (-1, 24 * 3600):  # it fell silent, or its clock was set back since
        queue.beat("silent", left)
        assert queue.dead() == ["silent"]
    queue.beat("silent", 60)
    queue.leave("one")
    assert queue.dead() == ["one"]
    worker.finish("succeeded")
    assert queue.dead() == []


def test_a_log_is_read_from_any_place(queue: JobQueue) -> None:
    worker = taken(queue, queue.submit(ANY))
    parts = ["loading\n", "größer\n", "\n", "x" * 5000, "nul\0\n"]
    for part in parts:
        worker.tell(text=part)
    whole = "".join(parts).replace("\0", "?").encode()
    assert queue.log(worker.job_id) == whole
    for offset in (0, 1, 9, 10, 11, len(whole) - 1, len(whole), len(whole) + 5):
        assert queue.log(worker.job_id, offset) == whole[offset:]


def test_a_log_has_an_end(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "LOG_LIMIT", 100)
    worker = taken(queue, queue.submit(ANY))
    for _ in range(50):
        worker.tell(text="0123456789\n")
    assert 100 < len(queue.log(worker.job_id)) < 200


def test_strange_ids_are_not_found(queue: JobQueue) -> None:
    queue.submit(ANY)
    names = ["", "x", "..", "../../etc", "20250131T235959123456-0a1b2c3", "a" * 1000, "a\0b", "'"]
    for name in names:
        assert not is_job_id(name)
        for ask in (queue.get, queue.cancel, queue.events, queue.log):
            with pytest.raises(NotFoundError):
                ask(name)
    assert is_job_id(new_job_id())


def test_a_file_that_cannot_be_made_or_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="jobs database"):
        JobQueue(None, tmp_path / "file").submit(ANY)
    (tmp_path / "jobs.db").write_text("not a database" * 100)
    with pytest.raises(StoreError, match=r"jobs\.db"):
        JobQueue(None, tmp_path).list()


@pytest.mark.postgres
def test_a_server_that_is_away_and_comes_back(postgres_database: str, tmp_path: Path) -> None:
    from tests.registry.servers import execute, free_port

    host, _, name = postgres_database.rpartition("/")
    away = JobQueue(f"postgresql://u:secret@127.0.0.1:{free_port()}/x", tmp_path)
    with pytest.raises(StoreError) as caught:
        away.submit(ANY)
    assert "secret" not in str(caught.value)
    queue = JobQueue(postgres_database, tmp_path)
    job = queue.submit(ANY)
    execute(
        f"{host}/postgres",
        f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'",
    )
    assert queue.get(job.job_id) == job  # by another connection
    queue.close()
