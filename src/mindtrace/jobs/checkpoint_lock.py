"""A lock on a job's folder of checkpoints, held by the process that trains there.

The system takes it back only when that process and all that it started are gone: no two
attempts ever write to one checkpoint or one MLflow run.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mindtrace.system import try_lock

_LOCK = ".lock"
_PATIENCE = 10.0  # seconds for a killed process to be gone
_POLL = 0.05


class CheckpointLock:
    """A folder of checkpoints that is ours until it is handed to a process."""

    def __init__(self, folder: Path, descriptor: int) -> None:
        self.folder = folder
        self.descriptor = descriptor  # whoever has it open holds the folder
        self._ours = True

    @property
    def has_checkpoint(self) -> bool:
        """Whether an earlier attempt came to the end of an epoch."""
        return any(self.folder.glob("*/last.ckpt"))

    def hand_over(self, pid: int) -> None:
        """Leave the lock to this process group, which inherited it."""
        os.pwrite(self.descriptor, str(pid).encode(), 0)
        self.close()

    def close(self) -> None:
        """Release the folder, unless it was handed over."""
        if self._ours:
            self._ours = False
            os.close(self.descriptor)


@contextmanager
def checkpoint_lock(checkpoints: Path, job_id: str, fence: int) -> Iterator[CheckpointLock]:
    """The folder that the attempts of a job share; what another one still runs there is killed.

    Where it cannot be, on another machine with the same disk, it is a folder of this attempt.
    """
    shared = checkpoints / "jobs" / job_id
    found = _lock(shared, job_id) or _lock(shared / f"attempt-{fence}", job_id)
    assert found is not None, "nobody else has this fence"
    try:
        yield found
    finally:
        found.close()


def _lock(folder: Path, job_id: str) -> CheckpointLock | None:
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + _PATIENCE
    while not try_lock(descriptor):
        if not _kill_holder(descriptor, job_id) or time.monotonic() > deadline:
            os.close(descriptor)
            return None
        time.sleep(_POLL)
    os.ftruncate(descriptor, 0)
    return CheckpointLock(folder, descriptor)


def _kill_holder(descriptor: int, job_id: str) -> bool:
    """Kill who holds the lock; False if that is no process of this machine and this job."""
    import psutil  # type: ignore[import-untyped]

    written = os.pread(descriptor, 32, 0)
    if not written:
        return True  # it has only just begun, and its number comes
    try:
        # By its command line: another machine, or container, has processes of its own.
        words = psutil.Process(int(written)).cmdline()
        if words and job_id not in words:
            return False
        if words:  # one that dies right now has none any more
            os.killpg(int(written), signal.SIGKILL)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return True  # gone, and the rest of its group with it in a moment
    except (psutil.AccessDenied, PermissionError):
        return False
    return True
