"""Load over raw sockets: closed loops here, the open loop of the benchmarks."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib.util
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from tests.endurance.servers import Server

T = TypeVar("T")


def _benchmarks(name: str) -> ModuleType:
    """A module of `benchmarks`, which is no package and on nobody's path."""
    path = Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


wire, openloop = _benchmarks("wire"), _benchmarks("openloop")
Connection, Reply, post = wire.Connection, wire.Reply, wire.post
percentile = openloop.percentile


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run it in an event loop of its own."""
    with asyncio.Runner(loop_factory=openloop.new_loop()) as runner:
        return runner.run(coroutine)


def inference(server: Server, image: bytes) -> bytes:
    """The request that asks about one image, as most clients send it."""
    body = json.dumps({"image": base64.b64encode(image).decode()})
    return bytes(post(f"{server.url}/inference", body.encode()))


def get(server: Server, path: str) -> bytes:
    """The request that asks for `path`."""
    return f"GET {path} HTTP/1.1\r\nhost: {server.host}:{server.port}\r\n\r\n".encode()


@dataclass(slots=True)
class Exchange:
    """One request of a closed loop; `began` is in seconds of `time.perf_counter`."""

    number: int
    began: float
    seconds: float  # to the last byte of the answer
    reply: Any
    local: tuple[str, int]  # our end of the connection


async def closed_loop(
    server: Server,
    requests: Iterator[tuple[int, bytes]],
    connections: int,
    *,
    pause: float = 0,
    over: Callable[[], bool] = lambda: False,
    seen: Callable[[Exchange], object] | None = None,
    timeout: float = 120,
) -> list[Exchange]:
    """Ask on so many connections, each waiting for its answer, until nothing is left to ask.

    A connection that breaks is made anew; its exchange has status 0. Each rests for `pause`
    seconds between two requests; `seen` hears of the exchanges instead of the list.
    """
    exchanges: list[Exchange] = []
    note = seen or exchanges.append

    async def client() -> None:
        connection = await _connected(server)
        try:
            for number, request in requests:
                if over():
                    break
                if not connection.open:
                    connection = await _connected(server)
                began = time.perf_counter()
                reply = await _answer(connection, request, timeout)
                note(Exchange(number, began, reply.at - began, reply, connection.local))
                if pause:
                    await asyncio.sleep(pause)
        finally:
            connection.close()

    try:
        async with asyncio.TaskGroup() as clients:
            for _ in range(connections):
                clients.create_task(client())
    finally:
        await asyncio.sleep(0.05)  # what was closed is gone when the loop ends
    return exchanges


async def _answer(connection: Any, request: bytes, timeout: float) -> Any:
    try:
        return await asyncio.wait_for(connection.ask(request), timeout)
    except TimeoutError:
        connection.close()
        return Reply(0, at=time.perf_counter(), error=f"no answer in {timeout} s")


async def _connected(server: Server) -> Any:
    """A connection; a server whose backlog is full for a moment is asked again."""
    for _ in range(50):
        try:
            return await Connection.to(server.host, server.port)
        except ConnectionError:
            await asyncio.sleep(0.1)
    return await Connection.to(server.host, server.port)


async def one(server: Server, request: bytes, timeout: float = 120) -> Exchange:
    """A single request on a connection of its own."""
    (exchange,) = await closed_loop(server, iter([(0, request)]), 1, timeout=timeout)
    return exchange


@contextlib.asynccontextmanager
async def beside(
    server: Server, requests: Sequence[bytes], connections: int = 8
) -> AsyncIterator[list[Exchange]]:
    """Ask these while inside; then the list has all that came back."""
    over, found = asyncio.Event(), list[Exchange]()
    load = asyncio.ensure_future(
        closed_loop(
            server, repeated(requests), connections, pause=0.02, over=over.is_set, seen=found.append
        )
    )
    try:
        yield found
    finally:
        over.set()
        await load


def repeated(requests: Sequence[bytes], count: int | None = None) -> Iterator[tuple[int, bytes]]:
    """So many of these in turn; endless without a count."""
    number = 0
    while count is None or number < count:
        yield number, requests[number % len(requests)]
        number += 1


def is_busy(reply: Any) -> bool:
    """Whether it is a 503 that says when to come again."""
    return reply.status == 503 and bytes(reply.headers.get(b"retry-after", b"")).isdigit()
