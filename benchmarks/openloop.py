"""An open loop: requests leave by the clock, whether or not the last ones were answered.

    python benchmarks/openloop.py URL BODIES --rate 1000 --seconds 10

A closed loop (wrk) waits for each answer before it asks again, so a server that stops for
a second delays only as many requests as there are connections, and the percentiles hide
it. Here every request has a moment at which it is due, and its latency counts from that
moment, waiting for a free connection included. `BODIES` is a file with one JSON body a
line.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from wire import Connection, Reply, post

# Timers of an event loop are a millisecond coarse; the rest is spent looking at the clock.
COARSE = 0.002


@dataclass(slots=True)
class Outcome:
    """One request of an open loop.

    Attributes:
        due: when it should have left, in seconds from the beginning.
        seconds: from then to its last byte.
        status: of HTTP; 0 where the connection broke.
        retry_after: the header's value.
        error: what broke the connection.
    """

    due: float
    seconds: float
    status: int
    retry_after: bytes | None
    error: str = ""


async def open_loop(
    url: str,
    requests: Sequence[bytes],
    *,
    rate: float,
    seconds: float,
    connections: int = 512,
    patience: float = 30.0,
    exact: bool = True,
) -> list[Outcome]:
    """Ask at a fixed rate; one outcome for each request, in the order of their answers.

    Args:
        url: of the server.
        requests: the bytes of whole requests, sent in turn.
        rate: requests a second.
        seconds: for how long they leave.
        connections: at most; who finds none free waits, and the wait counts.
        patience: seconds to wait for answers after the last request.
        exact: look at the clock without a pause before a request is due, which takes a core;
            else requests are up to two milliseconds late, and the server has that core.
    """
    return await _OpenLoop(url, requests, rate, connections, exact).run(seconds, patience)


class _OpenLoop:
    """The state of one run."""

    def __init__(
        self, url: str, requests: Sequence[bytes], rate: float, limit: int, exact: bool
    ) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        self.requests, self.rate, self.limit = requests, rate, limit
        self.pause = 0.0 if exact else COARSE
        self.outcomes: list[Outcome] = []
        self.idle: deque[Connection] = deque()
        self.all: list[Connection] = []
        self.waiting: deque[int] = deque()
        self.connected = 0
        self.began = 0.0
        self.tasks: set[asyncio.Task[None]] = set()

    async def run(self, seconds: float, patience: float) -> list[Outcome]:
        count = int(self.rate * seconds)
        try:
            # Connecting is no part of what is measured; more come where these are all busy.
            for _ in range(min(self.limit, 16)):
                self.idle.append(await self._connection())
                self.connected += 1
            self.began = time.perf_counter()
            for number in range(count):
                await self._until(number / self.rate)
                self._send(number)
            deadline = time.perf_counter() + patience
            while len(self.outcomes) < count and time.perf_counter() < deadline:
                await asyncio.sleep(0.01)
        finally:
            for connection in self.all:
                connection.close()
            await asyncio.sleep(0.05)
        lost = count - len(self.outcomes)
        return self.outcomes + [Outcome(seconds, patience, 0, None, "no answer")] * lost

    async def _until(self, due: float) -> None:
        while (left := self.began + due - time.perf_counter()) > 0:
            await asyncio.sleep(left - COARSE if left > COARSE else self.pause)
        if due and int(due * self.rate) % 16 == 0:
            await asyncio.sleep(0)  # late: answers must be read all the same

    def _send(self, number: int) -> None:
        while self.idle:
            connection = self.idle.popleft()
            if connection.open:
                self._ask(connection, number)
                return
            self.connected -= 1
        self.waiting.append(number)
        if self.connected < self.limit:
            self.connected += 1
            task = asyncio.ensure_future(self._connect())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _connection(self) -> Connection:
        connection = await Connection.to(self.host, self.port)
        self.all.append(connection)
        return connection

    async def _connect(self) -> None:
        try:
            connection = await self._connection()
        except OSError as error:
            self.connected -= 1
            if self.waiting:
                self._note(
                    self.waiting.popleft(), Reply(0, at=time.perf_counter(), error=repr(error))
                )
            return
        self._free(connection)

    def _ask(self, connection: Connection, number: int) -> None:
        future = connection.ask(self.requests[number % len(self.requests)])
        future.add_done_callback(lambda done: self._answered(connection, number, done.result()))

    def _answered(self, connection: Connection, number: int, reply: Reply) -> None:
        self._note(number, reply)
        self._free(connection)

    def _free(self, connection: Connection) -> None:
        if not connection.open:
            self.connected -= 1
            if self.waiting:
                self._send(self.waiting.popleft())
        elif self.waiting:
            self._ask(connection, self.waiting.popleft())
        else:
            self.idle.append(connection)

    def _note(self, number: int, reply: Reply) -> None:
        due = number / self.rate
        taken = reply.at - self.began - due
        again = reply.headers.get(b"retry-after")
        self.outcomes.append(Outcome(due, taken, reply.status, again, reply.error))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of them do not exceed; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Python's collector would stop the clock of every request for milliseconds."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def new_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop where it is installed: it costs the server's cores half as much."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def measure(
    url: str, requests: Sequence[bytes], rate: float, seconds: float, *, exact: bool = True
) -> list[Outcome]:
    """Run an open loop in an event loop of its own; see `open_loop`."""
    with no_collection(), asyncio.Runner(loop_factory=new_loop()) as runner:
        return runner.run(open_loop(url, requests, rate=rate, seconds=seconds, exact=exact))


def summary(outcomes: Sequence[Outcome], seconds: float) -> str:
    """One line: what was reached, statuses, percentiles of the answers with 200."""
    good = [outcome.seconds * 1000 for outcome in outcomes if outcome.status == 200]
    counts = ", ".join(
        f"{n} x {status}" for status, n in Counter(o.status for o in outcomes).items()
    )
    shares = ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (1.0, "max"))
    times = "  ".join(f"{name} {percentile(good, share):.2f}" for share, name in shares)
    return f"{len(good) / seconds:,.0f} answers/s ({counts})  ms: {times}"


def main() -> None:
    """Measure one server."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("bodies", type=Path)
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    words = parser.parse_args()
    bodies = [line for line in words.bodies.read_bytes().splitlines() if line]
    json.loads(bodies[0])
    requests = [post(words.url, body) for body in bodies]
    print(summary(measure(words.url, requests, words.rate, words.seconds), words.seconds))


if __name__ == "__main__":
    main()
