"""The runner: what becomes of jobs, with small programs in the place of a training."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mindtrace.jobs.job import Job
from mindtrace.jobs.queue import JobQueue
from mindtrace.jobs.runner import Runner

EPOCH = '{"event": "epoch", "epoch": 1, "max_epochs": 3, "metrics": {"val_acc": 0.5}}'
GOOD = f"""
import sys
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

Make = Callable[..., Runner]


@pytest.fixture
def queue(tmp_path: Path) -> JobQueue:
    return JobQueue(tmp_path / "jobs", max_queued=8)


@pytest.fixture
def make(queue: JobQueue) -> Iterator[Make]:
    """Runners that take the text of a job's configuration as a program."""
    runners: list[Runner] = []

    def made(grace: float = 20.0) -> Runner:
        environ = {"PATH": os.environ["PATH"]}
        runner = Runner(queue, environ, command=_as_program, grace=grace)
        runners.append(runner)
        return runner

    yield made
    for runner in runners:
        runner.stop()


def _as_program(config: Path, job_id: str) -> list[str]:
    return [sys.executable, str(config)]


def until(queue: JobQueue, job: Job, wanted: Callable[[Job], bool] = lambda job: job.ended) -> Job:
    deadline = time.monotonic() + 60
    while not wanted(job := queue.get(job.job_id)):
        assert time.monotonic() < deadline, job
        time.sleep(0.01)
    return job


def test_a_job_that_succeeds(queue: JobQueue, make: Make) -> None:
    job = queue.submit(GOOD)
    make().wake()
    done = until(queue, job)
    assert done.state == "succeeded"
    assert (done.model_name, done.version, done.attempts) == ("m", 7, 1)
    assert (done.epoch, done.max_epochs, done.val_acc) == (1, 3, 0.5)
    assert done.submitted_at <= (done.started_at or "") <= (done.ended_at or "")


def test_a_job_that_fails_says_why(queue: JobQueue, make: Make) -> None:
    bad, crash = queue.submit(BAD), queue.submit("import os; os.abort()")
    silent = queue.submit("")
    make().wake()
    assert until(queue, bad).error == {"type": "DownloadError", "message": "no network"}
    crashed = until(queue, crash)
    assert crashed.state == "failed"
    assert crashed.error is not None
    assert "SIGABRT" in crashed.error["message"]
    assert until(queue, silent).state == "failed"  # status 0 without a result is no success


def test_one_at_a_time_even_with_two_runners(queue: JobQueue, make: Make, tmp_path: Path) -> None:
    program = f"""
import os, sys, time
path = {str(tmp_path / "alone")!r}
os.close(os.open(path, os.O_CREAT | os.O_EXCL))
time.sleep(0.05)
os.unlink(path)
print("{{}}")
print('{{"version": 1}}')
"""
    jobs = [queue.submit(program) for _ in range(6)]
    for runner in (make(), make()):
        runner.wake()
    assert [until(queue, job).state for job in jobs] == ["succeeded"] * 6


def test_cancel_of_a_running_job(queue: JobQueue, make: Make) -> None:
    job, following = queue.submit(SLOW), queue.submit(GOOD)
    make().wake()
    until(queue, job, lambda job: job.epoch == 1)
    queue.cancel(job.job_id)
    cancelled = until(queue, job)
    assert cancelled.state == "cancelled"
    assert cancelled.version is None
    assert until(queue, following).state == "succeeded"


def test_stop_ends_the_child_and_keeps_the_queue(queue: JobQueue, make: Make) -> None:
    job, waiting = queue.submit(SLOW), queue.submit(GOOD)
    runner = make()
    runner.wake()
    until(queue, job, lambda job: job.epoch == 1)
    runner.stop()
    stopped = queue.get(job.job_id)
    assert stopped.state == "failed"
    assert stopped.error is not None
    assert "server stopped" in stopped.error["message"]
    assert queue.get(waiting.job_id).state == "queued"
    make().wake()
    assert until(queue, waiting).state == "succeeded"


def test_stop_before_anything_ran(make: Make) -> None:
    runner = make()
    runner.stop()
    runner.wake()


def test_a_command_that_cannot_start(queue: JobQueue, tmp_path: Path) -> None:
    runner = Runner(queue, {}, command=lambda *_: [str(tmp_path / "nothing")])
    job = queue.submit("")
    runner.wake()
    failed = until(queue, job)
    runner.stop()
    assert failed.state == "failed"
    assert failed.error == {"type": "FileNotFoundError", "message": "No such file or directory"}
