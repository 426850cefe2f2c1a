"""Floor 10: several processes that accept on one socket, and who keeps them alive.

In: the work of one process, as a value, and how many are wanted. Out: nothing; `run`
returns when all have ended after a signal. Where the system can fork, workers share the
memory and the imports of their parent: the second costs a quarter of the first, and one
that was killed is replaced in a moment. The parent itself does no work, opens no store
and starts no thread.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any

from mindtrace.application import worker
from mindtrace.application.problems import log
from mindtrace.application.worker import Child, Report, ending
from mindtrace.errors import InterruptedByUser

# A second signal means "now"; sooner than this it is the first one that came twice.
SAME_WISH = 0.5  # seconds
_LONGEST_PAUSE = 10.0

_HEARD = (signal.SIGTERM, signal.SIGINT)

Work = Callable[[Report], None]


class Workers:
    """Keeps processes alive until a signal says to stop."""

    def __init__(
        self,
        work: Work,
        count: int,
        drain_timeout: float,
        *,
        start_method: str = "fork" if sys.platform == "linux" else "spawn",
    ) -> None:
        """Prepare; nothing runs yet.

        Args:
            work: what a worker does; it is pickled where processes are not forked.
            count: of workers.
            drain_timeout: seconds from a signal to the end of the last worker.
            start_method: of `multiprocessing`.
        """
        self._work = work
        self._count = count
        self._drain_timeout = drain_timeout
        self._context: Any = multiprocessing.get_context(start_method)
        self._children: list[Child] = []
        self._signals: list[tuple[int, float]] = []
        # Whether the first worker serves; whether all have served.
        self._serving = self._settled = False
        self._pause = 0.0
        self._not_before = 0.0

    def run(self, ready: Callable[[], object], stopping: Callable[[], object]) -> None:
        """Keep the workers alive.

        Args:
            ready: called once the first worker serves.
            stopping: called when a signal has come, before the workers hear of it.

        Raises:
            MindtraceError: a worker could not start.
            InterruptedByUser: a second signal cut the drain short.
        """
        # Objects of now are never garbage; marking them would copy their pages.
        gc.collect()
        gc.freeze()
        with self._heard() as wake:
            try:
                # The first one alone: what is wrong with it is wrong with all.
                self._start()
                while not self._signals:
                    self._watch(wake, ready)
                stopping()
                self._drain(wake)
            finally:
                for child in self._children:
                    child.process.kill()
                    child.process.join()

    def _start(self) -> None:
        pipe, theirs = self._context.Pipe(duplex=False)
        taken = {child.place for child in self._children}
        place = next(free for free in range(self._count) if free not in taken)
        process = self._context.Process(target=_run, args=(self._work, theirs, place))
        # Held back until the child has its own ears: with ours it would be deaf.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
        theirs.close()
        self._children.append(Child(process, pipe, place))

    def _watch(self, wake: int, ready: Callable[[], object]) -> None:
        """Wait for one thing to happen, and see to it."""
        sources: dict[Any, Child] = {}
        for child in self._children:
            sources |= {child.process.sentinel: child, child.pipe: child}
        happened = connection.wait([*sources, wake], worker.TICK)
        for child in {
            id(sources[one]): sources[one] for one in happened if one in sources
        }.values():
            child.listen()
            if not child.process.is_alive():
                self._ended(child)
        if not self._serving and self._children and self._children[0].started:
            self._serving = True
            ready()
        if self._serving and time.monotonic() >= self._not_before:
            while len(self._children) < self._count:
                self._start()
        if len(self._children) == self._count and all(child.started for child in self._children):
            self._settled, self._pause = True, 0.0
        for child in self._children:
            if child.hangs():
                log.error("worker %s hangs and is killed", child.process.pid)
                child.process.kill()
                child.process.join()

    def _ended(self, child: Child) -> None:
        """A worker that nobody stopped; another one takes its place."""
        self._children.remove(child)
        child.process.join()
        child.pipe.close()
        if not child.started and not (self._settled and self._children):
            raise child.failure("the workers could not start" if self._serving else "")
        how = ending(child.process.exitcode)
        log.error("worker %s %s; another one takes its place", child.process.pid, how)
        if not child.started:
            log.error("%s", child.failure().message)
            self._pause = min(_LONGEST_PAUSE, 2 * self._pause or 0.5)
            self._not_before = time.monotonic() + self._pause

    def _drain(self, wake: int) -> None:
        since = self._signals[0][1]
        for child in self._children:
            child.process.terminate()
        while alive := [child.process for child in self._children if child.process.is_alive()]:
            left = since + self._drain_timeout - time.monotonic()
            later = [signum for signum, at in self._signals if at > since + SAME_WISH]
            if later:
                raise InterruptedByUser(later[0])
            if left <= 0:
                log.error("%d workers did not end within %g s", len(alive), self._drain_timeout)
                return
            connection.wait([*(process.sentinel for process in alive), wake], left)
            _emptied(wake)

    @contextlib.contextmanager
    def _heard(self) -> Iterator[int]:
        """Signals wake `connection.wait` through the pipe that is given out."""
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        os.set_blocking(theirs, False)

        def hear(signum: int, _: object) -> None:
            self._signals.append((signum, time.monotonic()))
            with contextlib.suppress(BlockingIOError):
                os.write(theirs, b"!")

        on_main = threading.current_thread() is threading.main_thread()
        before = {signum: signal.signal(signum, hear) for signum in _HEARD if on_main}
        try:
            yield ours
        finally:
            for signum, action in before.items():
                signal.signal(signum, action)
            os.close(ours)
            os.close(theirs)


def _run(work: Work, pipe: Connection, place: int) -> None:
    """The whole life of a worker."""
    # Ctrl-C reaches every process of a terminal: the parent hears it and says what to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
    work(Report(pipe, place))


def _emptied(pipe: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(pipe, 1 << 10)
