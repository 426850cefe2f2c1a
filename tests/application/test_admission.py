"""What takes long waits its turn, or is told at once that it cannot."""

from __future__ import annotations

import asyncio
import io
import itertools
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from tests.application.conftest import Serve, png

from mindtrace.application.admission import Admission
from mindtrace.application.middleware import SHORT_BODY, BodyLimit
from mindtrace.application.problems import Problem
from mindtrace.config.settings import Settings, load_settings

PNG = {"content-type": "image/png"}
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


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, DEADLINE))


def test_so_many_work_so_many_wait_and_no_more() -> None:
    admission, gate = Admission(queue=3, timeout=DEADLINE, threads=2), Gate()

    async def test() -> None:
        tasks = [asyncio.create_task(admission.run(gate.work)) for _ in range(5)]
        await until(lambda: gate.begun == 2)
        assert (admission.depth, admission.full) == (3, True)
        with pytest.raises(Problem) as caught:
            await admission.run(gate.work)
        assert caught.value.status == 503
        assert caught.value.headers["Retry-After"] == "1"
        gate.open.set()
        assert await asyncio.gather(*tasks) == ["done"] * 5
        await until(lambda: admission.depth == 0 and not admission.full)

    run(test())
    assert gate.begun == 5
    admission.close()


def test_who_would_wait_too_long_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    admission, gate = Admission(queue=100, timeout=DEADLINE, threads=1), Gate()
    ticks = itertools.count(0, 10)  # every work takes ten seconds, by this clock
    monkeypatch.setattr(
        "mindtrace.application.admission.time", SimpleNamespace(perf_counter=lambda: next(ticks))
    )

    async def test() -> None:
        for _ in range(50):
            await admission.run(lambda _: None)
        tasks = []
        while not admission.full:
            tasks.append(asyncio.create_task(admission.run(gate.work)))
            await asyncio.sleep(0)
        assert admission.depth == 4  # 40 seconds of work before a deadline of 30
        with pytest.raises(Problem) as caught:
            await admission.run(gate.work)
        assert caught.value.status == 503
        gate.open.set()
        assert await asyncio.gather(*tasks) == ["done"] * 5

    run(test())
    admission.close()


def test_what_waited_too_long_is_never_begun() -> None:
    admission, gate = Admission(queue=8, timeout=0.05, threads=1), Gate()

    async def test() -> None:
        results = await asyncio.gather(
            *(admission.run(gate.work) for _ in range(4)), return_exceptions=True
        )
        assert [problem.status for problem in results] == [504] * 4  # type: ignore[union-attr]
        gate.open.set()
        await until(lambda: not admission._inside)

    run(test())
    assert gate.begun == 1  # the one that had a thread
    admission.close()


def test_a_thread_that_works_in_vain_is_not_free() -> None:
    admission, gate = Admission(queue=1, timeout=0.05, threads=1), Gate()

    async def test() -> None:
        for status in (504, 504, 504):
            with pytest.raises(Problem) as caught:
                await admission.run(gate.work)
            assert caught.value.status == status
            assert admission._inside == 1
        gate.open.set()
        await until(lambda: not admission._inside)

    run(test())
    admission.close()


def test_work_in_parts_hears_that_nobody_waits() -> None:
    admission = Admission(queue=1, timeout=0.05, threads=1)
    parts: list[int] = []

    def work(wanted: Callable[[], bool]) -> None:
        end = time.monotonic() + DEADLINE
        while wanted() and time.monotonic() < end:
            parts.append(1)
            time.sleep(0.01)

    async def test() -> None:
        with pytest.raises(Problem):
            await admission.run(work)
        await until(lambda: not admission._inside)

    run(test())
    assert len(parts) < 1000
    admission.close()


def test_what_work_raises_is_raised() -> None:
    admission = Admission(queue=1, timeout=DEADLINE, threads=1)

    def work(_: Any) -> None:
        raise ZeroDivisionError("mine")

    async def test() -> None:
        with pytest.raises(ZeroDivisionError):
            await admission.run(work)

    run(test())
    admission.close()


def slowly(gate: Gate) -> Callable[[Any], None]:
    """A change of an application: its model takes its time."""

    def change(application: Any) -> None:
        predictor = application.state.served.model.predictor
        predictor.__dict__["seconds"] = 0.05
        inner = predictor.run_one
        predictor.run_one = lambda pixels: (gate.work(None), inner(pixels))[1]

    return change


def test_a_slow_model_under_many_requests(tmp_path: Path, bundle: Path, serve: Serve) -> None:
    """Only 200 and 503: what was let in is answered, the rest hears it at once."""
    gate = Gate()
    sets = [f"DIR_PATHS.ROOT={tmp_path}", "serve.queue=4"]
    settings = load_settings(sets=sets, environ={})
    with serve(settings, str(bundle), change=slowly(gate)) as client:
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


def test_an_answer_that_takes_too_long_is_504(tmp_path: Path, bundle: Path, serve: Serve) -> None:
    gate = Gate()
    sets = [f"DIR_PATHS.ROOT={tmp_path}", "serve.request_timeout=0.1"]
    settings = load_settings(sets=sets, environ={})
    with serve(settings, str(bundle), change=slowly(gate)) as client:
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
    with ThreadPoolExecutor(1) as threads:
        one = threads.submit(
            httpx.post,
            url,
            content=buffer.getvalue(),
            headers={"content-type": "image/jpeg"},
            timeout=DEADLINE,
        )
        probes = 0
        while not one.done():
            assert client.get("/healthz/live").status_code == 200
            probes += 1
    assert one.result().status_code == 200
    assert probes >= 5


def test_long_bodies_share_what_memory_is_set_aside() -> None:
    parts = [b"x" * SHORT_BODY] * 3

    async def ask(limit: BodyLimit, go: asyncio.Event) -> int | None:
        left = list(parts)

        async def receive() -> Any:
            return {"type": "http.request", "body": left.pop(), "more_body": bool(left)}

        async def send(_: Any) -> None: ...

        limit.waiting = go  # type: ignore[attr-defined]
        try:
            await limit({"type": "http", "path": "/", "headers": []}, receive, send)
        except Problem as problem:
            return problem.status
        return None

    async def test() -> None:
        go = asyncio.Event()

        async def inner(_: Any, receive: Any, __: Any) -> None:
            while (await receive())["more_body"]:
                pass
            await go.wait()

        limit = BodyLimit(inner, default=8 * SHORT_BODY, by_path={})
        limit._budget = 5 * SHORT_BODY
        first = [asyncio.create_task(ask(limit, go)) for _ in range(2)]
        await until(lambda: limit.held == 4 * SHORT_BODY)
        assert await ask(limit, go) == 503  # a third would need two parts more
        assert limit.held == 4 * SHORT_BODY
        go.set()
        assert await asyncio.gather(*first) == [None, None]
        assert limit.held == 0

    run(test())


def test_settings_say_how_much_may_wait(module_settings: Settings) -> None:
    assert module_settings.serve.queue == 64
    assert module_settings.serve.request_timeout == 10
