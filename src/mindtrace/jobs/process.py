"""Child processes: watched, stopped, killed with their group; the lock on a job's checkpoints."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from mindtrace.system import ChildResult, last_json, try_lock

GRACE = 20.0  # seconds from SIGTERM to SIGKILL
NICENESS = 10
_CACHES = ("XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "TORCH_HOME")  # pretrained weights
_LISTED = frozenset({"PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE", *_CACHES})
_PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"})
_LISTED_PREFIXES = ("LC_", "AWS_", "MLFLOW_TRACKING_", "CUDA_")
_POLL = 0.1  # seconds
_LONGEST_LINE = 1 << 20
_LOCK_PATIENCE = 10.0  # seconds for a killed process to be gone
_LOCK_POLL = 0.05


def when_parent_ends(act: Callable[[], object]) -> None:
    """In a child: act, in a thread, when the parent dies or closes our standard input."""

    def await_parent() -> None:
        while os.read(0, 1024):  # nobody writes to it
            pass
        act()

    threading.Thread(target=await_parent, name="parent", daemon=True).start()


def die() -> None:
    """End this process with all that it started."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def listed_environment(environ: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    """The variables of our environment that a child may see, and `extra` over them."""
    seen = {
        name: value
        for name, value in environ.items()
        if name in _LISTED or name.upper() in _PROXIES or name.startswith(_LISTED_PREFIXES)
    }
    return {**seen, **extra}


class Watchdog:
    """Runs a command, at low priority, in a process group of its own that ends with it."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        environ: Mapping[str, str],
        stop: Callable[[], bool] = lambda: False,
        grace: float = GRACE,
        lock: int | None = None,
    ) -> None:
        """Start the command (OSError); `stop` is asked ten times a second, `lock` is inherited."""
        self._stop = stop
        self._grace = grace
        self._lines: list[bytes] = []
        self._error = b""  # the last line that reported one
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
        with contextlib.suppress(OSError):  # it may have ended already
            os.setpriority(os.PRIO_PGRP, self.process.pid, NICENESS)
            if sys.platform == "linux":
                os.sched_setscheduler(self.process.pid, os.SCHED_BATCH, os.sched_param(0))
        self._reader = threading.Thread(target=self._read, name="child", daemon=True)
        self._watcher = threading.Thread(target=self._watch, name="child", daemon=True)
        self._reader.start()
        self._watcher.start()

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = lambda: True  # where the block failed, the child still runs
        self.wait()
        self._out.close()

    def take(self) -> list[bytes]:
        """The lines on stderr since the last call."""
        count = len(self._lines)  # another thread adds to them
        taken = self._lines[:count]
        del self._lines[:count]
        return taken

    def wait(self, timeout: float | None = None) -> ChildResult | None:
        """How it ended (a negative status is a signal), stderr read whole; None after `timeout`."""
        self._watcher.join(timeout)
        if self._watcher.is_alive():
            return None
        self._out.seek(0)
        return ChildResult(self.process.returncode, self._out.read(), self._error)

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stderr:
            while line := stderr.readline(_LONGEST_LINE):
                self._lines.append(line)
                if isinstance(last_json(line).get("error"), dict):
                    self._error = line

    def _watch(self) -> None:
        kill_at = None
        while self.process.poll() is None:
            if kill_at is None and self._stop():
                kill_at = time.monotonic() + self._grace
                self._signal(signal.SIGTERM)
            if kill_at is not None and time.monotonic() >= kill_at:
                self._signal(signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_POLL)
        # Processes that it left behind would hold our pipe open.
        self._signal(signal.SIGKILL)
        assert self.process.stdin is not None
        self.process.stdin.close()
        self._reader.join()

    def _signal(self, signum: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signum)


def run(
    command: Sequence[str], *, folder: Path, environ: Mapping[str, str], limit: float
) -> ChildResult:
    """Run a command to its end, stopped after `limit` seconds; OSError."""
    deadline = time.monotonic() + limit
    with Watchdog(
        command, folder=folder, environ=environ, stop=lambda: time.monotonic() > deadline
    ) as child:
        ended = child.wait()
    assert ended is not None
    return ended


@contextlib.contextmanager
def checkpoint_lock(checkpoints: Path, job_id: str, fence: int) -> Iterator[tuple[Path, IO[bytes]]]:
    """Lock the folder that a job's attempts share; a process that still trains there is killed."""
    # One of another machine cannot be killed: then the folder is this attempt's alone. The child
    # inherits the lock, so it is free when the child and all that it started are gone.
    folder = checkpoints / "jobs" / job_id
    for place in (folder, folder / f"attempt-{fence}"):
        place.mkdir(parents=True, exist_ok=True)
        with (place / ".lock").open("ab+", buffering=0) as file:
            if _locked(file.fileno(), job_id):
                file.truncate(0)
                yield place, file
                return
    raise AssertionError("a fence belongs to one attempt")


def _locked(descriptor: int, job_id: str) -> bool:
    deadline = time.monotonic() + _LOCK_PATIENCE
    while not try_lock(descriptor):
        if not _kill_holder(descriptor, job_id) or time.monotonic() > deadline:
            return False
        time.sleep(_LOCK_POLL)
    return True


def _kill_holder(descriptor: int, job_id: str) -> bool:
    """Kill the process that holds a lock; False unless it is of this machine and this job."""
    import psutil  # type: ignore[import-untyped]

    written = os.pread(descriptor, 32, 0)
    if not written:
        return True  # it has just started, and has not written its number yet
    try:
        # By its command line: another machine, or container, has processes of its own.
        words = psutil.Process(int(written)).cmdline()
        if words and job_id not in words:
            return False
        if words:  # a dying process has none any more
            os.killpg(int(written), signal.SIGKILL)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return True  # gone, and soon the rest of its group
    except (psutil.AccessDenied, PermissionError):
        return False
    return True
