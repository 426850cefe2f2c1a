"""One of two workers dies in the middle of its work: the other one answers for both."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.endurance import loads
from tests.endurance.loads import Exchange
from tests.endurance.models import GREY, pngs
from tests.endurance.servers import Server, serving
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.proof]

CONNECTIONS = 32


def _replaced(server: Server, gone: int) -> bool:
    return gone not in server.workers() and server.all_accept()


async def _play(
    server: Server, kills: int
) -> tuple[list[Exchange], set[tuple[str, int]], list[float]]:
    requests = [loads.inference(server, image) for image in pngs(GREY)]
    over = asyncio.Event()
    load = asyncio.ensure_future(
        loads.closed_loop(
            server, loads.repeated(requests), CONNECTIONS, pause=0.002, over=over.is_set
        )
    )
    doomed: set[tuple[str, int]] = set()
    replaced = []
    for turn in range(kills):
        await asyncio.sleep(0.5)
        pid = sorted(await asyncio.to_thread(server.workers))[turn % 2]
        # Stopped first: from here on it takes no connection that is not counted.
        os.kill(pid, signal.SIGSTOP)
        doomed |= server.clients(pid)
        os.kill(pid, signal.SIGKILL)
        began = time.perf_counter()
        await asyncio.to_thread(until, lambda gone=pid: _replaced(server, gone))
        replaced.append(time.perf_counter() - began)
    over.set()
    return await load, doomed, replaced


def test_only_its_own_requests_are_lost(
    root: Path, mlp_bundle: Path, tmp_path: Path, soak: int, strict: bool
) -> None:
    options = ("--model", str(mlp_bundle))
    with serving(tmp_path / "server", *options, workers=2, root=root) as server:
        exchanges, doomed, replaced = loads.run(_play(server, soak))
    statuses = Counter(exchange.reply.status for exchange in exchanges)
    lost = [exchange for exchange in exchanges if exchange.reply.status == 0]
    print(
        f"{len(exchanges)} requests, {soak} kills: {len(lost)} lost of {len(doomed)} connections "
        f"of the killed; replaced after at most {max(replaced):.2f} s"
    )
    assert statuses.keys() <= {0, 200}
    assert {exchange.local for exchange in lost} <= doomed
    assert len(lost) == len({exchange.local for exchange in lost})
    assert max(replaced) <= (5 if strict else 30)
