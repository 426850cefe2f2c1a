"""Bodies that are no JSON, no image or no question: an answer each, soon, in little memory."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from typing import Any

import pytest
from tests.endurance import images, loads
from tests.endurance.loads import Exchange
from tests.endurance.models import GREY, pngs
from tests.endurance.servers import Peak, Server

pytestmark = [pytest.mark.slow, pytest.mark.proof]

MUTATED = 5_000  # of each `soak`
REQUEST_TIMEOUT = 10.0  # seconds; the server's default
TYPES = ("image/png", "image/jpeg", "image/webp")
REFUSALS = {400, 404, 413, 415, 422}
MIB = 1 << 20
TEXT = base64.b64encode(pngs(GREY, 1)[0])


def _object(*fields: bytes) -> bytes:
    return b"{" + b", ".join(fields) + b"}"


def _with(field: bytes) -> bytes:
    return _object(b'"image": "' + TEXT + b'"', field)


def bad_bodies() -> dict[str, bytes]:
    """What must be a 4xx as JSON, by name; `test_inference.py` has the short ones."""
    good = _object(b'"image": "' + TEXT + b'"')
    bodies = {
        "16 MiB of brackets": b"[" * (16 * MIB),
        "brackets that close": b"[" * 100_000 + b"]" * 100_000,
        "objects in objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        "a deep image": b'{"image": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        "a deep neighbour": _with(b'"x": ' + b"[" * 500 + b"]" * 500),
        "16 MiB of an unknown key": _with(b'"' + b"k" * (16 * MIB - 2_000) + b'": 1'),
        "a million keys": b"{" + b",".join(b'"%d":0' % n for n in range(1_000_000)) + b"}",
        "16 MiB of As": b'{"image": "' + b"A" * (16 * MIB - 1_000) + b'"}',
        "16 MiB of escapes": b'{"image": "' + b"\\u0041" * (16 * MIB // 6 - 100) + b'"}',
        "17 MiB": b" " * (17 * MIB) + good,
    }
    for value in ("1" * 5_000, "-" + "1" * 5_000, "1e" + "9" * 5_000):
        bodies[f"top_k {value[:20]}"] = _with(b'"top_k": ' + value.encode())
    return bodies


def _keys(count: int) -> bytes:
    """An object of so many fields, the last one twice."""
    names = [*range(count), count - 1]
    return b"{" + b",".join(b'"%x":0' % name for name in names) + b"}"


def other_routes() -> dict[str, tuple[str, str, bytes]]:
    """Path, type and body of what other routes must refuse, by name."""
    json_type, ini = "application/json", "text/x-ini"
    many = b"[train]\n" + b"".join(b"key%d = 1\n" % n for n in range(18_000))
    sections = b"[a]\n" * 60_000
    return {
        "keys, retrain": ("/retrain", json_type, _keys(25_000)),
        "keys, check": ("/retrain/check", json_type, _keys(25_000)),
        "keys, promote": ("/models/x/promote", json_type, _keys(40_000)),
        "keys, rollback": ("/models/x/rollback", json_type, _keys(40_000)),
        "keys, v2": ("/v2/models/bundle/infer", json_type, _keys(40_000)),
        "a long key, promote": ("/models/x/promote", json_type, b'{"%s": 1}' % (b"k" * 16_000_000)),
        "a long key, v2": (
            "/v2/models/bundle/infer",
            json_type,
            b'{"%s": 1}' % (b"k" * 16_000_000),
        ),
        "a list, promote": ("/models/x/promote", json_type, b"[" + b"1," * 7_000_000 + b"1]"),
        "deep, promote": ("/models/x/promote", json_type, b"[" * 16_000_000),
        "deep, v2": ("/v2/models/bundle/infer", json_type, b"[" * 16_000_000),
        "faults, retrain": ("/retrain", ini, many),
        "faults, check": ("/retrain/check", ini, many),
        "sections, retrain": ("/retrain", ini, sections),
        "sections, check": ("/retrain/check", ini, sections),
    }


def is_problem(reply: Any, longest: int) -> bool:
    return len(reply.body) <= longest and json.loads(reply.body)["status"] == reply.status


def judge(
    server: Server,
    requests: Iterable[tuple[str, bytes]],
    soon: float,
    allowed: Container[int] = REFUSALS,
    growth: int = 1024,
    longest: int = 4096,
) -> None:
    """Send each alone while others ask good questions; no refusal gives back what was sent."""
    found: dict[str, Exchange] = {}

    async def play() -> list[Exchange]:
        good = [loads.inference(server, image) for image in pngs(GREY)]
        async with loads.beside(server, good) as beside:
            for name, request in requests:
                found[name] = await loads.one(server, request, timeout=60)
        return beside

    with Peak(server, every=0.05) as peak:
        beside = loads.run(play())
    slowest = max(found, key=lambda name: found[name].seconds)
    harmed = max(exchange.seconds for exchange in beside)
    print(
        f"{len(found)} requests, the slowest {slowest} {found[slowest].seconds:.2f} s; the slowest "
        f"of {len(beside)} good ones beside them {harmed:.2f} s; {peak.growth:.0f} MB more"
    )
    faults = [
        f"{name}: {one.reply.status} after {one.seconds:.2f} s, {len(one.reply.body)} bytes "
        f"{one.reply.body[:200]!r}{one.reply.error}"
        for name, one in found.items()
        if one.seconds > soon
        or one.reply.status not in allowed
        or (one.reply.status != 200 and not is_problem(one.reply, longest))
    ]
    assert faults == [], "\n".join(faults)
    assert {exchange.reply.status for exchange in beside} == {200}
    assert harmed <= soon
    assert peak.growth <= growth


def test_json_that_must_be_refused(unharmed: Server, soon: float) -> None:
    url = f"{unharmed.url}/inference"
    judge(unharmed, ((name, loads.post(url, body)) for name, body in bad_bodies().items()), soon)


@pytest.mark.parametrize("configurations", [False, True])
def test_other_routes_are_as_quick(unharmed: Server, soon: float, configurations: bool) -> None:
    requests = (
        (name, loads.post(unharmed.url + path, body, kind, if_match="*"))
        for name, (path, kind, body) in other_routes().items()
        if path.startswith("/retrain") == configurations
    )
    # Every fault of a configuration is told; nothing else is given back.
    judge(unharmed, requests, soon, longest=8 * MIB if configurations else 4096)


def files(server: Server, named: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Each file as it is, and in JSON where it fits."""
    for name, data in named.items():
        yield f"{name}, raw", loads.post(f"{server.url}/inference", data, "image/png")
        if len(data) < images.LIMIT * 3 // 4 - 100:
            yield f"{name}, JSON", loads.inference(server, data)


