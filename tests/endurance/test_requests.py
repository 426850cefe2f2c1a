"""Requests that the schema allows and forbids, and bytes that are no HTTP."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from tests.endurance import loads, sockets
from tests.endurance.attack import OK, REFUSED, Attack, Words
from tests.endurance.models import GREY, pngs
from tests.endurance.servers import Peak, Server, serving

pytestmark = [pytest.mark.slow, pytest.mark.proof]

COUNT = 250  # of each `soak`, by the schema; as many over raw sockets
SOON = 2.0  # seconds
PATIENCE = 60.0  # seconds for the end of one connection
IMAGE = pngs(GREY, 1)[0]


@pytest.fixture(scope="module")
def server(mlp_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("requests")
    with serving(folder, "--model", str(mlp_bundle), workers=2) as server:
        yield server


def test_what_the_schema_says_and_its_opposite(server: Server, soak: int) -> None:
    with requests.Session() as client:
        client.trust_env = False
        document = client.get(f"{server.url}/openapi.json", timeout=60).json()
        schema = schemathesis.openapi.from_dict(document)
        schema.config.base_url = server.url
        operations = [result.ok() for result in schema.get_all_operations()]
        workers = server.workers()
        statuses: Counter[int] = Counter()
        faults: list[str] = []
        # Of an operation without parameters and body there is one example.
        rich = sum(bool(one.body or any(one.iter_parameters())) for one in operations)
        each = -(-COUNT * soak // (2 * rich))
        for operation in operations:
            for mode in schemathesis.GenerationMode:
                _ask_for(operation, mode, each, client, statuses, faults)
    print(f"{statuses.total()} requests to {len(operations)} operations: {dict(statuses)}")
    assert faults == [], "\n".join(faults)
    assert statuses.total() >= 0.7 * COUNT * soak
    assert server.workers().keys() == workers.keys()


def _ask_for(
    operation: Any,
    mode: Any,
    count: int,
    client: requests.Session,
    statuses: Counter[int],
    faults: list[str],
) -> None:
    """Send examples of one operation; a stream is not read to its end."""

    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    def ask(case: Any) -> None:
        began = time.perf_counter()
        try:
            with client.request(**case.as_transport_kwargs(), timeout=60, stream=True) as answer:
                status, headers = answer.status_code, answer.headers
                if headers.get("content-type") != "text/event-stream":
                    answer.content  # noqa: B018 - read, so that the connection can go on
        except (requests.exceptions.InvalidHeader, UnicodeError):
            statuses[0] += 1  # what this client cannot send is sent by the raw sockets
            return
        taken = time.perf_counter() - began
        statuses[status] += 1
        busy = status == 503 and headers.get("retry-after", "").isdigit()
        if (status >= 500 and not busy) or taken > 5 * SOON:
            faults.append(f"{operation.label}: {status} in {taken:.2f} s, {case.as_curl_command()}")

    # A schema of which nothing wrong can be made has no negative examples.
    try:
        ask()
    except hypothesis.errors.Unsatisfiable:
        assert mode is schemathesis.GenerationMode.NEGATIVE, operation.label


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
            while attack.complete and len(replies(heard)) < attack.count:
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
    if attack.answers == OK and statuses != [200] * attack.count:
        return f"expected {attack.count} x 200, found {statuses} {heard[:300]!r}"
    if attack.ids and [headers.get(b"x-request-id") for _, headers in found] != attack.ids:
        return "answers in another order than the requests"
    if attack.answers == REFUSED and any(status < 400 for status in statuses):
        return f"expected a refusal, found {statuses}"
    if seconds >= PATIENCE:
        return f"an end after {seconds:.1f} s"
    return None


def test_bytes_that_are_no_request(server: Server, soak: int, strict: bool) -> None:
    words = Words(f"{server.host}:{server.port}".encode(), IMAGE)
    workers = server.workers()
    statuses: Counter[int] = Counter()
    faults: list[str] = []
    slowest: list[tuple[float, str]] = []
    queue = iter(list(sockets.attacks(5, COUNT * soak, words)))
    good = loads.inference(server, IMAGE)

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
        over = asyncio.Event()
        beside = asyncio.ensure_future(
            loads.closed_loop(server, loads.repeated([good]), 4, pause=0.02, over=over.is_set)
        )
        await asyncio.gather(*(attacker() for _ in range(16)))
        over.set()
        return await beside

    with Peak(server) as peak:
        beside = loads.run(play())
    harmed = max(exchange.seconds for exchange in beside)
    print(
        f"{COUNT * soak} attacks: {dict(statuses)}, the slowest {max(slowest)}, the slowest of "
        f"{len(beside)} good ones beside them {harmed:.2f} s, {peak.growth:.0f} MB more"
    )
    assert faults == [], "\n".join(faults)
    assert {exchange.reply.status for exchange in beside} == {200}
    assert max(slowest)[0] <= (SOON if strict else 5 * SOON)
    assert harmed <= (SOON if strict else 5 * SOON)
    assert peak.growth <= 512
    assert server.workers().keys() == workers.keys()
