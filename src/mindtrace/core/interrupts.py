"""SIGINT and SIGTERM as errors that arrive where they do no harm.

In: a signal, at any moment. Out: `InterruptedByUser`, at once in most code, and
between two steps in code that asked to be left whole.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mindtrace.errors import InterruptedByUser

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Whether somebody wants this work to stop."""

    def __init__(self) -> None:
        self._signum: int | None = None
        self._deferred = False

    def wanted(self) -> InterruptedByUser | None:
        """The error to raise, or None to go on."""
        return None if self._signum is None else InterruptedByUser(self._signum)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A block that is as good as done: one signal is ignored, the second insists."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A block that looks at `wanted` itself; what it overlooked is raised at its end."""
        with self.held():
            yield
        error = self.wanted()
        if error is not None:
            raise error

    def _heard(self, signum: int, frame: FrameType | None) -> None:
        insists = self._signum is not None
        self._signum = signum
        if insists or not self._deferred:
            raise InterruptedByUser(signum)


@contextmanager
def interruptible() -> Iterator[Interrupts]:
    """Turn the two signals into errors while the block runs.

    Outside the main thread Python delivers no signals, and nothing is changed.
    """
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = {signum: signal.signal(signum, interrupts._heard) for signum in _SIGNALS}
    try:
        yield interrupts
    finally:
        for signum, old in before.items():
            signal.signal(signum, old)
