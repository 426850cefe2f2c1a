"""Workers of any kind: what becomes of them when they fail, die or hang."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PATIENCE = 60.0
# Work that needs no network: a folder tells what happens.
PROGRAM = """
import os, pathlib, signal, sys, time
from mindtrace.application import worker
from mindtrace.application.workers import Workers
from mindtrace.errors import MindtraceError, NotFoundError

FOLDER = pathlib.Path(sys.argv[1])

def work(report):
    (FOLDER / f"pid-{os.getpid()}").touch()
    if (FOLDER / "fail").exists():
        report.failed(NotFoundError("version", "a/3", ["a/1"]))
        sys.exit(3)
    if (FOLDER / "crash").exists():
        os._exit(7)
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    while not stop and not report.orphaned:
        report.alive()
        time.sleep(0.02)
    if (FOLDER / "stay").exists():
        time.sleep(100)

if __name__ == "__main__":
    worker.TICK = 0.1
    try:
        Workers(work, 2, 1.0, start_method=sys.argv[2]).run(
            lambda: print("ready", flush=True), lambda: print("stopping", flush=True)
        )
    except MindtraceError as error:
        sys.exit(f"{type(error).__name__}: {error}")
"""


@contextlib.contextmanager
def running(folder: Path, method: str, *flags: str) -> Iterator[subprocess.Popen[str]]:
    for flag in flags:
        (folder / flag).touch()
    script = folder / "script.py"
    script.write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder), method],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def pids(folder: Path, count: int) -> list[int]:
    """All that have ever begun, in the order of their files, once there are so many."""
    deadline = time.monotonic() + PATIENCE
    while len(found := [int(path.name[4:]) for path in folder.glob("pid-*")]) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


methods = pytest.mark.parametrize("method", ["fork", "spawn"])


@methods
def test_a_life_in_peace(tmp_path: Path, method: str) -> None:
    with running(tmp_path, method) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        both = pids(tmp_path, 2)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (0, "stopping\n", "")
    assert all(map(is_gone, both))


@methods
def test_what_fails_at_first_is_told_once(tmp_path: Path, method: str) -> None:
    with running(tmp_path, method, "fail") as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (1, "")
    assert err == "NotFoundError: no version 'a/3', did you mean 'a/1'? there are: a/1\n"
    assert len(pids(tmp_path, 1)) == 1


def test_what_crashes_at_first(tmp_path: Path) -> None:
    with running(tmp_path, "fork", "crash") as process:
        _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (
        1,
        "MindtraceError: a worker could not start: it ended with code 7\n",
    )


@methods
def test_one_that_dies_is_replaced(tmp_path: Path, method: str) -> None:
    with running(tmp_path, method) as process:
        first, second = pids(tmp_path, 2)
        os.kill(first, signal.SIGKILL)
        assert len(pids(tmp_path, 3)) == 3
        assert not is_gone(second)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert f"worker {first} was killed by SIGKILL; another one takes its place" in err


def test_a_replacement_that_fails_is_tried_again(tmp_path: Path) -> None:
    with running(tmp_path, "fork") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        first, second = pids(tmp_path, 2)
        time.sleep(0.5)  # until both have reported
        (tmp_path / "fail").touch()
        os.kill(first, signal.SIGKILL)
        pids(tmp_path, 4)
        assert process.poll() is None
        (tmp_path / "fail").unlink()
        pids(tmp_path, 5)
        assert not is_gone(second)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "no version 'a/3'" in err


def test_one_that_hangs_is_replaced(tmp_path: Path) -> None:
    with running(tmp_path, "fork") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        first, _ = pids(tmp_path, 2)
        time.sleep(0.5)
        os.kill(first, signal.SIGSTOP)
        pids(tmp_path, 3)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert f"worker {first} hangs and is killed" in err


@methods
def test_those_that_do_not_end_are_killed(tmp_path: Path, method: str) -> None:
    with running(tmp_path, method, "stay") as process:
        both = pids(tmp_path, 2)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        start = time.monotonic()
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert time.monotonic() - start < 10
    assert "2 workers did not end within 1 s" in err
    assert all(map(is_gone, both))


@methods
def test_nobody_outlives_the_parent(tmp_path: Path, method: str) -> None:
    with running(tmp_path, method) as process:
        both = pids(tmp_path, 2)
        process.kill()
        process.wait()
        deadline = time.monotonic() + PATIENCE
        while not all(map(is_gone, both)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
