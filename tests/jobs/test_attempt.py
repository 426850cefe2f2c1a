"""What becomes of a job, with small programs in the place of a training."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.jobs.fake import FakeWorker, LostError, taken
from tests.waiting import until

from mindtrace.errors import StoreError
from mindtrace.jobs import attempt
from mindtrace.jobs.attempt import Outcome, Workplace
from mindtrace.jobs.job import Request
from mindtrace.jobs.process import checkpoint_lock
from mindtrace.jobs.reconcile import Versions


def says(text: str) -> str:
    return f"import sys; print({text!r}, file=sys.stderr, flush=True)\n"


def fails(kind: str, message: str) -> str:
    return says(f'{{"error": {{"type": "{kind}", "message": "{message}"}}}}') + "sys.exit(1)\n"


EPOCH = '{"event": "epoch", "epoch": 1, "max_epochs": 3, "metrics": {"val_acc": 0.5}}'
GOOD = says(EPOCH) + """print('{"model_name": "m", "version": 7}')\n"""
SLEEPS = says(EPOCH) + "import time; time.sleep(60)\n"
BAD = fails("DownloadError", "no network")
AWAY = fails("StoreError", "away")
CRASH = "import os; os.abort()"
CANCELLED = {"state": "cancelled", "open_runs": False}
MADE = {"state": "succeeded", "open_runs": False, "model_name": "m", "version": 4}


class Store:
    """What reconciling runs finds: the states it was given, and its answers (then, nothing)."""

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


Claim = Callable[..., FakeWorker]


@pytest.fixture
def claim(work: Workplace, store: Store, monkeypatch: pytest.MonkeyPatch) -> Claim:
    """`claim(program)`: a worker's claim on a new job, whose training is a program."""

    def command(config: Path, job_id: str, *_: Any, resume: bool) -> list[str]:
        return [sys.executable, str(config), job_id, "resume" if resume else "anew"]

    monkeypatch.setattr(attempt, "train_command", command)

    def claimed(program: str, job_id: str | None = None) -> FakeWorker:
        job_id = job_id or work.queue.submit(Request(program)).job_id
        return FakeWorker(work.queue, job_id, work=work)

    return claimed


def trained(worker: FakeWorker) -> Outcome:
    outcome = worker.attempt.train()
    assert outcome is not None
    return outcome


Training = Future[Outcome | None]
POOL = ThreadPoolExecutor()


def started(worker: FakeWorker) -> Training:
    return POOL.submit(worker.attempt.train)


def ended(training: Training) -> Outcome | None:
    try:
        return training.result(60)
    except LostError:
        return None


def sleeping(claim: Claim) -> tuple[FakeWorker, Training]:
    """A training in the middle of its work."""
    worker = claim(SLEEPS)
    training = started(worker)
    until(lambda: worker.job.epoch == 1)
    return worker, training


def test_a_training_that_succeeds(claim: Claim, store: Store) -> None:
    worker = claim(says('{"event": "started", "max_epochs": 3}') + GOOD)
    assert trained(worker) == {**MADE, "version": 7, "reused": False, "promotion": None}
    job = worker.job
    assert (job.attempts, job.epoch, job.max_epochs, job.val_acc) == (1, 1, 3, 0.5)
    assert "epoch 1/3  val_acc 0.5000" in worker.queue.log(worker.job_id).decode()
    assert store.asked == []  # it was the first, and said itself how it ended


@pytest.mark.parametrize(
    ("program", "kind", "message", "attempts"),
    [
        (BAD, "DownloadError", "no network", 1),
        ("", "TrainingError", "the training ended with status 0, the log", 1),
        ("raise SystemExit(3)", "TrainingError", "status 3", 1),
        (CRASH, "TrainingError", "3 attempts were lost: the training was killed by SIGABRT", 3),
    ],
    ids=["reported", "nothing", "status", "killed"],
)
def test_a_training_that_fails_says_why(
    claim: Claim, store: Store, program: str, kind: str, message: str, attempts: int
) -> None:
    worker = claim(program)
    outcome = trained(worker)
    assert store.asked == ["failed"]  # it may have left a run open
    assert (outcome["state"], outcome["error"]["type"]) == ("failed", kind)
    assert message in outcome["error"]["message"]
    assert worker.job.attempts == attempts


def test_one_whose_registry_was_away_is_tried_again(
    claim: Claim, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "_PAUSE", 0.0)
    once = f"""
import pathlib
tried = pathlib.Path("tried")
if not tried.exists():
    tried.touch()
    exec({AWAY!r})
"""
    worker = claim(once + GOOD)
    assert trained(worker)["state"] == "succeeded"
    assert worker.job.attempts == 2
    assert store.asked == ["succeeded"]  # the first attempt may have left a run open


