"""What becomes of a job, with small programs in the place of a training."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.jobs.test_queue import taken

from mindtrace.jobs import child, dialects, supervise, sweep, workers
from mindtrace.jobs.database import Database
from mindtrace.jobs.hold import Hold, registering
from mindtrace.jobs.job import Job, Request
from mindtrace.jobs.place import claimed
from mindtrace.jobs.queue import JobQueue
from mindtrace.jobs.supervise import Outcome, Workplace

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
    """What a sweep would find.

    Attributes:
        asked: the state of each job that it was asked about, in turn.
        answers: what it says, in turn; then, that there is no version.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: list[sweep.Versions | None] = []

    def sweep(self, _environ: Any, _folder: Any, ended: dict[str, str]) -> sweep.Versions | None:
        self.asked += ended.values()
        return self.answers.pop(0) if self.answers else {}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    found = Store()
    monkeypatch.setattr(sweep, "sweep", found.sweep)
    return found


@pytest.fixture
def work(database: Database, tmp_path: Path, store: Store) -> Workplace:
    """A workplace whose jobs' configurations are programs."""
    workers.beat(database, "w", 600)
    return Workplace(
        database=database,
        worker_id="w",
        root=tmp_path,
        checkpoints=tmp_path / "checkpoints",
        environ={"PATH": os.environ["PATH"]},
        stopping=threading.Event(),
        command=as_program,
    )


def as_program(config: Path, job_id: str, *_: Any, resume: bool) -> list[str]:
    return [sys.executable, str(config), job_id, "resume" if resume else "anew"]


def hold_on(work: Workplace, queue: JobQueue, program: str) -> Hold:
    hold = Hold(work.database, queue.submit(Request(program)).job_id, "w")
    assert hold.take()
    return hold


class Training(threading.Thread):
    """`supervise.train` in a thread of its own."""

    def __init__(self, work: Workplace, hold: Hold) -> None:
        super().__init__(daemon=True)
        self.outcome: Outcome | None = {}
        self._call: Callable[[], Outcome | None] = lambda: supervise.train(work, hold)
        self.start()

    def run(self) -> None:
        self.outcome = self._call()

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
    hold = hold_on(work, queue, GOOD)
    outcome = supervise.train(work, hold)
    assert outcome == {
        "state": "succeeded",
        "swept": True,
        "model_name": "m",
        "version": 7,
        "reused": False,
    }
    job = queue.get(hold.job_id)
    assert (job.attempts, job.epoch, job.max_epochs, job.val_acc) == (1, 1, 3, 0.5)
    assert "epoch 1/3  val_acc 0.5000" in queue.log(hold.job_id).decode()
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
    outcome = supervise.train(work, hold_on(work, queue, program))
    assert store.asked == ["failed"]  # it may have left a run open
    assert outcome is not None
    assert (outcome["state"], outcome["error"]["type"]) == ("failed", error["type"])
    assert error["message"] in outcome["error"]["message"]


def test_one_that_is_killed_is_tried_three_times(work: Workplace, queue: JobQueue) -> None:
    hold = hold_on(work, queue, CRASH)
    outcome = supervise.train(work, hold)
    assert outcome is not None
    assert outcome["state"] == "failed"
    assert "3 attempts were lost" in outcome["error"]["message"]
    assert "SIGABRT" in outcome["error"]["message"]
    assert queue.get(hold.job_id).attempts == 3


def test_one_whose_registry_was_away_is_tried_again(
    work: Workplace, queue: JobQueue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "_PAUSE", 0.0)
    away = """
import pathlib, sys
if not pathlib.Path("tried").exists():
    pathlib.Path("tried").touch()
    print('{"error": {"type": "StoreError", "message": "away"}}', file=sys.stderr)
    sys.exit(1)
"""
    hold = hold_on(work, queue, away + GOOD)
    outcome = supervise.train(work, hold)
    assert outcome is not None
    assert (outcome["state"], queue.get(hold.job_id).attempts) == ("succeeded", 2)
    assert store.asked == ["succeeded"]  # the first attempt may have left a run open


