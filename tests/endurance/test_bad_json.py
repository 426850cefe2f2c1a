"""Bodies that are no JSON, or no question: a 4xx each, soon, and in little memory."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.endurance import loads
from tests.endurance.models import GREY, pngs
from tests.endurance.servers import Peak, Server, serving

pytestmark = [pytest.mark.slow, pytest.mark.proof]

SOON = 2.0  # seconds
TEXT = base64.b64encode(pngs(GREY, 1)[0])
MIB = 1 << 20


@pytest.fixture(scope="module")
def server(mlp_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("json")
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


def _keys(count: int) -> bytes:
    """An object of so many fields, the last one twice."""
    names = [*range(count), count - 1]
    return b"{" + b",".join(b'"%x":0' % name for name in names) + b"}"


def other_doors() -> dict[str, tuple[str, str, bytes]]:
    """Path, type and body of what other routes must refuse as quickly, by name."""
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


def test_other_doors_are_as_quick(server: Server, strict: bool) -> None:
    good = loads.inference(server, pngs(GREY, 1)[0])
    bound = SOON if strict else 5 * SOON

    async def play() -> dict[str, tuple[Any, float]]:
        found = {}
        for name, (path, kind, body) in other_doors().items():
            over = asyncio.Event()
            beside = asyncio.ensure_future(
                loads.closed_loop(server, loads.repeated([good]), 8, pause=0.02, over=over.is_set)
            )
            request = loads.post(server.url + path, body, kind, if_match="*")
            (one,) = await loads.closed_loop(server, iter([(0, request)]), 1, timeout=60)
            over.set()
            found[name] = (one, max(exchange.seconds for exchange in await beside))
        return found

    found = loads.run(play())
    slowest = max(found, key=lambda name: found[name][0].seconds)
    print(f"{len(found)} bodies, the slowest: {slowest}, {found[slowest][0].seconds:.2f} s")
    faults = [
        f"{name}: {one.reply.status} after {one.seconds:.2f} s, {len(one.reply.body)} bytes "
        f"{one.reply.body[:200]!r}{one.reply.error}; a good one beside it took {harmed:.2f} s"
        for name, (one, harmed) in found.items()
        if not 400 <= one.reply.status < 500
        or max(one.seconds, harmed) > bound
        # Every fault of a configuration is told; nothing else is given back.
        or len(one.reply.body) > (8 * MIB if "retrain" in name or "check" in name else 4096)
    ]
    assert faults == [], "\n".join(faults)
