"""A job's course in a worker, where the worker's own work goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mindtrace.config.settings import Settings, load_settings
from mindtrace.errors import ConflictError
from mindtrace.jobs import supervise, sweep, workers
from mindtrace.jobs.engine import Engine
from mindtrace.jobs.hold import Hold, registering
from mindtrace.jobs.job import Job, Request
from mindtrace.jobs.queue import JobQueue
from mindtrace.jobs.worker import Worker

VERSION = {"model_name": "m", "version": 7}


class Steps(Engine):
    """An engine without DBOS, one of whose steps fails."""

    def __init__(self, broken: str) -> None:
        self._broken = broken

    def step(self, name: str, do: Callable[..., Any], *values: Any) -> Any:
        """Do it, or fail."""
        if name == self._broken:
            raise ValueError("mine")
        return do(*values)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(sets=[f"DIR_PATHS.ROOT={tmp_path}"], environ={})


@pytest.fixture
def worker(settings: Settings) -> Iterator[Worker]:
    made = Worker(settings, {}, threading.Event())
    workers.beat(made._database, made._work.worker_id, 600)
    yield made
    made._database.close()


def course(worker: Worker, broken: str) -> Job:
    """What becomes of a job where that step fails."""
    queue = JobQueue(worker._database, 1)
    job_id = queue.submit(Request("")).job_id
    worker._engine = Steps(broken)
    worker._course(Hold(worker._database, job_id, worker._work.worker_id))
    return queue.get(job_id)


def test_a_promotion_that_breaks_leaves_the_version(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = {"state": "succeeded", "swept": True, **VERSION, "reused": False}
    monkeypatch.setattr(supervise, "train", lambda *_: outcome)
    job = course(worker, "promote")
    assert (job.state, job.version, job.error) == ("succeeded", 7, None)
    assert job.promotion == {"promoted": False, "verdict": None, "message": "ValueError: mine"}


def test_a_job_over_which_we_fail_says_why(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "sweep", lambda *_: {})
    job = course(worker, "train")
    assert (job.state, job.version) == ("failed", None)
    assert job.error == {"type": "ValueError", "message": "mine"}


def test_a_version_that_was_registered_counts_though_we_fail(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "sweep", lambda _e, _f, ended: dict.fromkeys(ended, VERSION))
    job = course(worker, "train")
    assert (job.state, job.version, job.error) == ("succeeded", 7, None)


def test_a_job_whose_end_cannot_be_put_down_ends_all_the_same(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("the store said nonsense")

    monkeypatch.setattr(sweep, "sweep", broken)
    queue = JobQueue(worker._database, 1)
    job_id = queue.submit(Request("")).job_id
    worker._engine = Steps("train")
    worker._retrain(job_id)
    job = queue.get(job_id)
    assert job.state == "failed"
    assert job.error == {"type": "ValueError", "message": "the store said nonsense"}
    assert queue.unfinished()  # a run of it may be open


def test_a_job_that_nobody_can_read_ends(worker: Worker) -> None:
    queue = JobQueue(worker._database, 1)
    job_id = queue.submit(Request("")).job_id
    with worker._database.transaction() as work:
        work.changed("update mindtrace_jobs set request = '{'")
    worker._retrain(job_id)
    job = queue.get(job_id)
    assert (job.state, (job.error or {})["type"]) == ("failed", "JSONDecodeError")


def test_a_worker_that_cannot_go_round_ends_and_says_why(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ValueError("mine")

    monkeypatch.setattr(worker, "_round", broken)
    monkeypatch.setattr(Engine, "launch", lambda *_: None)
    said: list[str] = []
    with pytest.raises(ValueError, match="mine"):
        worker.run(said.append)
    assert said == [worker._work.worker_id]
    assert workers.alive(worker._database) == set()


def test_what_ended_jobs_left_behind_is_put_away(settings: Settings, worker: Worker) -> None:
    queue = JobQueue(worker._database, 9)
    ended, waits = (queue.submit(Request("")).job_id for _ in range(2))
    queue.cancel(ended)
    folders = [
        home / "jobs" / job_id
        for home in (settings.dirs.root, settings.dirs.checkpoints)
        for job_id in (ended, waits, "notes-of-somebody")
    ]
    for folder in folders:
        folder.mkdir(parents=True)
    worker._tidy()
    left = {folder.name for folder in folders if folder.exists()}
    assert left == {waits, "notes-of-somebody"}


def test_a_job_that_registers_cannot_be_cancelled(worker: Worker) -> None:
    queue = JobQueue(worker._database, 1)
    hold = Hold(worker._database, queue.submit(Request("")).job_id, worker._work.worker_id)
    assert hold.take()
    assert not hold.registering()
    with worker._database.transaction() as work:
        assert registering(work, hold.job_id, hold.fence)
    assert hold.registering()
    with pytest.raises(ConflictError, match="begun to register"):
        queue.cancel(hold.job_id)
