"""Floor 8: the one worker that runs beside the servers of a ROOT.

In: how to start a worker. Out: a worker process while there are jobs and a server. All
servers and commands of a ROOT share a lock, which the worker itself holds: so there is one
of it, whoever started it. It ends with the process that started it, puts its job back
first, and the next server starts another.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mindtrace.errors import StoreError
from mindtrace.jobs.dialects import locked

LOCK = "worker.lock"
CONFIG = "worker.ini"
_LOOK_EVERY = 1.0  # seconds
_LONGEST_PAUSE = 5.0  # seconds between two starts of a worker that dies at once
_STEADY = 20.0  # seconds after which a worker did not die at once
_LAST_WORDS = 40.0  # seconds a worker has to put its job back

log = logging.getLogger("mindtrace.jobs")
Command = Callable[[Path, int], Sequence[str]]


def beside_server(config: Path, lock: int) -> list[str]:
    """The command line of a worker beside a server, whose requests come first."""
    return [*_command(config, lock), "--gives-way"]


def beside_command(config: Path, lock: int) -> list[str]:
    """The same beside a command, which has the terminal to itself; warnings are told."""
    return [*_command(config, lock), "--quiet"]


def _command(config: Path, lock: int) -> list[str]:
    return [
        *(sys.executable, "-P", "-m", "mindtrace", "worker", "--config", str(config)),
        *("--lock-fd", str(lock)),
    ]


def hold_lock(root: Path) -> int | None:
    """The lock of a ROOT's worker, as a descriptor; None where a worker has it."""
    folder = root / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    if locked(descriptor):
        return descriptor
    os.close(descriptor)
    return None


class Runner:
    """Sees to it that a worker runs while jobs wait."""

    def __init__(
        self,
        root: Path,
        *,
        unfinished: Callable[[], bool],
        config: Callable[[], str],
        environ: Mapping[str, str],
        command: Command,
    ) -> None:
        """Prepare a runner; nothing runs yet.

        Args:
            root: whose worker.
            unfinished: whether there is something for a worker to do.
            config: the worker's configuration, INI text without passwords.
            environ: all that the worker sees.
            command: makes the worker's command line.
        """
        self._root = root
        self._unfinished = unfinished
        self._config = config
        self._environ = environ
        self._command = command
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._changing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._worker: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._pause = 0.0

    def start(self) -> None:
        """Look for jobs from now on, also for those that wait already."""
        with self._changing:
            if self._thread is None and not self._stopping.is_set():
                self._thread = threading.Thread(target=self._loop, name="jobs", daemon=True)
                self._thread.start()

    def wake(self) -> None:
        """Say that there is a job; it need not be waited for."""
        self._wake.set()
        self.start()

    def stop(self) -> None:
        """End the worker, which puts its job back; waits for it."""
        with self._changing:
            self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _loop(self) -> None:
        try:
            while not self._stopping.is_set():
                self._wake.clear()
                try:
                    if not self._runs() and self._unfinished():
                        self._begin()
                except (StoreError, OSError) as error:
                    log.warning("no worker can be started: %s", error)
                    self._pause = min(max(1.0, 2 * self._pause), _LONGEST_PAUSE)
                    self._stopping.wait(self._pause)
                self._wake.wait(_LOOK_EVERY)
        finally:
            self._end()

    def _runs(self) -> bool:
        if self._worker is None:
            return False
        status = self._worker.poll()
        if status is None:
            return True
        log.warning("the worker ended with status %s", status)
        _closed(self._worker)
        self._worker = None
        quick = time.monotonic() - self._started < _STEADY
        self._pause = min(max(1.0, 2 * self._pause), _LONGEST_PAUSE) if quick else 0.0
        self._stopping.wait(self._pause)
        return False

    def _begin(self) -> None:
        lock = hold_lock(self._root)
        if lock is None:
            return  # another server's worker takes the jobs
        try:
            folder = self._root / "jobs"
            config = folder / CONFIG
            config.write_text(self._config(), encoding="utf-8")
            self._worker = subprocess.Popen(
                self._command(config, lock),
                cwd=folder,
                env=dict(self._environ),
                stdin=subprocess.PIPE,  # ends when we do, however that is
                stdout=subprocess.DEVNULL,
                process_group=0,  # a Ctrl-C at the terminal is for us, who tell it
                pass_fds=(lock,),
            )
        finally:
            os.close(lock)
        self._started = time.monotonic()
        log.info("a worker begins, process %d", self._worker.pid)

    def _end(self) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            return
        worker.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(_LAST_WORDS)
        if worker.poll() is None:
            log.warning("the worker did not end, and is killed")
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        _closed(worker)


def _closed(worker: subprocess.Popen[bytes]) -> None:
    assert worker.stdin is not None
    worker.stdin.close()
