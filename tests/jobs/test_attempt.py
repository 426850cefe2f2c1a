"""What becomes of a job, with small programs in the place of a training."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.jobs.fake import FakeWorker, LostError, taken

from mindtrace.errors import StoreError
from mindtrace.jobs import attempt
from mindtrace.jobs.attempt import Outcome, Workplace
from mindtrace.jobs.job import Job, Request
from mindtrace.jobs.process import checkpoint_lock
from mindtrace.jobs.queue import JobQueue
from mindtrace.jobs.reconcile import Versions

EPOCH = '{"event": "epoch", "epoch": 1, "max_epochs": 3, "metrics": {"val_acc": 0.5}}'
GOOD = f"""
import sys
print('{{"event": "started", "max_epochs": 3}}', file=sys.stderr)
print('{EPOCH}', file=sys.stderr)
print('{{"model_name": "m", "version": 7}}')
"""
SLOW = f"""
import sys, time
print('{EPOCH}', file=sys.stderr, flush=True)
time.sleep(60)
"""
BAD = """
import sys
print('{"error": {"type": "DownloadError", "message": "no network"}}', file=sys.stderr)
sys.exit(1)
"""
CRASH = "import os; os.abort()"
AWAY = """
import sys
print('{"error": {"type": "StoreError", "message": "away"}}', file=sys.stderr)
sys.exit(1)
"""


@pytest.fixture
def database_url() -> None:
    """SQLite is enough here: what differs is tested below."""


class Store:
    """What reconciling runs would find.

    Attributes:
        asked: the state of each job that it was asked about, in turn.
        answers: what it says, in turn; then, that there is no version.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: list[Versions | None] = []

    def reconcile(self, _environ: Any, _folder: Any, ended: dict[str, str]) -> Versions | None:
        self.asked += ended.values()
        return self.answers.pop(0) if self.answers else {}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    found = Store()
    monkeypatch.setattr(attempt, "reconcile_runs", found.reconcile)
    return found


