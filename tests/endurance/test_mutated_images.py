"""Damaged, hostile and tedious image files: an answer each, soon, and no worker the worse."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.endurance import images, loads
from tests.endurance.loads import Exchange
from tests.endurance.models import GREY, pngs
from tests.endurance.servers import Peak, Server, serving

pytestmark = [pytest.mark.slow, pytest.mark.proof]

COUNT = 5_000  # of each `soak`
SOON = 2.0  # seconds
REQUEST_TIMEOUT = 10.0  # seconds; the server's default
TYPES = ("image/png", "image/jpeg", "image/webp")


@pytest.fixture(scope="module")
def server(mlp_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("images")
    with serving(folder, "--model", str(mlp_bundle), workers=2) as server:
        yield server


def requests(server: Server, files: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """Each file by one of the ways there are; two of four are the usual one."""
    for number, data in enumerate(files):
        if number % 4 < 2:
            yield number, loads.inference(server, data)
        elif number % 4 == 2:
            kind = TYPES[number // 4 % 3]
            yield number, loads.post(f"{server.url}/inference", data, kind)
        else:
            body = json.dumps({"images": [base64.b64encode(data).decode()] * 2}).encode()
            yield number, loads.post(f"{server.url}/inference", body)


def is_answer(reply: Any) -> bool:
    """Whether it is an answer that a client can live with."""
    if reply.status == 200:
        said = json.loads(reply.body)
        found = said.get("items", [said])
        return all("error" in one or abs(sum(one["probabilities"]) - 1) < 1e-4 for one in found)
    if reply.status == 503:
        return loads.is_busy(reply)
    return reply.status in (400, 413, 415, 422) and json.loads(reply.body)["status"] > 0


def test_mutated_images(server: Server, soak: int, strict: bool) -> None:
    workers = server.workers()
    statuses: Counter[int] = Counter()
    faults: list[str] = []
    slowest = 0.0

    def seen(exchange: Exchange) -> None:
        nonlocal slowest
        statuses[exchange.reply.status] += 1
        slowest = max(slowest, exchange.seconds)
        if not is_answer(exchange.reply):
            reply = exchange.reply
            faults.append(f"{exchange.number}: {reply.status} {reply.error} {reply.body[:200]!r}")

    files = images.mutated(seed=5, count=COUNT * soak)
    with Peak(server) as peak:
        loads.run(loads.closed_loop(server, requests(server, files), 16, seen=seen))
    print(
        f"{COUNT * soak} mutated images: {dict(statuses)}, the slowest {slowest:.2f} s, "
        f"{peak.growth:.0f} MB more"
    )
    assert faults == [], faults
    assert statuses.keys() >= {200, 422}
    assert slowest <= (SOON if strict else 5 * SOON)
    assert peak.growth <= 1024
    assert server.workers().keys() == workers.keys()


async def _one_by_one(
    server: Server, files: dict[str, bytes]
) -> tuple[dict[str, Exchange], list[Exchange]]:
    """Each file alone, raw and in JSON, while others ask good questions."""
    good = [loads.inference(server, image) for image in pngs(GREY)]
    over = asyncio.Event()
    beside = asyncio.ensure_future(
        loads.closed_loop(server, loads.repeated(good), 8, pause=0.02, over=over.is_set)
    )
    found = {}
    for name, data in files.items():
        bodies = {"raw": loads.post(f"{server.url}/inference", data, "image/png")}
        if len(data) < images.LIMIT * 3 // 4 - 100:
            bodies["JSON"] = loads.inference(server, data)
        for way, body in bodies.items():
            (exchange,) = await loads.closed_loop(server, iter([(0, body)]), 1, timeout=60)
            found[f"{name}, {way}"] = exchange
    over.set()
    return found, await beside


def _judge(
    server: Server, files: dict[str, bytes], allowed: set[int], strict: bool, growth: int
) -> None:
    workers = server.workers()
    began = time.perf_counter()
    with Peak(server, every=0.05) as peak:
        found, beside = loads.run(_one_by_one(server, files))
    faults = [
        f"{name}: {one.reply.status} after {one.seconds:.2f} s {one.reply.body[:200]!r}"
        f"{one.reply.error}"
        for name, one in found.items()
        if one.reply.status not in allowed or one.seconds > (SOON if strict else 5 * SOON)
    ]
    slowest = max(found, key=lambda name: found[name].seconds)
    harmed = max(exchange.seconds for exchange in beside)
    print(
        f"{len(found)} requests in {time.perf_counter() - began:.1f} s, the slowest {slowest} "
        f"{found[slowest].seconds:.2f} s; the slowest of {len(beside)} good ones beside them "
        f"{harmed:.2f} s; {peak.growth:.0f} MB more"
    )
    assert faults == [], "\n".join(faults)
    assert {exchange.reply.status for exchange in beside} == {200}
    assert harmed <= (SOON if strict else 5 * SOON)
    assert peak.growth <= growth
    assert server.workers().keys() == workers.keys()


def test_files_that_must_be_refused(server: Server, strict: bool) -> None:
    _judge(server, images.refused(), {400, 413, 415, 422}, strict, growth=512)


def test_files_that_take_their_time(server: Server, strict: bool) -> None:
    _judge(server, images.tedious(), {200, 400, 413, 415, 422}, strict, growth=1536)


def test_many_large_images_in_one_request(server: Server, strict: bool) -> None:
    """Each alone is within the limit; four hundred of them are 10 gigapixels.

    It may be refused, or given up when its time is over; then nobody works at it any more.
    """
    text = base64.b64encode(images.png(5000, 5000)).decode()
    body = json.dumps({"images": [text] * 400}).encode()
    request = loads.post(f"{server.url}/inference", body)
    large = loads.post(f"{server.url}/inference", images.png(2000, 2000), "image/png")

    async def play() -> tuple[Exchange, list[Exchange], list[Exchange]]:
        good = [loads.inference(server, image) for image in pngs(GREY)]
        over = asyncio.Event()
        beside = asyncio.ensure_future(
            loads.closed_loop(server, loads.repeated(good), 8, pause=0.02, over=over.is_set)
        )
        (exchange,) = await loads.closed_loop(server, iter([(0, request)]), 1)
        over.set()
        after = await loads.closed_loop(server, loads.repeated([large], 16), 8)
        return exchange, await beside, after

    with Peak(server, every=0.05) as peak:
        exchange, beside, after = loads.run(play())
    slowest = max(one.seconds for one in (*beside, *after))
    print(
        f"400 x 25 megapixels: {exchange.reply.status} after {exchange.seconds:.1f} s; the slowest "
        f"beside and after it {slowest:.2f} s; {peak.growth:.0f} MB more"
    )
    assert exchange.reply.status in (413, 422, 504), exchange.reply.body[:300]
    assert exchange.seconds <= REQUEST_TIMEOUT + (SOON if strict else 5 * SOON)
    assert {one.reply.status for one in (*beside, *after)} == {200}
    assert slowest <= (SOON if strict else 5 * SOON)
    assert peak.growth <= 1024
