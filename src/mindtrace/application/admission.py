"""The queue in front of work that takes long, and the threads that do it."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from mindtrace.application.problems import Problem

Result = TypeVar("Result")
# Whether the client still waits for the answer; long work asks before each of its parts.
Wanted = Callable[[], bool]
always: Wanted = lambda: True  # noqa: E731 - for work on the event loop, which is short
_WEIGHT = 0.1  # of the latest duration in the running mean


class Admission:
    """Accepts work that can be done in time, and refuses the rest at once."""

    def __init__(self, queue: int, timeout: float, threads: int) -> None:
        self._queue = queue
        self._timeout = timeout
        self._size = threads
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="inference")
        self._lock = threading.Lock()
        self._inside = 0
        self._seconds = 0.0  # running mean of how long work takes

    @property
    def depth(self) -> int:
        """How many wait for a thread."""
        return max(0, self._inside - self._size)

    @property
    def full(self) -> bool:
        """Whether the queue is full, or so long that a new request would time out."""
        wait = self.depth * self._seconds / self._size
        return self._inside >= self._size + self._queue or wait > self._timeout

    def require_free_place(self) -> None:
        """Refuse before the body is read, so that it need not be."""
        if self.full:
            raise overloaded()

    async def run(self, work: Callable[[Wanted], Result]) -> Result:
        """Do work in a thread, in the order of arrival; 503 if full, 504 if it takes too long."""
        self.require_free_place()
        over = threading.Event()
        with self._lock:
            self._inside += 1
        job = self._threads.submit(self._measured, work, lambda: not over.is_set())
        # Also after a timeout: a thread that still works is not free.
        job.add_done_callback(self._left)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(job), self._timeout)
        except TimeoutError as error:
            hint = "send fewer or smaller images"
            raise Problem(504, f"no answer within {self._timeout:g} s", hint=hint) from error
        finally:
            over.set()

    def close(self) -> None:
        """Start nothing more; running work ends by itself."""
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
    """The answer when too many requests wait."""
    detail = "too many requests wait already"
    return Problem(503, detail, headers={"Retry-After": "1"}, kind="overloaded")
