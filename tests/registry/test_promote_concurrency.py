"""Many processes promote and roll back, some are killed: still one history for everybody.

Each process writes down when it asked and what it was told. The checker replays the log
and holds it against these notes: nothing acknowledged is lost, nothing counts twice,
nothing overtakes what had ended before it began, and the alias says what the log says.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.registry.conftest import register_version

from mindtrace.bundle.bundle import Contents
from mindtrace.config.settings import load_settings
from mindtrace.registry.champions import HistoryEntry
from mindtrace.registry.names import CHAMPION
from mindtrace.registry.store import Store
from mindtrace.service.promotion import history

pytestmark = pytest.mark.proof

VERSIONS = 3

WORKER = """
import json, random, sys, time
from mindtrace.config.settings import load_settings
from mindtrace.errors import ConflictError
from mindtrace.service.promotion import promote, rollback
name, (seed, rounds, versions) = sys.argv[1], map(int, sys.argv[2:])
draw, settings = random.Random(seed), load_settings()
for turn in range(rounds):
    note = {"began": time.monotonic(), "action": draw.choice(["promote", "promote", "rollback"])}
    try:
        if note["action"] == "rollback":
            note["revision"] = rollback(settings, name).revision
        else:
            note["to"] = draw.randint(1, versions)
            ref, why = f"{name}/{note['to']}", f"{seed}-{turn}"
            done = promote(settings, ref, force=True, reason=why)
            note["reason"] = why
            note["revision"] = done.revision if done.champion != note["to"] else None
    except ConflictError as error:
        note["lost"] = error.message
    note["ended"] = time.monotonic()
    print(json.dumps(note), flush=True)
"""

Note = dict[str, Any]


def start(name: str, seed: int, rounds: int, notes: Path) -> subprocess.Popen[bytes]:
    with notes.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-c", WORKER, name, str(seed), str(rounds), str(VERSIONS)],
            stdout=out,
            env=dict(os.environ),
        )


def whole_lines(file: Path) -> list[Note]:
    """A killed process may leave half a line, which acknowledged nothing."""
    return [json.loads(line) for line in file.read_text().splitlines(True) if line.endswith("\n")]


def run(name: str, folder: Path, processes: int, rounds: int, kills: int) -> list[Note]:
    """All notes; each process that is killed is followed by another one."""
    draw, folder = random.Random(7), folder / "notes"
    folder.mkdir()
    files = [folder / str(seed) for seed in range(processes)]
    running = [start(name, seed, rounds, file) for seed, file in enumerate(files)]
    for kill in range(kills):
        victim = draw.randrange(processes)
        # Deep in its work: it has written a few notes since it started.
        while running[victim].poll() is None and len(whole_lines(files[victim])) < rounds // 3:
            try:
                running[victim].wait(draw.uniform(0.01, 0.05))
            except subprocess.TimeoutExpired:
                continue
        running[victim].kill()
        running[victim].wait()
        left = max(1, rounds - len(whole_lines(files[victim])))
        files.append(folder / f"{victim}-{kill}")
        running.append(start(name, 1000 + kill, left, files[-1]))
        files[victim], files[-1] = files[-1], files[victim]
        running[victim], running[-1] = running[-1], running[victim]
    codes = [process.wait() for process in running]
    assert codes.count(0) >= processes
    assert set(codes) <= {0, -9}
    return [note for file in folder.iterdir() for note in whole_lines(file)]


def check(notes: Sequence[Note], entries: Sequence[HistoryEntry], kills: int) -> None:
    """Replay the log, then hold every note against it."""
    standing: list[HistoryEntry] = []
    champion = None
    for revision, entry in enumerate(entries, 1):
        assert entry.revision == revision
        assert entry.origin == champion, "each entry says who was champion before it"
        if entry.action == "promote":
            standing.append(entry)
        else:
            assert entry.action == "rollback"
            assert entry.to == standing.pop().origin
        champion = entry.to
    told = sorted((note for note in notes if note.get("revision")), key=lambda n: n["revision"])
    assert len({note["revision"] for note in told}) == len(told), "no revision was given twice"
    for note in told:
        entry = entries[note["revision"] - 1]
        assert entry.action == note["action"], "no acknowledged change is lost"
        if entry.action == "promote":
            assert (entry.to, entry.reason) == (note["to"], note["reason"])
    # The first entry is the registration's; a killed process may have written one more.
    assert len(told) <= len(entries) - 1 <= len(told) + kills
    latest_began = 0.0
    for note in told:
        assert note["ended"] > latest_began, "what had ended is before what began later"
        latest_began = max(latest_began, note["began"])


@pytest.mark.parametrize(
    "kind",
    ["store", pytest.param("postgres_store", marks=pytest.mark.postgres), "server_store"],
)
def test_one_linear_history(
    kind: str, packed: Contents, tmp_path: Path, soak: int, request: pytest.FixtureRequest
) -> None:
    """A hundred changes, or a thousand with five kills for `make proofs SOAK=10`."""
    store: Store = request.getfixturevalue(kind)
    name = f"crowd-{uuid4().hex[:8]}"
    for _ in range(VERSIONS):
        register_version(store, packed, name)
    kills = max(1, soak // 2)
    processes = 4 if soak == 1 else 8
    notes = run(name, tmp_path, processes, -(-100 * soak // processes), kills)

    entries = history(load_settings(), name)
    check(notes, entries, kills)
    assert len(notes) >= 100 * soak
    assert sum("lost" in note for note in notes) < len(notes) / 2
    alias = store.client.get_model_version_by_alias(name, CHAMPION)
    assert int(alias.version) == entries[-1].to