def test_a_registry_that_stays_away_loses_nothing_for_hours(
    work: Workplace, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "_PAUSE", 0.01)
    monkeypatch.setattr(supervise, "_LONGEST_PAUSE", 0.01)
    hold = hold_on(work, queue, AWAY)
    training = Training(work, hold)
    until(queue, hold.job_id, lambda job: job.attempts > supervise.ATTEMPTS + 1)
    queue.cancel(hold.job_id)
    assert training.ended() == {"state": "cancelled", "swept": True}

    monkeypatch.setattr(supervise, "_PATIENCE", 0.03)
    outcome = supervise.train(work, hold_on(work, queue, AWAY))
    assert outcome is not None
    assert (outcome["state"], outcome["error"]["type"]) == ("failed", "StoreError")


def test_one_that_others_starve_competes_with_them(
    work: Workplace, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is no loss, however often."""
    polite: list[bool] = []
    run = child.run

    def starved(*words: Any, gives_way: bool, **others: Any) -> child.Ended:
        polite.append(gives_way)
        ended = run(*words, **others)
        return replace(ended, starved=True, status=-9, output=b"") if gives_way else ended

    monkeypatch.setattr(child, "run", starved)
    hold = hold_on(work, queue, GOOD)
    outcome = supervise.train(replace(work, gives_way=True), hold)
    assert outcome is not None
    assert outcome["state"] == "succeeded"
    assert polite == [True, False]
    assert (hold.attempts, hold.lost) == (2, 0)


def test_who_waits_for_the_registry_hears_others(work: Workplace, queue: JobQueue) -> None:
    """By the pause that users have."""
    cancelled, parked = hold_on(work, queue, AWAY), hold_on(work, queue, AWAY)
    first, second = Training(work, cancelled), Training(work, parked)
    for hold in (cancelled, parked):
        until(queue, hold.job_id, lambda job: job.attempts == 1)
    queue.cancel(cancelled.job_id)
    assert first.ended() == {"state": "cancelled", "swept": True}
    work.stopping.set()
    assert second.ended() is None
    assert queue.get(parked.job_id).state == "queued"


def test_a_job_that_was_lost_three_times_is_not_tried_again(
    work: Workplace, queue: JobQueue
) -> None:
    job = queue.submit(Request(GOOD))
    for worker_id in "abc":
        taken(work.database, job, worker_id)
    hold = Hold(work.database, job.job_id, "w")
    assert hold.take()
    outcome = supervise.train(work, hold)
    assert outcome is not None
    assert outcome["state"] == "failed"
    assert queue.get(job.job_id).attempts == 3


def test_one_that_died_right_after_it_registered_has_succeeded(
    work: Workplace, queue: JobQueue, store: Store
) -> None:
    hold = hold_on(work, queue, CRASH)
    store.answers = [{hold.job_id: {"model_name": "m", "version": 4}}]
    outcome = supervise.train(work, hold)
    assert outcome is not None
    assert hold.finish(**outcome)
    job = queue.get(hold.job_id)
    assert (job.state, job.version, job.error) == ("succeeded", 4, None)


def test_the_store_is_waited_for_where_it_alone_can_tell(
    work: Workplace, queue: JobQueue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "_PAUSE", 0.0)
    hold = hold_on(work, queue, BAD)
    with work.database.transaction() as changes:
        assert registering(changes, hold.job_id, hold.fence)
    store.answers = [None, None, {hold.job_id: {"model_name": "m", "version": 4}}]
    outcome = supervise.train(work, hold)
    assert outcome == {"state": "succeeded", "swept": True, "model_name": "m", "version": 4}

    other = hold_on(work, queue, BAD)
    store.answers = [None]  # and no attempt began to register: it has failed for sure
    outcome = supervise.train(work, other)
    assert outcome is not None
    assert (outcome["state"], outcome["swept"]) == ("failed", False)


def test_cancel(work: Workplace, queue: JobQueue, store: Store) -> None:
    hold = hold_on(work, queue, SLOW)
    training = Training(work, hold)
    until(queue, hold.job_id, lambda job: job.epoch == 1)
    queue.cancel(hold.job_id)
    assert training.ended() == {"state": "cancelled", "swept": True}
    assert store.asked == ["cancelled"]


def test_a_wish_to_cancel_outlives_the_worker(work: Workplace, queue: JobQueue) -> None:
    hold = hold_on(work, queue, SLOW)
    queue.cancel(hold.job_id)
    heir = Hold(work.database, hold.job_id, "w")
    assert heir.take()
    assert supervise.train(work, heir) == {"state": "cancelled", "swept": True}
    assert queue.get(hold.job_id).attempts == 0


def test_a_worker_that_ends_puts_its_job_back(work: Workplace, queue: JobQueue) -> None:
    hold = hold_on(work, queue, SLOW)
    training = Training(work, hold)
    until(queue, hold.job_id, lambda job: job.epoch == 1)
    work.stopping.set()
    assert training.ended() is None
    job = queue.get(hold.job_id)
    assert (job.state, job.attempts) == ("queued", 1)


def test_who_lost_the_job_ends_its_training(work: Workplace, queue: JobQueue) -> None:
    hold = hold_on(work, queue, SLOW)
    training = Training(work, hold)
    until(queue, hold.job_id, lambda job: job.epoch == 1)
    taken(work.database, queue.get(hold.job_id), "heir")
    assert training.ended() is None
    assert queue.get(hold.job_id).state == "running"


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
    hold = hold_on(work, queue, program + GOOD)
    training = Training(replace(work, grace=60), hold)
    until(queue, hold.job_id, lambda job: job.epoch == 1)
    first = int((work.root / "jobs" / hold.job_id / "first").read_text())
    heir = Hold(work.database, hold.job_id, "w")
    assert heir.take()
    outcome = supervise.train(work, heir)
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
        hold = hold_on(work, queue, program)
        run = work.checkpoints / "jobs" / hold.job_id / "run"
        run.mkdir(parents=True)
        (run / "last.ckpt").touch()
        outcome = supervise.train(work, hold)
        assert outcome is not None
        assert outcome["model_name"] == model_name
        assert hold.finish(**outcome)


def test_a_command_that_cannot_start(work: Workplace, queue: JobQueue, tmp_path: Path) -> None:
    broken = replace(work, command=lambda *_, **__: [str(tmp_path / "nothing")])
    outcome = supervise.train(broken, hold_on(work, queue, ""))
    assert outcome is not None
    assert outcome["state"] == "failed"
    assert outcome["error"]["type"] == "FileNotFoundError"
    assert "nothing" in outcome["error"]["message"]


def test_a_database_that_is_away_for_a_while_loses_nothing(
    work: Workplace,
    queue: JobQueue,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(dialects, "_BUSY", 0.1)
    work.database.close()  # it connects anew, with less patience
    go = tmp_path / "go"
    program = f"""
import pathlib, sys, time
print('{EPOCH}', file=sys.stderr, flush=True)
while not pathlib.Path({str(go)!r}).exists():
    time.sleep(0.05)
print('{EPOCH.replace('"epoch": 1', '"epoch": 2')}', file=sys.stderr, flush=True)
print('{{"model_name": "m", "version": 7}}')
pathlib.Path("done").touch()
"""
    hold = hold_on(work, queue, program)
    training = Training(work, hold)
    until(queue, hold.job_id, lambda job: job.epoch == 1)
    done = tmp_path / "jobs" / hold.job_id / "done"
    with closing(sqlite3.connect(tmp_path / "jobs.db", timeout=30)) as other:
        other.execute("begin immediate")  # nobody else can write
        go.touch()
        deadline = time.monotonic() + 60
        while not (done.exists() and "database is locked" in caplog.text):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert training.is_alive()
    outcome = training.ended()
    assert outcome is not None
    assert outcome["state"] == "succeeded"
    assert queue.get(hold.job_id).epoch == 2
    names = [event.name for event in queue.events(hold.job_id)]
    assert names.count("epoch") == 2


def test_a_folder_that_another_machine_holds_is_left_alone(tmp_path: Path) -> None:
    with claimed(tmp_path, "job", 1) as first:
        # A number that means nothing here, as one of another machine does.
        os.pwrite(first.lock, b"1", 0)
        with claimed(tmp_path, "job", 2) as second:
            assert second.folder == first.folder / "attempt-2"
    with claimed(tmp_path, "job", 3) as third:
        assert third.folder == tmp_path / "jobs" / "job"
