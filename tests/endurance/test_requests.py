"""JSON that is none, requests that the schema allows and forbids, bytes that are no HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
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
from tests.endurance.models import GREY, pngs
from tests.endurance.servers import Peak, Server, serving
from tests.endurance.sockets import OK, REFUSED, Attack, Words

pytestmark = pytest.mark.slow

COUNT = 250  # of each `soak`, by the schema; as many over raw sockets
SOON = 2.0  # seconds
IMAGE = pngs(GREY, 1)[0]
TEXT = base64.b64encode(IMAGE)
MIB = 1 << 20


@pytest.fixture(scope="module")
def server(mlp_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("requests")
    with serving(folder, "--model", str(mlp_bundle), workers=2) as server:
        yield server


def _object(*fields: bytes) -> bytes:
    return b"{" + b", ".join(fields) + b"}"


def _with(field: bytes) -> bytes:
    return _object(b'"image": "' + TEXT + b'"', field)


def bad_bodies() -> dict[str, bytes]:
    """What must be a 4xx as JSON, by name."""
    good = _object(b'"image": "' + TEXT + b'"')
    bodies = {
        "nothing": b"",
        "a hundred thousand brackets": b"[" * 100_000,
        "16 MiB of brackets": b"[" * (16 * MIB),
        "brackets that close": b"[" * 100_000 + b"]" * 100_000,
        "objects in objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        "a deep image": b'{"image": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        "a deep neighbour": _with(b'"x": ' + b"[" * 500 + b"]" * 500),
        "16 MiB of an unknown key": _with(b'"' + b"k" * (16 * MIB - 2_000) + b'": 1'),
        "a million keys": b"{" + b",".join(b'"%d":0' % n for n in range(1_000_000)) + b"}",
        "a million images": b'{"images": [' + b'"",' * 1_000_000 + b'""]}',
        "1,025 images": b'{"images": [' + b'"",' * 1_024 + b'""]}',
        "no images": b'{"images": []}',
        "images that are none": b'{"images": {"0": "' + TEXT + b'"}}',
        "both": _with(b'"images": ["' + TEXT + b'"]'),
        "a key twice": _object(b'"image": "' + TEXT + b'"', b'"image": "' + TEXT + b'"'),
        "a key twice, escaped": _object(b'"image": "' + TEXT + b'"', b'"\\u0069mage": ""'),
        "top_k twice": _object(b'"image": "' + TEXT + b'"', b'"top_k": 1', b'"top_k": 2'),
        "a key twice, deep": _with(b'"x": {"y": 1, "y": 2}'),
        "a number as image": b'{"image": 7}',
        "a list as image": b'{"image": ["' + TEXT + b'"]}',
        "null as image": b'{"image": null}',
        "an empty image": b'{"image": ""}',
        "an unknown key": _with(b'"model": "other"'),
        "something behind it": good + b"x",
        "two objects": good + good,
        "a comment": b"/* hello */" + good,
        "a comma too many": good[:-1] + b",}",
        "single quotes": good.replace(b'"', b"'"),
        "UTF-16": good.decode().encode("utf-16"),
        "UTF-32": good.decode().encode("utf-32"),
        "no UTF-8": good.replace(b"image", b"im\xffge"),
        "half a character": b'{"image": "\\ud800"}',
        "a null byte": good.replace(b'": "', b'": "\0', 1),
        "a raw line feed": b'{"image": "' + TEXT[:8] + b"\n" + TEXT[8:] + b'"}',
        "base64 in lines": b'{"image": "' + TEXT[:8] + b"\\n" + TEXT[8:] + b'"}',
        "base64 for URLs": b'{"image": "' + base64.urlsafe_b64encode(b"\xfb\xff" * 30) + b'"}',
        "base64 without its end": b'{"image": "' + TEXT.rstrip(b"=")[:-1] + b'"}',
        "base64 and more": b'{"image": "' + TEXT.rstrip(b"=") + b'====AAAA"}',
        "no base64": b'{"image": "!!!!"}',
        "base64 of nothing": b'{"image": "===="}',
        "a data URL": b'{"image": "data:image/png;base64,' + TEXT + b'"}',
        "a path": b'{"image": "/etc/passwd"}',
        "16 MiB of As": b'{"image": "' + b"A" * (16 * MIB - 1_000) + b'"}',
        "16 MiB of escapes": b'{"image": "' + b"\\u0041" * (16 * MIB // 6 - 100) + b'"}',
        "17 MiB": b" " * (17 * MIB) + good,
    }
    for value in (
        *("null", "true", '"x"', "1", "[]", "NaN", "Infinity", "-Infinity"),
        *("tru", "'", "\x00", "0x1", "01", "+1", ".5"),
    ):
        bodies[f"{value} alone"] = value.encode()
    for value in (
        *("NaN", "Infinity", "-Infinity", "0", "-1", "1.5", "1e400", "-1e400", "true", "null"),
        *('"3"', "[3]", "{}", "1" * 5_000, "-" + "1" * 5_000, "1e" + "9" * 5_000, "01", "0x3"),
    ):
        bodies[f"top_k {value[:20]}"] = _with(b'"top_k": ' + value.encode())
    return bodies


def is_refusal(reply: Any) -> bool:
    """Whether it is a 4xx with a problem document, which does not give back what was sent."""
    if not 400 <= reply.status < 500 or len(reply.body) > 4096:
        return False
    return bool(json.loads(reply.body)["status"] == reply.status)


def test_json_that_must_be_refused(server: Server, strict: bool) -> None:
    bodies = bad_bodies()

    async def play() -> dict[str, Any]:
        found = {}
        for name, body in bodies.items():
            request = loads.post(f"{server.url}/inference", body)
            (found[name],) = await loads.closed_loop(server, iter([(0, request)]), 1)
        return found

    with Peak(server, every=0.05) as peak:
        found = loads.run(play())
    slowest = max(found, key=lambda name: found[name].seconds)
    print(
        f"{len(found)} bodies, the slowest: {slowest}, {found[slowest].seconds:.2f} s; "
        f"{peak.growth:.0f} MB more"
    )
    faults = [
        f"{name}: {one.reply.status} after {one.seconds:.2f} s {one.reply.body[:200]!r}"
        f"{one.reply.error}"
        for name, one in found.items()
        if not is_refusal(one.reply) or one.seconds > (SOON if strict else 5 * SOON)
    ]
    assert faults == [], "\n".join(faults)
    assert peak.growth <= 1024


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
        each = -(-COUNT * soak // (2 * len(operations)))
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
        try:
            for piece in attack.pieces:
                writer.write(piece)
                await writer.drain()
                if len(attack.pieces) > 1:
                    await asyncio.sleep(0.001)
            if not attack.complete:
                # Half a second to answer; then it is told that nothing more comes.
                with_end = asyncio.get_running_loop().call_later(0.5, _end, writer)
                heard = await asyncio.wait_for(reader.read(-1), 60)
                with_end.cancel()
            else:
                while len(replies(heard)) < attack.count:
                    piece = await asyncio.wait_for(reader.read(1 << 16), 60)
                    if not piece:
                        break
                    heard += piece
        except ConnectionError:
            heard += await _rest(reader)
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
    if seconds > 50:
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
