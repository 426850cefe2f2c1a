"""The process that trains, with small programs in the place of a training."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mindtrace.jobs import child
from mindtrace.jobs.child import Ended, Event

Never = Callable[[], bool]


def run(
    folder: Path,
    program: str,
    *,
    on_event: Callable[[Event], None] = lambda _: None,
    stop: Never = lambda: False,
    grace: float = 20.0,
) -> Ended:
    return child.run(
        [sys.executable, "-c", program],
        folder=folder,
        environ={"PATH": os.environ["PATH"]},
        on_event=on_event,
        stop=stop,
        grace=grace,
    )


def test_events_result_and_log(tmp_path: Path) -> None:
    program = """
import sys
print('{"event": "started", "max_epochs": 2}', file=sys.stderr)
print('a plain line', file=sys.stderr)
print('{"event": "epoch", "epoch": 1}', file=sys.stderr)
print('not the result')
print('{"version": 3}')
"""
    heard: list[Event] = []
    ended = run(tmp_path, program, on_event=heard.append)
    assert ended == Ended(0, {"version": 3}, None, stopped=False)
    assert [event["event"] for event in heard] == ["started", "epoch"]
    assert (tmp_path / "log.txt").read_text().splitlines()[1] == "a plain line"


def test_the_error_that_a_child_reports(tmp_path: Path) -> None:
    program = """
import sys
print('{"error": {"type": "DataError", "message": "no"}}', file=sys.stderr)
sys.exit(1)
"""
    ended = run(tmp_path, program)
    assert (ended.status, ended.result) == (1, None)
    assert ended.error == {"type": "DataError", "message": "no"}


def test_a_child_is_a_nice_group_of_its_own(tmp_path: Path) -> None:
    ended = run(
        tmp_path, "import os, json; print(json.dumps({'g': os.getpgid(0), 'p': os.getpid()}))"
    )
    assert ended.result is not None
    assert ended.result["g"] == ended.result["p"] != os.getpgid(0)
    said = run(
        tmp_path,
        "import os, sys; sys.stdin.read(); print('{\"n\": %d}' % os.nice(0))",
    )
    # It may have looked before it was niced, never after it was niced more.
    assert said.result is not None
    assert said.result["n"] in (os.nice(0), os.nice(0) + child.NICENESS)


def test_stop_is_sigterm(tmp_path: Path) -> None:
    program = """
import signal, sys, time
def stop(*_):
    print('{"event": "note"}', file=sys.stderr)
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
print('{"event": "ready"}', file=sys.stderr, flush=True)
time.sleep(60)
"""
    wanted = threading.Event()
    ended = run(tmp_path, program, on_event=lambda _: wanted.set(), stop=wanted.is_set)
    assert (ended.status, ended.stopped) == (143, True)
    assert (tmp_path / "log.txt").read_text().count("event") == 2


def test_after_the_grace_the_whole_group_is_killed(tmp_path: Path) -> None:
    program = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
inner = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
grandchild = subprocess.Popen([sys.executable, "-c", inner])
print('{"event": "pid", "pid": %d}' % grandchild.pid, file=sys.stderr, flush=True)
time.sleep(60)
"""
    pids: list[int] = []
    ended = run(
        tmp_path,
        program,
        on_event=lambda event: pids.append(event["pid"]),
        stop=lambda: bool(pids),
        grace=0.2,
    )
    assert ended.status == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while not _gone(pids[0]):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_a_child_leaves_behind_does_not_hold_us(tmp_path: Path) -> None:
    program = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
"""
    assert run(tmp_path, program).status == 0


def test_a_listener_that_fails_ends_the_child(tmp_path: Path) -> None:
    program = """
import sys, time
print('{"event": "x"}', file=sys.stderr, flush=True)
time.sleep(60)
"""

    def fail(_: Event) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run(tmp_path, program, on_event=fail)


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        child.run(
            [str(tmp_path / "nothing")],
            folder=tmp_path,
            environ={},
            on_event=lambda _: None,
            stop=lambda: False,
        )


def test_the_environment_is_listed() -> None:
    ours = {
        "PATH": "/bin",
        "HOME": "/home/x",
        "LC_ALL": "C",
        "https_proxy": "http://p",
        "NO_PROXY": "*",
        "AWS_SECRET_ACCESS_KEY": "s",
        "MLFLOW_TRACKING_TOKEN": "t",
        "CUDA_VISIBLE_DEVICES": "0",
        "SSL_CERT_FILE": "/c",
        "GITHUB_TOKEN": "no",
        "PYTHONPATH": "no",
        "TRAIN__LR": "no",
        "LD_PRELOAD": "no",
        "DIR_PATHS__ROOT": "no",
    }
    seen = child.listed_environment(ours, {"REGISTRY__TRACKING_URI": "x"})
    assert "no" not in seen.values()
    assert len(seen) == 10


def _gone(pid: int) -> bool:
    """Whether a process is no more, or only waits for somebody to read its end."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"
