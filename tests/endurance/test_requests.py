"""Bytes that are no HTTP, or nearly: refused, soon, and harmless to everybody else."""

from __future__ import annotations

import asyncio
import base64
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.endurance import loads
from tests.endurance.attacks import OK, REFUSED, Attack, Words, attacks
from tests.endurance.models import GREY, pngs
from tests.endurance.servers import MB, Peak, Server

pytestmark = [pytest.mark.slow, pytest.mark.proof]

COUNT = 250  # of each `soak`
PATIENCE = 60.0  # seconds for the end of one connection
IMAGE = pngs(GREY, 1)[0]


async def _attack(server: Server, attack: Attack) -> tuple[bytes, float]:
    """Send it; everything that came back until the end, or until it was answered."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection(server.host, server.port)
    heard = b""
    try:
        async with asyncio.timeout(PATIENCE):
            for piece in attack.pieces:
                writer.write(piece)
                await writer.drain()
                if len(attack.pieces) > 1:
                    await asyncio.sleep(0.001)
            if not attack.complete:
                # Half a second to answer; then it is told that nothing more comes.
                ending = asyncio.get_running_loop().call_later(0.5, _end, writer)
                heard = await reader.read(-1)
                ending.cancel()
            while attack.complete and len(replies(heard)) < max(1, len(attack.ids)):
                piece = await reader.read(1 << 16)
                if not piece:
                    break
                heard += piece
    except ConnectionError:
        heard += await _rest(reader)
    except TimeoutError:
        pass  # told by the time that it took
    finally:
        writer.transport.abort()
    return heard, time.perf_counter() - began


def _end(writer: asyncio.StreamWriter) -> None:
    if writer.can_write_eof() and not writer.is_closing():
        writer.write_eof()


async def _rest(reader: asyncio.StreamReader) -> bytes:
    """What was there before the connection broke."""
    try:
        return await reader.read(1 << 20)
    except ConnectionError:
        return b""


def replies(heard: bytes) -> list[tuple[int, dict[bytes, bytes]]]:
    """Status and headers of each whole answer in what was heard."""
    found = []
    while True:
        head, separator, heard = heard.partition(b"\r\n\r\n")
        if not separator or not head.startswith(b"HTTP/1.1 "):
            return found
        lines = head.split(b"\r\n")
        status = int(lines[0].split(b" ")[1])
        headers = dict(line.split(b": ", 1) for line in lines[1:])
        length = int(headers.get(b"content-length", 0))
        if status < 200:
            continue
        found.append((status, headers))
        # HEAD has a length and no body; nothing but the next answer begins like this.
        if not heard.startswith(b"HTTP/1.1 "):
            heard = heard[length:]


def fault_of(attack: Attack, heard: bytes, seconds: float) -> str | None:
    """What is wrong with the answers to an attack."""
    found = replies(heard)
    statuses = [status for status, _ in found]
    for status, headers in found:
        if status >= 500 and not (status == 503 and headers.get(b"retry-after", b"").isdigit()):
            return f"{status} {heard[-300:]!r}"
    if attack.answers == OK and statuses != [200] * max(1, len(attack.ids)):
        return f"expected 200 each, found {statuses} {heard[:300]!r}"
    if attack.ids and [headers.get(b"x-request-id") for _, headers in found] != attack.ids:
        return "answers in another order than the requests"
    if attack.answers == REFUSED and any(status < 400 for status in statuses):
        return f"expected a refusal, found {statuses}"
    if seconds >= PATIENCE:
        return f"an end after {seconds:.1f} s"
    return None


def test_bytes_that_are_no_request(unharmed: Server, soak: int, soon: float) -> None:
    server = unharmed
    words = Words(f"{server.host}:{server.port}".encode(), IMAGE)
    statuses: Counter[int] = Counter()
    faults: list[str] = []
    slowest: list[tuple[float, str]] = []
    queue = attacks(5, COUNT * soak, words)

    async def attacker() -> None:
        for attack in queue:
            heard, seconds = await _attack(server, attack)
            statuses.update(status for status, _ in replies(heard))
            fault = fault_of(attack, heard, seconds)
            if fault:
                faults.append(f"{attack.name}: {fault}; sent {b''.join(attack.pieces)[:200]!r}")
            if attack.complete:
                slowest.append((seconds, attack.name))

    async def play() -> list[Any]:
        async with loads.beside(server, [loads.inference(server, IMAGE)], 4) as others:
            await asyncio.gather(*(attacker() for _ in range(16)))
        return others

    with Peak(server) as peak:
        others = loads.run(play())
    harmed = max(exchange.seconds for exchange in others)
    print(
        f"{COUNT * soak} attacks: {dict(statuses)}, the slowest {max(slowest)}, the slowest of "
        f"{len(others)} good ones beside them {harmed:.2f} s, {peak.growth:.0f} MB more"
    )
    assert faults == [], "\n".join(faults)
    assert {exchange.reply.status for exchange in others} == {200}
    assert max(slowest)[0] <= soon
    assert harmed <= soon
    assert peak.growth <= 512


LONG = b"x" * (11 * MB)
REFUSALS = [  # reasons that arise in different layers
    ("image/png", LONG, 422),
    ("application/json", b'{"image": "%s"}' % base64.b64encode(LONG), 422),
    ("application/json", b'{"another": "%s"}' % LONG, 422),
    ("application/json", b'{"image": "!%s"}' % LONG, 400),
    ("image/png", LONG * 2, 413),
]


@pytest.mark.parametrize(("kind", "body", "status"), REFUSALS, ids=range(5))
def test_a_refused_body_is_freed_at_once(
    unharmed: Server, kind: str, body: bytes, status: int
) -> None:
    """Not at the next garbage collection, which small objects bring about."""

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), MB):
            yield body[start : start + MB]

    with httpx.Client(trust_env=False, timeout=PATIENCE) as client, Peak(unharmed) as peak:
        for _ in range(25):
            url, headers = f"{unharmed.url}/inference", {"content-type": kind}
            assert client.post(url, content=pieces(), headers=headers).status_code == status
    assert peak.growth <= 128
