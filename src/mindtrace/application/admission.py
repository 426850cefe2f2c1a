"""The queue in front of work that takes long, and the threads that do it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from mindtrace.application.problems import Problem

Result = TypeVar("Result")
# Whether the answer is still waited for; asked by work that has parts, before each.
Wanted = Callable[[], bool]
always: Wanted = lambda: True  # noqa: E731 - of work that is done at once
_WEIGHT = 0.1  # of the latest work in the running mean of what work takes


class Admission:
    """Lets in as much as can be answered soon."""

    def __init__(self, queue: int, timeout: float, threads: int) -> None:
        self._queue = queue
        self._timeout = timeout
        self._size = threads
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="inference")
        self._lock = threading.Lock()
        self._inside = 0
        self._seconds = 0.0  # that work takes, a running mean

    @property
    def depth(self) -> int:
        """How many wait for a thread."""
        return max(0, self._inside - self._size)

    @property
    def full(self) -> bool:
        """Whether nobody more may wait: no place, or its turn would come too late."""
        wait = self.depth * self._seconds / self._size
        return self._inside >= self._size + self._queue or wait > self._timeout

    def require_free_place(self) -> None:
        """Ask before a body is read, so that it need not be."""
        if self.full:
            raise overloaded()

    async def run(self, work: Callable[[Wanted], Result]) -> Result:
        """Do work in a thread when its turn has come; it is given what to ask between its parts."""
        self.require_free_place()
        over = threading.Event()
        with self._lock:
            self._inside += 1
        job = self._threads.submit(self._measured, work, lambda: not over.is_set())
        # Also when it was given up: a thread that still works at it is not free.
        job.add_done_callback(self._left)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(job), self._timeout)
        except TimeoutError as error:
            raise Problem(
                504, f"no answer within {self._timeout:g} s", hint="send fewer or smaller images"
            ) from error
        finally:
            over.set()

    def close(self) -> None:
        """Begin nothing more; what runs comes to its end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _measured(self, work: Callable[[Wanted], Result], wanted: Wanted) -> Result:
        start = time.perf_counter()
        try:
            return work(wanted)
        finally:
            self._seconds += _WEIGHT * (time.perf_counter() - start - self._seconds)

    def _left(self, _: Future[Any]) -> None:
        with self._lock:
            self._inside -= 1


def overloaded() -> Problem:
    """The answer to one request too many."""
    return Problem(
        503, "too many requests wait already", headers={"Retry-After": "1"}, kind="overloaded"
    )
