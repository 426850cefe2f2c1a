"""The one worker beside servers, with small programs in its place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from tests.waiting import until

from mindtrace.errors import StoreError
from mindtrace.jobs import sidecar as sidecars
from mindtrace.jobs.sidecar import WorkerSidecar, hold_lock

# Says that it began, and ends in its own time, or with the one who started it.
WORKER = """
import os, pathlib, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with open("begun", "a") as file:
    file.write(f"{os.getpid()}\\n")
os.read(0, 1)
"""

Make = Callable[..., WorkerSidecar]


@pytest.fixture
def jobs() -> list[str]:
    """Holds something while there are jobs."""
    return ["job"]


@pytest.fixture
def make(tmp_path: Path, jobs: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr(sidecars, "worker_command", _program)
    monkeypatch.setattr(sidecars, "_POLL", 0.1)
    monkeypatch.setattr(sidecars, "_PAUSE", 0.1)
    all_made: list[WorkerSidecar] = []

    def made(unfinished: Callable[[], bool] = lambda: bool(jobs)) -> WorkerSidecar:
        sidecar = WorkerSidecar(
            tmp_path, unfinished=unfinished, config=lambda: "", environ={}, serving=True
        )
        all_made.append(sidecar)
        return sidecar

    yield made
    for sidecar in all_made:
        sidecar.stop()


def _program(config: Path, lock: int, *, serving: bool) -> Sequence[str]:
    assert serving
    assert config.read_text() == ""
    return [sys.executable, "-c", WORKER]


def begun(root: Path) -> list[int]:
    file = root / "jobs" / "begun"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def test_a_worker_is_started_again_if_it_dies_and_ended(tmp_path: Path, make: Make) -> None:
    make().stop()  # before anything ran
    sidecar = make()
    sidecar.start()
    until(lambda: len(begun(tmp_path)) == 1)
    assert hold_lock(tmp_path) is None
    os.kill(begun(tmp_path)[0], signal.SIGKILL)
    until(lambda: len(begun(tmp_path)) == 2)
    sidecar.stop()
    assert not psutil.pid_exists(begun(tmp_path)[1])
    lock = hold_lock(tmp_path)
    assert lock is not None
    os.close(lock)
    sidecar.wake()  # too late, and no harm
    assert len(begun(tmp_path)) == 2


def test_without_jobs_there_is_none(tmp_path: Path, make: Make, jobs: list[str]) -> None:
    jobs.clear()
    looked = []
    sidecar = make(lambda: bool(looked.append("looked") or jobs))
    sidecar.start()
    until(lambda: len(looked) >= 2)
    assert begun(tmp_path) == []
    jobs.append("job")
    sidecar.wake()
    until(lambda: len(begun(tmp_path)) == 1)


def test_two_servers_share_one_and_the_other_starts_the_next(tmp_path: Path, make: Make) -> None:
    first, second = make(), make()
    first.start()
    until(lambda: len(begun(tmp_path)) == 1)
    second.start()
    first.stop()
    until(lambda: len(begun(tmp_path)) == 2)


def test_a_database_that_is_away_is_asked_again(tmp_path: Path, make: Make) -> None:
    answers = [StoreError("away"), StoreError("away")]

    def unfinished() -> bool:
        if answers:
            raise answers.pop()
        return True

    make(unfinished).start()
    until(lambda: len(begun(tmp_path)) == 1)


def test_it_ends_with_a_server_that_was_killed(tmp_path: Path) -> None:
    server = f"""
import time
from pathlib import Path
from tests.jobs.test_sidecar import _program
from mindtrace.jobs import sidecar
sidecar.worker_command = _program
sidecar.WorkerSidecar(Path({str(tmp_path)!r}),
    unfinished=lambda: True, config=lambda: "", environ={{}}, serving=True).start()
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", server])
    until(lambda: len(begun(tmp_path)) == 1)
    process.kill()
    process.wait()
    until(lambda: not psutil.pid_exists(begun(tmp_path)[0]))