def test_files_that_must_be_refused(unharmed: Server, soon: float) -> None:
    judge(unharmed, files(unharmed, images.refused()), soon, growth=512)


def test_files_that_take_their_time(unharmed: Server, soon: float) -> None:
    requests = files(unharmed, images.tedious())
    judge(unharmed, requests, soon, {200, *REFUSALS}, growth=1536)


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
    return reply.status in REFUSALS and is_problem(reply, MIB)


def test_mutated_images(unharmed: Server, soak: int, soon: float) -> None:
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

    mutated = requests(unharmed, images.mutated(seed=5, count=MUTATED * soak))
    with Peak(unharmed) as peak:
        loads.run(loads.closed_loop(unharmed, mutated, 16, seen=seen))
    print(f"{dict(statuses)}, the slowest {slowest:.2f} s, {peak.growth:.0f} MB more")
    assert faults == [], faults
    assert statuses.keys() >= {200, 422}
    assert slowest <= soon
    assert peak.growth <= 1024


def test_many_large_images_in_one_request(unharmed: Server, soon: float) -> None:
    """Each alone is within the limit; four hundred of them are 10 gigapixels.

    It may be refused, or given up when its time is over; then nobody works at it any more.
    """
    text = base64.b64encode(images.png(5000, 5000)).decode()
    url = f"{unharmed.url}/inference"
    request = loads.post(url, json.dumps({"images": [text] * 400}).encode())
    large = loads.post(url, images.png(2000, 2000), "image/png")

    async def play() -> tuple[Exchange, list[Exchange]]:
        good = [loads.inference(unharmed, image) for image in pngs(GREY)]
        async with loads.beside(unharmed, good) as others:
            exchange = await loads.one(unharmed, request)
        after = await loads.closed_loop(unharmed, loads.repeated([large], 16), 8)
        return exchange, [*others, *after]

    with Peak(unharmed, every=0.05) as peak:
        exchange, others = loads.run(play())
    slowest = max(one.seconds for one in others)
    print(
        f"400 x 25 megapixels: {exchange.reply.status} after {exchange.seconds:.1f} s; the slowest "
        f"beside and after it {slowest:.2f} s; {peak.growth:.0f} MB more"
    )
    assert exchange.reply.status in (413, 422, 504), exchange.reply.body[:300]
    assert exchange.seconds <= REQUEST_TIMEOUT + soon
    assert {one.reply.status for one in others} == {200}
    assert slowest <= soon
    assert peak.growth <= 1024
