"""Floor 8: the process that trains: `mindtrace train` in a process group of its own.

In: a command, a folder and a listed environment. Out: the events that it writes to
stderr while it works, and how it ended. Nothing of it can hurt the process that waits:
it steps back behind others, it is told to stop by SIGTERM, and after a grace by SIGKILL to
the group. And it does not live longer than that process: its standard input is a pipe that
ends then.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindtrace.jobs.job import Request
from mindtrace.jobs.place import Place
from mindtrace.jobs.share import Share

GRACE = 20.0
NICENESS = 10

_LISTED = frozenset({"PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE"})
_PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"})
_LISTED_PREFIXES = ("LC_", "AWS_", "MLFLOW_TRACKING_", "CUDA_")
# How often the waiting side looks whether it should stop, in seconds.
_LOOK_EVERY = 0.1
_LONGEST_LINE = 1 << 20

log = logging.getLogger("mindtrace.jobs")
Event = Mapping[str, Any]


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        status: its exit status; a negative number is the signal that killed it.
        output: what it wrote to stdout.
        error: the `error` of the last document on stderr that had one, or None.
        stopped: whether it was told to stop.
        starved: whether it was killed because it gave way to others all the time.
    """

    status: int
    output: bytes
    error: Mapping[str, Any] | None
    stopped: bool
    starved: bool = False

    @property
    def result(self) -> Mapping[str, Any] | None:
        """The document in the last line of its output, or None."""
        return object_in(self.output.strip().rpartition(b"\n")[2]) or None


def train_command(
    config: Path, job_id: str, fence: int, request: Request, *, resume: bool
) -> list[str]:
    """The command line of a job's training.

    The interpreter is ours, and `-P` keeps the job's folder off the module path.
    """
    return [
        *(sys.executable, "-P", "-m", "mindtrace", "train", "--config", str(config), "--json"),
        *("--job-id", job_id, "--attempt", str(fence)),
        *(("--parent", request.parent) if request.parent else ()),
        *(("--warm-start",) if request.warm_start else ()),
        *(("--force",) if request.force else ()),
        *(("--resume", "last") if resume else ()),
    ]


def end_with_parent() -> None:
    """In a child: die, with all that it started, when the process that waits for it dies."""
    threading.Thread(target=_outlive_nobody, name="parent", daemon=True).start()


def _outlive_nobody() -> None:
    while os.read(0, 1024):  # standard input, which nobody writes to
        pass
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def listed_environment(
    environ: Mapping[str, str], extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """What a child may see of our environment, and `extra` above it."""
    seen = {
        name: value
        for name, value in environ.items()
        if name in _LISTED or name.upper() in _PROXIES or name.startswith(_LISTED_PREFIXES)
    }
    return {**seen, **(extra or {})}


def run(
    command: Sequence[str],
    *,
    folder: Path,
    environ: Mapping[str, str],
    on_event: Callable[[Event], None],
    stop: Callable[[], bool],
    on_line: Callable[[bytes], None] | None = None,
    place: Place | None = None,
    grace: float = GRACE,
    gives_way: bool = False,
) -> Ended:
    """Run a command to its end; blocks.

    Args:
        command: what to run.
        folder: its working directory.
        environ: all that it sees of ours.
        on_event: hears each document on stderr that has an `event`.
        stop: asked a few times a second; true sends SIGTERM.
        on_line: hears each line on stderr.
        place: is handed to the command.
        grace: seconds from SIGTERM to SIGKILL.
        gives_way: it computes only while nobody else wants to, and is killed where somebody
            always does; else it is merely nice.

    Raises:
        OSError: the command cannot be started.
    """
    # A file of this call alone: who was thought dead and woke may run the same at this moment.
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.PIPE,
            process_group=0,
            pass_fds=() if place is None else (place.lock,),
        )
        _step_back(process.pid, gives_way=gives_way)
        share = Share(process.pid) if gives_way else None
        with process, _Keeper(process, stop, grace, share) as keeper:
            if place is not None:
                place.hand_over(process.pid)
            error = _follow(process, on_event, on_line or _ignore)
        out.seek(0)
        return Ended(process.returncode, out.read(), error, keeper.told, keeper.starved)


def after(seconds: float) -> Callable[[], bool]:
    """A `stop` for what must come to an end by itself: true from so many seconds on."""
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() > deadline


def _step_back(pid: int, *, gives_way: bool) -> None:
    """Put a process that has just begun, and all that it starts, behind others.

    However nice a process is, a request that comes while it computes may wait for a tick of
    the scheduler. One that Linux counts as idle is stopped at once.
    """
    with contextlib.suppress(OSError):  # it may have ended already
        os.setpriority(os.PRIO_PGRP, pid, NICENESS)
        if gives_way and sys.platform == "linux":
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))


def _follow(
    process: subprocess.Popen[bytes],
    on_event: Callable[[Event], None],
    on_line: Callable[[bytes], None],
) -> Mapping[str, Any] | None:
    """Read stderr to its end; the error that the child reported, if it did."""
    error: Mapping[str, Any] | None = None
    assert process.stderr is not None
    while line := process.stderr.readline(_LONGEST_LINE):
        on_line(line)
        fields = object_in(line)
        if "event" in fields:
            on_event(fields)
        if isinstance(fields.get("error"), dict):
            error = fields["error"]
    return error


def _ignore(_: bytes) -> None:
    pass


class _Keeper:
    """Watches a child from a thread of its own, and sees to it that it ends.

    Attributes:
        told: whether the child was told to stop.
        starved: whether it was killed because others left it nothing.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        stop: Callable[[], bool],
        grace: float,
        share: Share | None,
    ) -> None:
        self.told = False
        self.starved = False
        self._share = share
        self._process = process
        self._stop = stop
        self._grace = grace
        self._abandoned = False
        self._thread = threading.Thread(target=self._keep, name="child", daemon=True)

    def __enter__(self) -> _Keeper:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Whoever reads its events has failed: nobody would hear of the child any more.
        self._abandoned = kind is not None
        self._thread.join()

    def _keep(self) -> None:
        kill_at = float("inf")
        while self._process.poll() is None:
            if not self.told and (self._abandoned or self._asked()):
                self.told = True
                kill_at = time.monotonic() + self._grace
                self._signal(signal.SIGTERM)
            if not self.told and self._share is not None and self._share.starves():
                self.starved = True
            if self.starved or time.monotonic() >= kill_at:
                self._signal(signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_LOOK_EVERY)
        # What it started and left behind would hold our pipe open.
        self._signal(signal.SIGKILL)

    def _asked(self) -> bool:
        try:
            return self._stop()
        except Exception:
            # Whoever cannot be asked cannot stop it later either.
            log.exception("a child that nobody watches is told to end")
            return True

    def _signal(self, signum: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signum)


def object_in(line: bytes) -> dict[str, Any]:
    """A line's JSON object; empty where it is none."""
    if not line.lstrip().startswith(b"{"):
        return {}
    try:
        fields = json.loads(line)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}
