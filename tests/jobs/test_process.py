"""The process that trains, with small programs in the place of a training."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from mindtrace.jobs import process
from mindtrace.jobs.attempt import log_text, train_command
from mindtrace.jobs.job import Request
from mindtrace.jobs.process import Watchdog
from mindtrace.system import ChildResult, last_json

# How the scheduler treats a process and what it starts, each on a line of its own.
POLICY = """
import os, subprocess, sys
own = "import os; print(os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0), flush=True)"
exec(own)
subprocess.run([sys.executable, "-c", own])
"""


def run(
    folder: Path,
    program: str,
    *,
    on_line: Callable[[bytes], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    grace: float = 20.0,
) -> ChildResult:
    with Watchdog(
        [sys.executable, "-c", program],
        folder=folder,
        environ={"PATH": os.environ["PATH"]},
        stop=stop,
        grace=grace,
    ) as child:
        ended = None
        while ended is None:
            ended = child.wait(0.01)
            for line in child.take():
                on_line(line)
        return ended


def test_lines_result_and_error_of_a_child_in_a_group_of_its_own(tmp_path: Path) -> None:
    program = """
import os, sys
print('{"event": "started", "max_epochs": 2}', file=sys.stderr)
print('{"error": {"type": "DataError", "message": "no"}}', file=sys.stderr)
print('a plain line', file=sys.stderr)
print('not the result')
print('{"is_leader": %s}' % str(os.getpgid(0) == os.getpid()).lower())
sys.exit(1)
"""
    lines: list[bytes] = []
    ended = run(tmp_path, program, on_line=lines.append)
    assert ended.stdout == b'not the result\n{"is_leader": true}\n'
    assert (ended.status, ended.document) == (1, {"is_leader": True})
    assert ended.error == {"type": "DataError", "message": "no"}
    assert last_json(lines[0])["event"] == "started"
    assert lines[2:] == [b"a plain line\n"]


def test_stop_is_sigterm(tmp_path: Path) -> None:
    program = """
import os, signal, sys, time
def stop(*_):
    os.write(2, b'the last line\\n')  # print may be at work on the line before
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
print('ready', file=sys.stderr, flush=True)
time.sleep(60)
"""
    heard: list[bytes] = []
    ended = run(tmp_path, program, on_line=heard.append, stop=lambda: bool(heard))
    assert (ended.status, heard) == (143, [b"ready\n", b"the last line\n"])


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
        on_line=lambda line: pids.append(last_json(line)["pid"]),
        stop=lambda: bool(pids),
        grace=0.2,
    )
    assert ended.status == -signal.SIGKILL
    _await_gone(pids)


def test_what_a_child_leaves_behind_does_not_hold_us(tmp_path: Path) -> None:
    program = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
"""
    start = time.monotonic()
    assert run(tmp_path, program).status == 0
    assert time.monotonic() - start < 50


def test_a_listener_that_fails_ends_the_child(tmp_path: Path) -> None:
    def fail(_: bytes) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run(tmp_path, "import os, time; os.write(2, b'x\\n'); time.sleep(60)", on_line=fail)


def test_a_child_dies_with_whoever_waits_for_it(tmp_path: Path) -> None:
    inner = """
import subprocess, sys, time
from mindtrace.jobs.process import die, when_parent_ends
when_parent_ends(die)
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
import os
print('{"event": "pids", "pids": [%d, %d]}' % (os.getpid(), grandchild.pid), file=sys.stderr)
time.sleep(60)
"""
    outer = f"""
import sys
from pathlib import Path
from mindtrace.system import last_json
from mindtrace.jobs.process import Watchdog
child = Watchdog([sys.executable, "-c", {inner!r}], folder=Path({str(tmp_path)!r}), environ={{}})
while True:
    for line in child.take():
        print(*last_json(line)["pids"], flush=True)
"""
    waiting = subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE, text=True)
    assert waiting.stdout is not None
    pids = [int(word) for word in waiting.stdout.readline().split()]
    assert len(pids) == 2
    waiting.kill()
    waiting.communicate()
    _await_gone(pids)


def test_a_training_is_told_everything(tmp_path: Path) -> None:
    asked = Request("", "m/1", True, True, "gate", allow_leakage=True)
    command = train_command(tmp_path / "c.ini", "j", 2, asked, resume=True)
    assert command[:5] == [sys.executable, "-P", "-m", "mindtrace", "train"]
    words = " ".join(command[5:])
    assert words == (
        f"--config {tmp_path}/c.ini --json --job-id j --attempt 2 --set jobs.promote=gate"
        " --parent m/1 --warm-start --force --allow-leakage --resume last"
    )
    plain = train_command(tmp_path / "c.ini", "j", 1, Request(""), resume=False)
    assert plain[-2:] == ["--attempt", "1"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"event": "started", "max_epochs": 3}\n', "training of 3 epochs begins\n"),
        (
            b'{"event": "epoch", "epoch": 1, "max_epochs": 3, "metrics": {"val_acc": 0.5},'
            b' "seconds": 1.25, "best": true}\n',
            "epoch 1/3  val_acc 0.5000  1.25 s  best\n",
        ),
        (b'{"event": "note", "text": "two images are gone"}\n', "two images are gone\n"),
        (b'{"error": {"message": "no", "hint": "try"}}\n', "error: no\nhint: try\n"),
        (b'{"error": {"message": "no", "hint": null}}\n', "error: no\n"),
        (b"a warning \xff\n", "a warning \ufffd\n"),
        (b'{"event": "note", "text": "\\udcff.png"}\n', "\\udcff.png\n"),
        (b'{"event": "unheard of"}\n', '{"event": "unheard of"}\n'),
    ],
)
def test_what_it_writes_in_words(line: bytes, told: str) -> None:
    assert log_text(line) == told


def test_the_environment_is_listed() -> None:
    names = (
        *("PATH", "HOME", "LC_ALL", "https_proxy", "NO_PROXY", "AWS_SECRET_ACCESS_KEY"),
        *("MLFLOW_TRACKING_TOKEN", "CUDA_VISIBLE_DEVICES", "SSL_CERT_FILE"),
    )
    others = ("GITHUB_TOKEN", "PYTHONPATH", "TRAIN__LR", "LD_PRELOAD", "DIR_PATHS__ROOT")
    extra = {"REGISTRY__TRACKING_URI": "x"}
    ours = dict.fromkeys(names, "ours")
    seen = process.listed_environment(ours | dict.fromkeys(others, "no"), extra)
    assert seen == ours | extra


def _await_gone(pids: list[int]) -> None:
    """Until each process is no more, or only waits for somebody to read its end."""
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            deadline = time.monotonic() + 30
            while process.status() != psutil.STATUS_ZOMBIE:
                assert time.monotonic() < deadline
                time.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="a policy of Linux")
def test_it_and_all_that_it_starts_step_back(tmp_path: Path) -> None:
    # Its parent has a moment to put it where it belongs.
    program = f"import time; time.sleep(0.5)\n{POLICY}"
    ended = run(tmp_path, program)
    wanted = f"{os.SCHED_BATCH} {process.NICENESS}"
    assert ended.stdout.decode().splitlines() == [wanted, wanted]


def test_what_does_not_end_by_itself_is_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    ended = process.run(command, folder=tmp_path, environ={}, limit=0.1)
    assert ended.status == -signal.SIGTERM
