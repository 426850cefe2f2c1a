"""What takes long waits its turn, or is told at once that it cannot."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from tests.application.conftest import PNG, Serve, png

from mindtrace.application import middleware
from mindtrace.application.admission import Admission
from mindtrace.application.middleware import SHORT_BODY, BodyLimit
from mindtrace.application.problems import Problem

DEADLINE = 30  # seconds that a test waits for what must come


async def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.005)


class Gate:
    """Work that goes on until it is let go; knows how often it was begun."""

    def __init__(self) -> None:
        self.begun = 0
        self.open = threading.Event()

    def work(self, _: Any) -> str:
        self.begun += 1
        assert self.open.wait(DEADLINE)
        return "done"


@contextlib.contextmanager
def admitting(queue: int, timeout: float = DEADLINE, threads: int = 1) -> Iterator[Admission]:
    """An admission; at the end nothing may be inside."""
    admission = Admission(queue, timeout, threads)
    yield admission
    asyncio.run(until(lambda: not admission._inside))
    admission.close()


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, DEADLINE))


async def refused(admission: Admission, work: Callable[[Any], Any], status: int) -> Problem:
    with pytest.raises(Problem) as caught:
        await admission.run(work)
    assert caught.value.status == status
    return caught.value


def test_so_many_work_so_many_wait_and_no_more() -> None:
    gate = Gate()

    async def test(admission: Admission) -> None:
        tasks = [asyncio.create_task(admission.run(gate.work)) for _ in range(5)]
        await until(lambda: gate.begun == 2)
        assert (admission.depth, admission.full) == (3, True)
        assert (await refused(admission, gate.work, 503)).headers["Retry-After"] == "1"
        gate.open.set()
        assert await asyncio.gather(*tasks) == ["done"] * 5
        await until(lambda: admission.depth == 0 and not admission.full)

    with admitting(queue=3, threads=2) as admission:
        run(test(admission))
    assert gate.begun == 5


def test_who_would_wait_too_long_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    ticks = itertools.count(0, 10)  # every work takes ten seconds, by this clock
    clock = SimpleNamespace(perf_counter=lambda: next(ticks))
    monkeypatch.setattr("mindtrace.application.admission.time", clock)

    async def test(admission: Admission) -> None:
        for _ in range(50):
            await admission.run(lambda _: None)
        tasks = []
        while not admission.full:
            tasks.append(asyncio.create_task(admission.run(gate.work)))
            await asyncio.sleep(0)
        assert admission.depth == 4  # 40 seconds of work before a deadline of 30
        await refused(admission, gate.work, 503)
        gate.open.set()
        assert await asyncio.gather(*tasks) == ["done"] * 5

    with admitting(queue=100) as admission:
        run(test(admission))


def test_what_waited_too_long_is_never_begun() -> None:
    gate = Gate()

    async def test(admission: Admission) -> None:
        await asyncio.gather(*(refused(admission, gate.work, 504) for _ in range(4)))
        gate.open.set()

    with admitting(queue=8, timeout=0.05) as admission:
        run(test(admission))
    assert gate.begun == 1  # the one that had a thread


def test_a_thread_that_works_in_vain_is_not_free() -> None:
    gate = Gate()

    async def test(admission: Admission) -> None:
        for _ in range(3):
            await refused(admission, gate.work, 504)
            assert admission._inside == 1
        gate.open.set()

    with admitting(queue=1, timeout=0.05) as admission:
        run(test(admission))


def test_work_in_parts_hears_that_nobody_waits() -> None:
    parts: list[int] = []

    def work(wanted: Callable[[], bool]) -> None:
        end = time.monotonic() + DEADLINE
        while wanted() and time.monotonic() < end:
            parts.append(1)
            time.sleep(0.01)

    with admitting(queue=1, timeout=0.05) as admission:
        asyncio.run(refused(admission, work, 504))
    assert len(parts) < 1000


def test_what_work_raises_is_raised() -> None:
    with admitting(queue=1) as admission, pytest.raises(ZeroDivisionError):
        asyncio.run(admission.run(lambda _: 1 // 0))


def slowly(gate: Gate) -> Callable[[Any], None]:
    """A change of an application: its model takes its time."""

    def change(application: Any) -> None:
        predictor = application.state.served.model.predictor
        predictor.__dict__["seconds"] = 0.05
        inner = predictor.run
        predictor.run = lambda pixels: (gate.work(None), inner(pixels))[1]

    return change


def test_a_slow_model_under_many_requests(start: Serve) -> None:
    """Only 200 and 503: what was let in is answered, the rest hears it at once."""
    gate = Gate()
    with start("serve.queue=4", change=slowly(gate)) as client:
        url = str(client.base_url.join("/inference"))
        with ThreadPoolExecutor(24) as threads:
            asked = [
                threads.submit(httpx.post, url, content=png(9), headers=PNG, timeout=DEADLINE)
                for _ in range(24)
            ]
            end = time.monotonic() + DEADLINE
            while sum(one.done() for one in asked) < 24 - 4 - 2 and time.monotonic() < end:
                time.sleep(0.01)
            early = [one.result() for one in asked if one.done()]
            assert client.get("/healthz/live").status_code == 200
            text = client.get("/metrics").text
            gate.open.set()
            statuses = sorted(one.result().status_code for one in asked)
    assert {answer.status_code for answer in early} == {503}
    assert all(answer.headers["retry-after"] == "1" for answer in early)
    assert "mindtrace_queue_depth 4.0" in text
    good = statuses.count(200)
    assert 5 <= good <= 6  # one thread or two
    assert statuses == [200] * good + [503] * (24 - good)


def test_an_answer_that_takes_too_long_is_504(start: Serve) -> None:
    gate = Gate()
    with start("serve.request_timeout=0.1", change=slowly(gate)) as client:
        answer = client.post("/inference", content=png(9), headers=PNG)
        gate.open.set()
    assert answer.status_code == 504
    assert answer.json()["title"] == "Gateway Timeout"


def test_a_large_image_does_not_hold_up_the_others(client: httpx.Client) -> None:
    """While it is decoded, the loop answers: many probes fit into one large decoding."""
    buffer = io.BytesIO()
    draw = np.random.default_rng(0).integers(0, 256, (500, 500, 3), np.uint8)
    Image.fromarray(draw).resize((4900, 4900)).save(buffer, "JPEG", quality=50)
    url = str(client.base_url.join("/inference"))
    headers = {"content-type": "image/jpeg"}
    with ThreadPoolExecutor(1) as threads:
        one = threads.submit(
            httpx.post, url, content=buffer.getvalue(), headers=headers, timeout=DEADLINE
        )
        probes = 0
        while not one.done():
            assert client.get("/healthz/live").status_code == 200
            probes += 1
    assert one.result().status_code == 200
    assert probes >= 5


def test_long_bodies_share_what_memory_is_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    go = asyncio.Event()

    async def inner(_: Any, receive: Any, __: Any) -> None:
        while (await receive())["more_body"]:
            pass
        await go.wait()

    monkeypatch.setattr(middleware, "LONG_BODIES", 5 * SHORT_BODY)
    limit = BodyLimit(inner, default=4 * SHORT_BODY, by_path={})

    async def ask() -> int | None:
        left = [b"x" * SHORT_BODY] * 3

        async def receive() -> Any:
            return {"type": "http.request", "body": left.pop(), "more_body": bool(left)}

        async def send(_: Any) -> None: ...

        try:
            await limit({"type": "http", "path": "/", "headers": []}, receive, send)
        except Problem as problem:
            return problem.status
        return None

    async def test() -> None:
        first = [asyncio.create_task(ask()) for _ in range(2)]
        await until(lambda: limit.held == 4 * SHORT_BODY)
        assert await ask() == 503  # a third would need two parts more
        assert limit.held == 4 * SHORT_BODY
        go.set()
        assert await asyncio.gather(*first) == [None, None]
        assert limit.held == 0

    run(test())
