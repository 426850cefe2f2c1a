"""Floor 10: one worker of several, from both ends of the pipe between it and its parent.

In: signs of life, or why it cannot start. Out: whether it serves, hangs or has failed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from multiprocessing.connection import Connection
from typing import Any

from mindtrace import errors
from mindtrace.errors import MindtraceError

TICK = 1.0  # seconds between two signs of life
# Signs of life that may be missing in a row before a worker is taken for hung. Counted,
# not timed: a machine that slept must not kill whoever slept with it.
_MAY_MISS = 15


class Report:
    """A worker's line to its parent; never waits for it.

    Attributes:
        place: of the worker, from 0; one that replaces another takes its place.
    """

    def __init__(self, pipe: Connection, place: int) -> None:
        self.place = place
        self._pipe = pipe
        self._parent = os.getppid()
        os.set_blocking(pipe.fileno(), False)

    def alive(self) -> None:
        """Say that the worker serves; again and again."""
        with contextlib.suppress(OSError):
            os.write(self._pipe.fileno(), b".")

    def failed(self, error: MindtraceError) -> None:
        """Say why the worker cannot start."""
        told = {"type": type(error).__name__, "message": error.message, "hint": error.hint}
        with contextlib.suppress(OSError):
            os.write(self._pipe.fileno(), json.dumps(told).encode())

    @property
    def orphaned(self) -> bool:
        """Whether the parent is gone; nobody could stop the worker any more."""
        return os.getppid() != self._parent


class Child:
    """One worker, as its parent sees it.

    Attributes:
        process: of `multiprocessing`.
        pipe: what it reports through.
        place: among the workers.
        started: whether it has served.
    """

    def __init__(self, process: Any, pipe: Connection, place: int) -> None:
        self.process = process
        self.pipe = pipe
        self.place = place
        self.started = False
        self._told = b""
        self._missing = 0
        self._next = time.monotonic() + TICK
        os.set_blocking(pipe.fileno(), False)

    def listen(self) -> None:
        """Read what it has reported."""
        with contextlib.suppress(BlockingIOError):
            words = os.read(self.pipe.fileno(), 1 << 16)
            self._missing *= not words
            self.started = self.started or words.startswith(b".")
            if not self.started:
                self._told += words

    def hangs(self) -> bool:
        """Whether a worker that has served has given no sign of life for too long."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + TICK
            self._missing += self.started
        return self._missing > _MAY_MISS

    def failure(self, prefix: str = "") -> MindtraceError:
        """Why it could not start: the error that it met, with its own class."""
        if not self._told:
            how = ending(self.process.exitcode)
            return MindtraceError(f"{prefix or 'a worker could not start'}: it {how}")
        told = json.loads(self._told)
        kind = getattr(errors, told["type"], MindtraceError)
        # Its class has a constructor of its own; the parts that doors read are known.
        error: MindtraceError = kind.__new__(kind)
        message = f"{prefix}: {told['message']}" if prefix else told["message"]
        MindtraceError.__init__(error, message, hint=told["hint"])
        return error


def ending(code: int | None) -> str:
    """How a process ended, in words."""
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with code {code}"