@pytest.fixture
def work(
    queue: JobQueue, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> Workplace:
    """A workplace whose jobs' configurations are programs."""
    monkeypatch.setattr(attempt, "train_command", as_program)
    return Workplace(
        queue=queue,
        root=tmp_path,
        checkpoints=tmp_path / "checkpoints",
        environ={"PATH": os.environ["PATH"]},
        stopping=threading.Event(),
    )


def as_program(config: Path, job_id: str, *_: Any, resume: bool) -> list[str]:
    return [sys.executable, str(config), job_id, "resume" if resume else "anew"]


def claimed(work: Workplace, queue: JobQueue, program: str) -> FakeWorker:
    return FakeWorker(queue, queue.submit(Request(program)).job_id, work=work)


class Training(threading.Thread):
    """An attempt in a thread of its own."""

    def __init__(self, worker: FakeWorker) -> None:
        super().__init__(daemon=True)
        self.outcome: Outcome | None = {}
        self.lost = False
        self._worker = worker
        self.start()

    def run(self) -> None:
        try:
            self.outcome = self._worker.attempt.train()
        except LostError:
            self.outcome, self.lost = None, True

    def ended(self) -> Outcome | None:
        self.join(60)
        assert not self.is_alive()
        return self.outcome


def until(queue: JobQueue, job_id: str, wanted: Callable[[Job], bool]) -> Job:
    deadline = time.monotonic() + 60
    while not wanted(job := queue.get(job_id)):
        assert time.monotonic() < deadline, job
        time.sleep(0.01)
    return job


def test_a_training_that_succeeds(work: Workplace, queue: JobQueue, store: Store) -> None:
    worker = claimed(work, queue, GOOD)
    outcome = worker.attempt.train()
    assert outcome == {
        "state": "succeeded",
        "open_runs": False,
        "model_name": "m",
        "version": 7,
        "reused": False,
    }
    job = queue.get(worker.job_id)
    assert (job.attempts, job.epoch, job.max_epochs, job.val_acc) == (1, 1, 3, 0.5)
    assert "epoch 1/3  val_acc 0.5000" in queue.log(worker.job_id).decode()
    assert store.asked == []  # it was the first, and said itself how it ended


@pytest.mark.parametrize(
    ("program", "error"),
    [
        (BAD, {"type": "DownloadError", "message": "no network"}),
        ("", {"type": "TrainingError", "message": "the training ended with status 0, the log"}),
        ("raise SystemExit(3)", {"type": "TrainingError", "message": "status 3"}),
    ],
)
def test_a_training_that_fails_says_why(
    work: Workplace, queue: JobQueue, store: Store, program: str, error: dict[str, str]
) -> None:
    outcome = claimed(work, queue, program).attempt.train()
    assert store.asked == ["failed"]  # it may have left a run open
    assert outcome is not None
    assert (outcome["state"], outcome["error"]["type"]) == ("failed", error["type"])
    assert error["message"] in outcome["error"]["message"]


def test_one_that_is_killed_is_tried_three_times(work: Workplace, queue: JobQueue) -> None:
    worker = claimed(work, queue, CRASH)
    outcome = worker.attempt.train()
    assert outcome is not None
    assert outcome["state"] == "failed"
    assert "3 attempts were lost" in outcome["error"]["message"]
    assert "SIGABRT" in outcome["error"]["message"]
    assert queue.get(worker.job_id).attempts == 3


def test_one_whose_registry_was_away_is_tried_again(
    work: Workplace, queue: JobQueue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "_PAUSE", 0.0)
    away = """
import pathlib, sys
if not pathlib.Path("tried").exists():
    pathlib.Path("tried").touch()
    print('{"error": {"type": "StoreError", "message": "away"}}', file=sys.stderr)
    sys.exit(1)
"""
    worker = claimed(work, queue, away + GOOD)
    outcome = worker.attempt.train()
    assert outcome is not None
    assert (outcome["state"], queue.get(worker.job_id).attempts) == ("succeeded", 2)
    assert store.asked == ["succeeded"]  # the first attempt may have left a run open


def test_a_registry_that_stays_away_loses_nothing_for_hours(
    work: Workplace, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "_PAUSE", 0.01)
    monkeypatch.setattr(attempt, "_LONGEST_PAUSE", 0.01)
    worker = claimed(work, queue, AWAY)
    training = Training(worker)
    until(queue, worker.job_id, lambda job: job.attempts > attempt.ATTEMPTS + 1)
    queue.cancel(worker.job_id)
    assert training.ended() == {"state": "cancelled", "open_runs": False}

    monkeypatch.setattr(attempt, "_PATIENCE", 0.03)
    outcome = claimed(work, queue, AWAY).attempt.train()
    assert outcome is not None
    assert (outcome["state"], outcome["error"]["type"]) == ("failed", "StoreError")


def test_who_waits_for_the_registry_hears_others(work: Workplace, queue: JobQueue) -> None:
    """By the pause that users have."""
    cancelled, parked = claimed(work, queue, AWAY), claimed(work, queue, AWAY)
    first, second = Training(cancelled), Training(parked)
    for worker in (cancelled, parked):
        until(queue, worker.job_id, lambda job: job.attempts == 1)
    queue.cancel(cancelled.job_id)
    assert first.ended() == {"state": "cancelled", "open_runs": False}
    work.stopping.set()
    assert second.ended() is None
    assert not queue.get(parked.job_id).begun


def test_a_job_that_was_lost_three_times_is_not_tried_again(
    work: Workplace, queue: JobQueue
) -> None:
    job = queue.submit(Request(GOOD))
    for executor_id in "abc":
        taken(queue, job, executor_id)
    outcome = FakeWorker(queue, job.job_id, work=work).attempt.train()
    assert outcome is not None
    assert outcome["state"] == "failed"
    assert queue.get(job.job_id).attempts == 3


def test_one_that_died_right_after_it_registered_has_succeeded(
    work: Workplace, queue: JobQueue, store: Store
) -> None:
    worker = claimed(work, queue, CRASH)
    store.answers = [{worker.job_id: {"model_name": "m", "version": 4}}]
    outcome = worker.attempt.train()
    assert outcome is not None
    assert outcome == {"state": "succeeded", "open_runs": False, "model_name": "m", "version": 4}


def test_the_store_is_waited_for_where_it_alone_can_tell(
    work: Workplace, queue: JobQueue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "_PAUSE", 0.0)
    worker = claimed(work, queue, BAD)
    assert queue.begin_registering(worker.job_id, worker.fence)
    store.answers = [None, None, {worker.job_id: {"model_name": "m", "version": 4}}]
    outcome = worker.attempt.train()
    assert outcome == {"state": "succeeded", "open_runs": False, "model_name": "m", "version": 4}

    other = claimed(work, queue, BAD)
    store.answers = [None]  # and no attempt began to register: it has failed for sure
    outcome = other.attempt.train()
    assert outcome is not None
    assert (outcome["state"], outcome["open_runs"]) == ("failed", True)


def test_cancel(work: Workplace, queue: JobQueue, store: Store) -> None:
    worker = claimed(work, queue, SLOW)
    training = Training(worker)
    until(queue, worker.job_id, lambda job: job.epoch == 1)
    queue.cancel(worker.job_id)
    assert training.ended() == {"state": "cancelled", "open_runs": False}
    assert store.asked == ["cancelled"]


def test_a_wish_to_cancel_outlives_the_worker(work: Workplace, queue: JobQueue) -> None:
    worker = claimed(work, queue, SLOW)
    queue.cancel(worker.job_id)
    heir = FakeWorker(queue, worker.job_id, work=work)
    assert heir.attempt.train() == {"state": "cancelled", "open_runs": False}
    assert queue.get(worker.job_id).attempts == 0


def test_a_worker_that_ends_puts_its_job_back(work: Workplace, queue: JobQueue) -> None:
    worker = claimed(work, queue, SLOW)
    training = Training(worker)
    until(queue, worker.job_id, lambda job: job.epoch == 1)
    work.stopping.set()
    assert training.ended() is None
    job = queue.get(worker.job_id)
    assert (job.begun, job.attempts) == (False, 1)
    assert [event.data["state"] for event in queue.events(worker.job_id) if event.name == "state"][
        -1
    ] == "queued"


def test_who_lost_the_job_ends_its_training(work: Workplace, queue: JobQueue) -> None:
    worker = claimed(work, queue, SLOW)
    training = Training(worker)
    until(queue, worker.job_id, lambda job: job.epoch == 1)
    taken(queue, worker.job_id, "heir")
    assert training.ended() is None
    assert queue.get(worker.job_id).state == "running"


def test_the_next_attempt_ends_the_one_before(work: Workplace, queue: JobQueue) -> None:
    """A worker that is stopped, not dead: its training goes on until the heir comes."""
    program = f"""
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
mark = pathlib.Path("first")
if not mark.exists():
    mark.write_text(str(os.getpid()))
    print('{EPOCH}', file=sys.stderr, flush=True)
    time.sleep(60)
"""
    worker = claimed(work, queue, program + GOOD)
    worker.attempt.work = replace(work, grace=60)
    training = Training(worker)
    until(queue, worker.job_id, lambda job: job.epoch == 1)
    first = int((work.root / "jobs" / worker.job_id / "first").read_text())
    heir = FakeWorker(queue, worker.job_id, "heir", work)
    outcome = heir.attempt.train()
    assert outcome is not None
    assert outcome["state"] == "succeeded"
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert training.ended() is None


def test_a_checkpoint_is_gone_on_from_and_one_that_does_not_fit_is_not(
    work: Workplace, queue: JobQueue
) -> None:
    refuses = """
import json, sys
if sys.argv[2] == "resume":
    print('{"error": {"type": "UsageError", "message": "other threads"}}', file=sys.stderr)
    sys.exit(2)
print(json.dumps({"model_name": sys.argv[2], "version": 1}))
"""
    takes = "import json, sys; print(json.dumps({'model_name': sys.argv[2], 'version': 1}))"
    for program, model_name in ((takes, "resume"), (refuses, "anew")):
        worker = claimed(work, queue, program)
        run = work.checkpoints / "jobs" / worker.job_id / "run"
        run.mkdir(parents=True)
        (run / "last.ckpt").touch()
        outcome = worker.attempt.train()
        assert outcome is not None
        assert outcome["model_name"] == model_name


def test_a_command_that_cannot_start(
    work: Workplace, queue: JobQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = str(tmp_path / "nothing")
    monkeypatch.setattr(attempt, "train_command", lambda *_, **__: [nothing])
    outcome = claimed(work, queue, "").attempt.train()
    assert outcome is not None
    assert outcome["state"] == "failed"
    assert outcome["error"]["type"] == "FileNotFoundError"
    assert "nothing" in outcome["error"]["message"]


def test_a_database_that_is_away_for_a_while_loses_nothing(
    work: Workplace, queue: JobQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DBOS waits for it, while the training goes on and its lines wait."""
    done, back = tmp_path / "done", threading.Event()
    program = f"""
import pathlib, sys
print('{EPOCH}', file=sys.stderr, flush=True)
print('{EPOCH.replace('"epoch": 1', '"epoch": 2')}', file=sys.stderr, flush=True)
print('{{"model_name": "m", "version": 7}}')
pathlib.Path({str(done)!r}).touch()
"""
    worker = claimed(work, queue, program)
    write = worker.set_event

    def away(key: str, value: Any) -> None:
        if value["epoch"] is not None:
            assert back.wait(60)
        write(key, value)

    monkeypatch.setattr(worker, "set_event", away)
    training = Training(worker)
    deadline = time.monotonic() + 60
    while not done.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert training.is_alive()
    back.set()
    outcome = training.ended()
    assert outcome is not None
    assert outcome["state"] == "succeeded"
    assert queue.get(worker.job_id).epoch == 2
    names = [event.name for event in queue.events(worker.job_id)]
    assert names.count("epoch") == 2


def test_nobody_who_can_be_asked_stops_nothing(
    work: Workplace, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = claimed(work, queue, f"import time; time.sleep(1)\n{GOOD}")
    monkeypatch.setattr(attempt, "_POLL", 0.05)
    ask, answers = queue.wanted, [StoreError("away")] * 5

    def wanted(*place: Any) -> str:
        if answers and queue.get(worker.job_id).begun:
            raise answers.pop()
        return ask(*place)

    monkeypatch.setattr(queue, "wanted", wanted)
    outcome = worker.attempt.train()
    assert outcome is not None
    assert (outcome["state"], answers) == ("succeeded", [])


def test_a_folder_that_another_machine_holds_is_left_alone(tmp_path: Path) -> None:
    with checkpoint_lock(tmp_path, "job", 1) as (first, lock):
        # A process of another machine: here the number belongs to another one.
        lock.write(b"1")
        with checkpoint_lock(tmp_path, "job", 2) as (second, _):
            assert second == first / "attempt-2"
    with checkpoint_lock(tmp_path, "job", 3) as (third, _):
        assert third == tmp_path / "jobs" / "job"