def test_a_registry_that_stays_away_loses_nothing_for_hours(
    claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "_PAUSE", 0.01)
    monkeypatch.setattr(attempt, "_LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(attempt, "_PATIENCE", 0.04)
    worker = claim(AWAY)
    outcome = trained(worker)
    assert (outcome["state"], outcome["error"]["type"]) == ("failed", "StoreError")
    assert worker.job.attempts > attempt.ATTEMPTS


def test_who_waits_for_the_registry_hears_others(claim: Claim) -> None:
    """By the pause that users have."""
    cancelled, parked = claim(AWAY), claim(AWAY)
    first, second = started(cancelled), started(parked)
    for worker in (cancelled, parked):
        until(lambda worker=worker: worker.job.attempts == 1)
    cancelled.queue.cancel(cancelled.job_id)
    assert ended(first) == CANCELLED
    parked.attempt.work.stopping.set()
    assert ended(second) is None
    assert not parked.job.begun


def test_a_job_that_was_lost_three_times_is_not_tried_again(claim: Claim) -> None:
    worker = claim(GOOD)
    for executor_id in "abc":
        taken(worker.queue, worker.job_id, executor_id)
    outcome = trained(claim(GOOD, worker.job_id))
    assert outcome["state"] == "failed"
    assert "3 attempts were lost" in outcome["error"]["message"]
    assert worker.job.attempts == 3


def test_the_store_says_whether_a_version_was_made_before_the_end(
    claim: Claim, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "_PAUSE", 0.0)
    worker = claim(CRASH)
    made = {worker.job_id: {"model_name": "m", "version": 4}}
    store.answers = [made]
    assert trained(worker) == MADE

    # Where it registered, the store alone can tell, and is waited for.
    worker = claim(BAD)
    assert worker.queue.begin_registering(worker.job_id, worker.fence)
    store.answers = [None, None, {worker.job_id: {"model_name": "m", "version": 4}}]
    assert trained(worker) == MADE

    worker = claim(BAD)
    store.answers = [None]  # and no attempt began to register: it has failed for sure
    outcome = trained(worker)
    assert (outcome["state"], outcome["open_runs"]) == ("failed", True)


def test_cancel(claim: Claim, store: Store) -> None:
    worker, training = sleeping(claim)
    worker.queue.cancel(worker.job_id)
    assert ended(training) == CANCELLED
    assert store.asked == ["cancelled"]

    worker = claim(GOOD)
    worker.queue.cancel(worker.job_id)  # it outlives the worker
    assert trained(claim(GOOD, worker.job_id)) == CANCELLED
    assert worker.job.attempts == 0


def test_a_worker_that_ends_puts_its_job_back(claim: Claim) -> None:
    worker, training = sleeping(claim)
    worker.attempt.work.stopping.set()
    assert ended(training) is None
    job = worker.job
    assert (job.begun, job.attempts) == (False, 1)
    states = [event for event in worker.queue.events(worker.job_id) if event.name == "state"]
    assert states[-1].data["state"] == "queued"


def test_who_lost_the_job_ends_its_training(claim: Claim) -> None:
    worker, training = sleeping(claim)
    taken(worker.queue, worker.job_id, "heir")
    assert ended(training) is None
    assert worker.job.state == "running"


def test_the_next_attempt_ends_the_one_before(claim: Claim) -> None:
    """A worker that is stopped, not dead: its training goes on until the heir comes."""
    program = f"""
import os, pathlib, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
mark = pathlib.Path("first")
if not mark.exists():
    mark.write_text(str(os.getpid()))
    exec({SLEEPS!r})
"""
    worker = claim(program + GOOD)
    work = worker.attempt.work
    worker.attempt.work = replace(work, grace=60)
    training = started(worker)
    until(lambda: worker.job.epoch == 1)
    first = int((work.root / "jobs" / worker.job_id / "first").read_text())
    heir = FakeWorker(worker.queue, worker.job_id, "heir", work)
    assert trained(heir)["state"] == "succeeded"
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert ended(training) is None


@pytest.mark.parametrize(
    ("refuses", "way"), [("", "resume"), (fails("UsageError", "other threads"), "anew")]
)
def test_a_checkpoint_is_gone_on_from_if_it_fits(claim: Claim, refuses: str, way: str) -> None:
    says_way = "import json, sys; print(json.dumps({'model_name': sys.argv[2], 'version': 1}))"
    refuse = f"import sys\nif sys.argv[2] == 'resume':\n    exec({refuses!r})\n"
    worker = claim(refuse + says_way)
    run = worker.attempt.work.checkpoints / "jobs" / worker.job_id / "run"
    run.mkdir(parents=True)
    (run / "last.ckpt").touch()
    assert trained(worker)["model_name"] == way


def test_nobody_who_can_be_asked_stops_nothing(
    claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = claim(f"import time; time.sleep(1)\n{GOOD}")
    queue = worker.queue
    monkeypatch.setattr(attempt, "_POLL", 0.05)
    ask, answers = queue.decision, [StoreError("away")] * 5

    def decision(*place: Any) -> str | None:
        if answers and worker.job.begun:
            raise answers.pop()
        return ask(*place)

    monkeypatch.setattr(queue, "decision", decision)
    assert (trained(worker)["state"], answers) == ("succeeded", [])


def test_a_folder_that_another_machine_holds_is_left_alone(tmp_path: Path) -> None:
    with checkpoint_lock(tmp_path, "job", 1) as (first, lock):
        # A process of another machine: here the number belongs to another one.
        lock.write(b"1")
        with checkpoint_lock(tmp_path, "job", 2) as (second, _):
            assert second == first / "attempt-2"
    with checkpoint_lock(tmp_path, "job", 3) as (third, _):
        assert third == tmp_path / "jobs" / "job"
