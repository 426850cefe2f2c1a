"""Floor 8: where a job trains, and that nobody else trains there.

In: a job's folder of checkpoints. Out: the folder with a lock on it, to be handed to the
process that trains. The system takes the lock back only when that process and all that it
started are gone. So no two attempts ever write to one checkpoint or one MLflow run, and
whatever an attempt did is done when the next one looks.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mindtrace.jobs.dialects import locked

_LOCK = ".lock"
_PATIENCE = 10.0  # seconds for a killed process to be gone
_LOOK_EVERY = 0.05


class Place:
    """A folder of checkpoints that is ours, until it is handed to a process.

    Attributes:
        folder: where `train` shall keep them.
        lock: a descriptor; whoever has it open holds the folder.
    """

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder = folder
        self.lock = lock
        self._ours = True

    @property
    def has_checkpoint(self) -> bool:
        """Whether an earlier attempt came to the end of an epoch."""
        return any(self.folder.glob("*/last.ckpt"))

    def hand_over(self, pid: int) -> None:
        """The lock is this process group's now, which inherited it, and not ours."""
        os.pwrite(self.lock, str(pid).encode(), 0)
        self.close()

    def close(self) -> None:
        """Let go of the folder, unless somebody else has it by now."""
        if self._ours:
            self._ours = False
            os.close(self.lock)


@contextmanager
def claimed(checkpoints: Path, job_id: str, fence: int) -> Iterator[Place]:
    """The job's folder, shared by its attempts; what another one still runs there is ended.

    Where it cannot be ended, on another machine with the same disk, it is a new folder.
    """
    shared = checkpoints / "jobs" / job_id
    place = _taken(shared, job_id) or _taken(shared / f"attempt-{fence}", job_id)
    assert place is not None, "nobody else has this fence"
    try:
        yield place
    finally:
        place.close()


def _taken(folder: Path, job_id: str) -> Place | None:
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + _PATIENCE
    while not locked(lock):
        if not _end(lock, job_id) or time.monotonic() > deadline:
            os.close(lock)
            return None
        time.sleep(_LOOK_EVERY)
    os.ftruncate(lock, 0)
    return Place(folder, lock)


def _end(lock: int, job_id: str) -> bool:
    """Kill who holds the lock; False if that is nobody of this machine and this job."""
    import psutil  # type: ignore[import-untyped]

    written = os.pread(lock, 32, 0)
    if not written:
        return True  # it has only just begun, and its name comes
    try:
        # By its words: another machine, or another container, has processes of its own.
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
