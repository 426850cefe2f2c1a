"""A child process, watched: its lines as they come, SIGTERM, SIGKILL, and its end with ours."""

from __future__ import annotations

import contextlib
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

from mindtrace.jobs.job import json_object

GRACE = 20.0  # seconds from SIGTERM to SIGKILL
NICENESS = 10
_LISTED = frozenset({"PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE"})
_PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"})
_LISTED_PREFIXES = ("LC_", "AWS_", "MLFLOW_TRACKING_", "CUDA_")
_POLL = 0.1  # seconds
_LONGEST_LINE = 1 << 20


@dataclass(frozen=True)
class Ended:
    """How a child ended; a negative status is the signal that killed it."""

    status: int
    output: bytes
    error: Mapping[str, Any] | None  # of the last document on stderr that had one
    stopped: bool  # it was told to stop

    @property
    def result(self) -> Mapping[str, Any] | None:
        """The JSON object in the last line of its output, or None."""
        return json_object(self.output.strip().rpartition(b"\n")[2]) or None


def end_with_parent() -> None:
    """In a child: die, with all that it started, when the process that waits for it dies."""
    threading.Thread(target=_await_parent, name="parent", daemon=True).start()


def _await_parent() -> None:
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


class Watchdog:
    """Runs a command in a process group of its own and sees to it that the group ends.

    Its standard input is a pipe that ends when we do, however that is. The output goes into
    a file of this call alone, the lines on stderr wait until they are taken.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        environ: Mapping[str, str],
        stop: Callable[[], bool] = lambda: False,
        grace: float = GRACE,
        gives_way: bool = False,
        lock: int | None = None,
    ) -> None:
        """Start the command; OSError.

        `stop` is asked ten times a second, and true sends SIGTERM; `lock` is a descriptor that
        the child inherits; `gives_way` computes behind whoever answers requests.
        """
        self._stop = stop
        self._grace = grace
        self._told = False
        self._lines: list[bytes] = []
        self._error: Mapping[str, Any] | None = None
        self._out = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        try:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=dict(environ),
                stdin=subprocess.PIPE,
                stdout=self._out,
                stderr=subprocess.PIPE,
                process_group=0,
                pass_fds=() if lock is None else (lock,),
            )
        except OSError:
            self._out.close()
            raise
        _step_back(self.process.pid, gives_way=gives_way)
        self._threads = [
            threading.Thread(target=target, name="child", daemon=True)
            for target in (self._read, self._watch)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(self, *_: object) -> None:
        # Whoever watches it has failed, or it has ended already.
        self._stop = lambda: True
        self.wait()
        self._out.close()

    def take(self) -> list[bytes]:
        """The lines on stderr since this was last asked."""
        count = len(self._lines)  # another thread adds to them
        taken = self._lines[:count]
        del self._lines[:count]
        return taken

    def wait(self, timeout: float | None = None) -> Ended | None:
        """How it ended, its stderr read to the end; None if it has not within `timeout`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            thread.join(left)
            if thread.is_alive():
                return None
        if self._out.closed:
            return None
        self._out.seek(0)
        return Ended(self.process.returncode, self._out.read(), self._error, self._told)

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stderr:
            while line := stderr.readline(_LONGEST_LINE):
                self._lines.append(line)
                error = json_object(line).get("error")
                if isinstance(error, dict):
                    self._error = error

    def _watch(self) -> None:
        kill_at = float("inf")
        while self.process.poll() is None:
            if not self._told and self._stop():
                self._told = True
                kill_at = time.monotonic() + self._grace
                self._signal(signal.SIGTERM)
            if time.monotonic() >= kill_at:
                self._signal(signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_POLL)
        # What it started and left behind would hold our pipe open.
        self._signal(signal.SIGKILL)
        assert self.process.stdin is not None
        self.process.stdin.close()

    def _signal(self, signum: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signum)


def run(
    command: Sequence[str],
    *,
    folder: Path,
    environ: Mapping[str, str],
    limit: float,
    gives_way: bool = False,
) -> Ended:
    """Run a command to its end, told to stop after `limit` seconds; OSError."""
    deadline = time.monotonic() + limit
    with Watchdog(
        command,
        folder=folder,
        environ=environ,
        stop=lambda: time.monotonic() > deadline,
        gives_way=gives_way,
    ) as child:
        ended = child.wait()
    assert ended is not None
    return ended


def _step_back(pid: int, *, gives_way: bool) -> None:
    """Put a process that has just begun, and all that it starts, behind others."""
    with contextlib.suppress(OSError):  # it may have ended already
        os.setpriority(os.PRIO_PGRP, pid, NICENESS)
        if gives_way and sys.platform == "linux":
            os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))
