"""Workers of any kind: what becomes of them when they fail, die or hang."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.application.servers import PATIENCE, end, started
from tests.waiting import until

pytestmark = pytest.mark.slow

# A worker that needs no network: a folder decides what it does.
WORKER = """
import json, os, pathlib, pickle, signal, sys, threading, time

FOLDER = pathlib.Path({folder!r})
(FOLDER / f"pid-{{os.getpid()}}").touch()
if (FOLDER / "fail").exists():
    failure = {{"type": "NotFoundError", "message": "no version 'a/3'", "hint": "a/1"}}
    os.write(1, json.dumps(failure).encode())
    sys.exit(3)
if (FOLDER / "crash").exists():
    os._exit(7)
stop = threading.Event()
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, lambda *_: stop.set())
os.write(1, b"serves\\n")
while not stop.wait(0.02):
    pass
if (FOLDER / "stay").exists():
    time.sleep(100)
"""
PROGRAM = """
import socket, sys
from mindtrace.application import workers
from mindtrace.config.settings import load_settings
from mindtrace.errors import MindtraceError
from dataclasses import replace

workers._WORKER = {worker!r}
settings = load_settings(sets=["serve.workers=2", "serve.drain_timeout=1"])
settings = replace(settings, origins={{}})
try:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        supervisor = workers.Supervisor(listener, settings, {{"shared": "."}})
        supervisor.run(lambda: print("ready", flush=True))
        assert listener.fileno() == -1
except MindtraceError as error:
    sys.exit(f"{{type(error).__name__}}: {{error}}")
"""


@contextlib.contextmanager
def running(folder: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    for flag in flags:
        (folder / flag).touch()
    script = folder / "script.py"
    script.write_text(PROGRAM.format(worker=WORKER.format(folder=str(folder))))
    with started([str(script)]) as process:
        yield process


def pids(folder: Path, count: int) -> list[int]:
    """All that have ever begun, in the order of their files, once there are so many."""
    until(lambda: len(list(folder.glob("pid-*"))) >= count)
    return [int(path.name[4:]) for path in folder.glob("pid-*")]


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("fail", "NotFoundError: no version 'a/3'\n"),
        ("crash", "MindtraceError: a worker could not start: it ended with code 7\n"),
    ],
)
def test_what_fails_at_first_is_told_once(tmp_path: Path, flag: str, says: str) -> None:
    with running(tmp_path, flag) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (1, "", says)
    assert len(pids(tmp_path, 1)) == 1


def test_one_that_dies_is_replaced(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        first, second = pids(tmp_path, 2)
        os.kill(first, signal.SIGKILL)
        assert len(pids(tmp_path, 3)) == 3
        assert not is_gone(second)
        code, err = end(process, signal.SIGINT)
    assert code == 0
    assert f"worker {first} was killed by SIGKILL; another one takes its place" in err


def test_a_replacement_that_fails_is_tried_again(tmp_path: Path) -> None:
    with running(tmp_path) as process:
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
        code, err = end(process)
    assert code == 0
    assert "no version 'a/3'" in err


def test_those_that_do_not_end_are_killed(tmp_path: Path) -> None:
    with running(tmp_path, "stay") as process:
        both = pids(tmp_path, 2)
        time.sleep(0.5)
        code, err = end(process)
    assert code == 0
    assert "2 workers did not end within 1 s" in err
    assert all(map(is_gone, both))
