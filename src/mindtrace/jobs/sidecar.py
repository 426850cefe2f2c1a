"""The one worker beside the servers of a ROOT while there are jobs; it holds the ROOT's lock."""

import contextlib
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mindtrace.errors import StoreError
from mindtrace.system import own_command, try_lock

_LOCK = "worker.lock"
_CONFIG = "worker.ini"
_POLL = 1.0  # seconds
_PAUSE = 3.0  # seconds after a worker that died at once or could not start
_STEADY = 20.0  # seconds after which a worker did not die at once
_LAST_SECONDS = 40.0  # for a worker to put its job back

log = logging.getLogger("mindtrace.jobs")


def worker_command(config: Path, lock: int, *, serving: bool) -> list[str]:
    """The command line of a worker; one that no server started is quiet."""
    quiet = () if serving else ("--quiet",)
    return own_command("worker", "--config", str(config), "--lock-fd", str(lock), *quiet)


def hold_lock(root: Path) -> int | None:
    """The lock of a ROOT's worker, as a descriptor; None if another worker has it."""
    folder = root / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    if try_lock(descriptor):
        return descriptor
    os.close(descriptor)
    return None


@dataclass(eq=False)
class WorkerSidecar:
    """Keeps a worker running while there are jobs, once it is started."""

    root: Path
    unfinished: Callable[[], bool]
    config: Callable[[], str]  # INI text without passwords, which `environ` has
    environ: Mapping[str, str]
    serving: bool

    def __post_init__(self) -> None:
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Check for jobs from now on."""
        if self._thread is None and not self._stopping.is_set():
            self._thread = threading.Thread(target=self._loop, name="jobs", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Check for jobs now, if started."""
        self._wake.set()

    def stop(self) -> None:
        """End the worker, which puts its job back; waits for it."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _loop(self) -> None:
        away = False
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                # Without the lock another server's worker takes the jobs.
                if self.unfinished() and (lock := hold_lock(self.root)) is not None:
                    self._attend(lock)
                away = False
            except (StoreError, OSError) as error:
                if not away:
                    log.warning("no worker can be started: %s", error)
                away = True
                self._stopping.wait(_PAUSE)
            self._wake.wait(_POLL)

    def _attend(self, lock: int) -> None:
        """Run a worker to its end or to ours."""
        config = self.root / "jobs" / _CONFIG
        started = time.monotonic()
        try:
            config.write_text(self.config(), encoding="utf-8")
            worker = subprocess.Popen(
                worker_command(config, lock, serving=self.serving),
                cwd=config.parent,
                env=dict(self.environ),
                stdin=subprocess.PIPE,  # closes when we die
                stdout=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C at the terminal reaches us only; we pass it on
                pass_fds=(lock,),
            )
        finally:
            os.close(lock)
        log.info("a worker begins, process %d", worker.pid)
        with worker:
            while worker.poll() is None and not self._stopping.wait(_POLL):
                pass
            if worker.poll() is not None:
                log.warning("the worker ended with status %s", worker.returncode)
                if time.monotonic() - started < _STEADY:
                    self._stopping.wait(_PAUSE)
                return
            worker.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(_LAST_SECONDS)
            if worker.poll() is None:
                log.warning("the worker did not end, and is killed")
                os.killpg(worker.pid, signal.SIGKILL)
