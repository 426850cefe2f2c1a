"""Champions change under load; a quarter of them are broken. Nobody notices, but the answers."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from tests.application.registered import Registered
from tests.endurance import loads
from tests.endurance.loads import Exchange
from tests.endurance.models import GREY, contents, pngs
from tests.endurance.servers import MB, Server, serving

from mindtrace.bundle import manifest
from mindtrace.bundle.predictor import Predictor
from mindtrace.registry.champions import ChampionLog
from mindtrace.registry.names import PREFIX

pytestmark = [pytest.mark.slow, pytest.mark.proof]

NAME = "mlp"
WORKERS = 2
CONNECTIONS = 32
ROUNDS = 5  # of each `soak`
GOOD = 5
NOTICED = 2.0  # seconds from the promotion to the last answer of the champion before
TOLERANCE = 1e-5


@dataclass
class Versions:
    """What is registered."""

    registry: Registered
    # Of each good version to each image: float32, (images, classes).
    answers: dict[int, np.ndarray] = field(default_factory=dict)
    broken: dict[int, str] = field(default_factory=dict)  # why a version cannot be served

    def promote(self, version: int) -> float:
        """Make it champion, as the command would; the moment when that is done."""
        store = self.registry.store
        log, row = ChampionLog(store.reader(), NAME), store.reader().version(NAME, version)
        assert row is not None
        assert log.append(store, expected=len(log.entries()), action="promote", row=row)
        return time.perf_counter()


def _flip(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)


def _wrong_golden(folder: Path) -> None:
    parsed = json.loads((folder / "golden.json").read_text())
    parsed["cases"][3]["probabilities"].reverse()
    (folder / "golden.json").write_text(json.dumps(parsed))
    manifest.seal(folder)


def _cut(folder: Path) -> None:
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:-100])


DAMAGE: dict[str, Callable[[Path], None]] = {
    "a byte of the network flipped": lambda folder: _flip(folder, "model.onnx"),
    "a byte of the weights flipped": lambda folder: _flip(folder, "model.safetensors"),
    "wrong golden answers, sealed": _wrong_golden,
    "the network cut short": _cut,
    "the folder gone": shutil.rmtree,
}


@pytest.fixture
def versions(root: Path) -> Versions:
    registry = Registered(root)
    found = Versions(registry)
    packed = [contents(NAME, seed) for seed in range(GOOD)]
    other_names = replace(packed[0].model_config, class_names=tuple("abcdefghij"))
    packed += [packed[0]] * len(DAMAGE) + [replace(packed[0], model_config=other_names)]
    for number, content in enumerate(packed, 1):
        assert registry.publish(content, NAME) == number
        folder = registry.folder(number, NAME)
        if number <= GOOD:
            predictor = Predictor.open(folder)
            found.answers[number] = np.stack([predictor.predict(image) for image in pngs(GREY)])
        elif number <= GOOD + len(DAMAGE):
            found.broken[number], damage = list(DAMAGE.items())[number - GOOD - 1]
            damage(folder)
            if folder.exists():
                digest = hashlib.sha256((folder / manifest.MANIFEST).read_bytes()).hexdigest()
                key = f"{PREFIX}bundle_digest"
                registry.store.client.set_model_version_tag(NAME, str(number), key, digest)
        else:
            found.broken[number] = "other class names"
    return found


@dataclass
class Watcher:
    """Looks at every answer as it comes."""

    versions: Versions
    champion: int
    faults: list[str] = field(default_factory=list)
    # The version of each connection's latest answer, and when it was asked for.
    last: dict[tuple[str, int], tuple[int, float]] = field(default_factory=dict)
    old: float = 0.0  # when the latest request left that an unexpected version answered
    count: int = 0

    def __call__(self, exchange: Exchange) -> None:
        self.count += 1
        reply = exchange.reply
        if reply.status != 200:
            self.faults.append(f"{reply.status} {reply.error} {reply.body[:300]!r}")
            return
        said = json.loads(reply.body)
        version = said["version"]
        known = self.versions.answers.get(version)
        if known is None or said["model_name"] != NAME:
            self.faults.append(f"answered by {said['model_name']}/{version}")
            return
        expected = known[exchange.number % len(known)]
        difference = np.abs(expected - np.asarray(said["probabilities"])).max()
        if difference > TOLERANCE or said["label"] != int(expected.argmax()):
            self.faults.append(f"{NAME}/{version} differs from itself by {difference:.2g}")
        self.last[exchange.local] = (version, exchange.began)
        if version != self.champion:
            self.old = max(self.old, exchange.began)

    def everywhere(self, since: float) -> bool:
        """Whether every connection has been answered by the champion since then."""
        return len(self.last) == CONNECTIONS and all(
            version == self.champion and began > since for version, began in self.last.values()
        )


def wishes(versions: Versions, rounds: int) -> Iterator[int]:
    """Whom to promote; every fourth is broken, no good one twice in a row."""
    draw = random.Random(5)
    serving, broken = 1, 0
    for number in range(rounds):
        if number % 4 == 3:
            yield sorted(versions.broken)[broken % len(versions.broken)]
            broken += 1
        else:
            serving = draw.choice([good for good in versions.answers if good != serving])
            yield serving


async def _swaps(server: Server) -> dict[str, float]:
    """`mindtrace_model_swaps_total`, by its result."""
    reply = (await loads.one(server, loads.get(server, "/metrics"))).reply
    assert reply.status == 200, reply
    found = re.findall(rb'mindtrace_model_swaps_total\{result="(\w+)"\} ([\d.]+)', reply.body)
    return {name.decode(): float(value) for name, value in found}


async def _counted(server: Server, result: str, count: int) -> None:
    """Wait until all workers together have counted so many; one tells the others in a moment."""
    async with asyncio.timeout(60):
        while (await _swaps(server)).get(result) != count:
            await asyncio.sleep(0.05)


async def _until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.01)


async def _play(server: Server, watcher: Watcher, rounds: int) -> list[float]:
    """Promote under load; how long each champion took to be everywhere, in seconds."""
    requests = [loads.inference(server, image) for image in pngs(GREY)]
    over = asyncio.Event()
    load = asyncio.ensure_future(
        loads.closed_loop(
            server,
            loads.repeated(requests),
            CONNECTIONS,
            pause=0.02,
            over=over.is_set,
            seen=watcher,
        )
    )
    taken = []
    refused = 0
    await _until(lambda: watcher.everywhere(0))
    spread = [len(watcher.last.keys() & server.clients(pid)) for pid in server.workers()]
    assert sum(spread) == CONNECTIONS and min(spread) > 0, spread
    for wish in wishes(watcher.versions, rounds):
        if wish in watcher.versions.broken:
            await asyncio.to_thread(watcher.versions.promote, wish)
            refused += WORKERS
            await _counted(server, "refused", refused)
            seen = time.perf_counter()
            await _until(lambda seen=seen: watcher.everywhere(seen))
        else:
            promoting = asyncio.to_thread(watcher.versions.promote, wish)
            # From here on its answers are expected; those before it count until they end.
            watcher.champion, watcher.old = wish, 0.0
            done = await promoting
            await _until(lambda done=done: watcher.everywhere(done))
            taken.append(max(0.0, watcher.old - done))
    await _counted(server, "ok", WORKERS * len(taken))
    await _counted(server, "refused", refused)
    over.set()
    await load
    return taken


def test_fifty_champions_under_load(
    root: Path, versions: Versions, soak: int, strict: bool, tmp_path: Path
) -> None:
    watcher = Watcher(versions, champion=1)
    with serving(tmp_path / "server", workers=WORKERS, root=root) as server:
        workers = server.workers()
        before = server.memory()
        taken = loads.run(_play(server, watcher, ROUNDS * soak))
        growth = (server.memory() - before) / MB
        swaps = loads.run(_swaps(server))
        assert server.workers().keys() == workers.keys()
        log = server.log
    print(
        f"{watcher.count} answers, {ROUNDS * soak} promotions, the slowest everywhere after "
        f"{max(taken):.2f} s, {growth:.0f} MB more, {swaps}"
    )
    assert watcher.faults == []
    assert max(taken) <= (NOTICED if strict else 5 * NOTICED)
    assert growth < 64
    refusals = [line for line in log.splitlines() if "refused" in line]
    assert len(refusals) == swaps["refused"], log
