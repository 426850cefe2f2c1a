"""The history of champions: append-only, dense, and with one winner for each revision."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from mindtrace.registry.champions import ChampionLog, HistoryEntry, champion_of
from mindtrace.registry.names import PREFIX, log_name
from mindtrace.registry.store import Store, start_run

Version = Callable[..., int]

# Appends with the words of everybody else, as soon as the parent closes the gate.
APPEND = """
import pathlib, sys
from mindtrace.registry.champions import ChampionLog
from mindtrace.registry.store import Store
uri, root, run_id, to, rounds = sys.argv[1:]
store = Store(uri, pathlib.Path(root))
print("ready", flush=True)
sys.stdin.read()
for _ in range(int(rounds)):
    log = ChampionLog.of_store(store, "digits")
    seen = len(log.entries())
    entry = log.append(expected=seen, action="promote", to=int(to), by="all", run_id=run_id)
    print(*("lost", seen + 1) if entry is None else ("won", entry.revision))
"""


@pytest.fixture
def run_id(store: Store) -> str:
    return start_run(store, "digits", None, {}).run_id


def history(store: Store) -> list[HistoryEntry]:
    return list(ChampionLog.of_store(store, "digits").entries())


def try_append(
    store: Store, run_id: str, expected: int, to: int, **more: str
) -> HistoryEntry | None:
    options = {"action": "promote", "by": "me", **more}
    log = ChampionLog.of_store(store, "digits")
    return log.append(expected=expected, to=to, run_id=run_id, **options)


def append(store: Store, run_id: str, expected: int, to: int, **more: str) -> HistoryEntry:
    entry = try_append(store, run_id, expected, to, **more)
    assert entry is not None
    return entry


def test_a_model_without_a_champion_has_no_history(store: Store) -> None:
    assert history(store) == []
    assert champion_of([]) is None


def test_entries_come_back_in_order_with_everything_they_say(
    store: Store, version: Version, run_id: str
) -> None:
    version(), version()
    first = append(store, run_id, 0, 1, reason="first")
    second = append(store, run_id, 1, 2, verdict="PROMOTE", by="you")

    assert history(store) == [first, second]
    assert (first.revision, first.origin, first.to, first.reason) == (1, None, 1, "first")
    assert (second.revision, second.origin, second.to) == (2, 1, 2)
    assert (second.by, second.verdict, second.reason) == ("you", "PROMOTE", None)
    assert second.at >= first.at


def test_the_alias_mirrors_the_log(store: Store, version: Version, run_id: str) -> None:
    version(), version()
    append(store, run_id, 0, 1)
    append(store, run_id, 1, 2)
    append(store, run_id, 2, 1, action="rollback")

    assert int(store.client.get_model_version_by_alias("digits", "champion").version) == 1


def test_a_refusal_is_kept_and_changes_no_champion(
    store: Store, version: Version, run_id: str
) -> None:
    version(), version()
    append(store, run_id, 0, 1)
    append(store, run_id, 1, 2, action="refuse", verdict="REJECT")

    entries = history(store)
    assert [entry.action for entry in entries] == ["promote", "refuse"]
    assert champion_of(entries) == 1
    assert int(store.client.get_model_version_by_alias("digits", "champion").version) == 1


@pytest.mark.parametrize("expected", [0, 1, 3, 99])
def test_an_entry_that_expects_another_revision_is_not_written(
    store: Store, version: Version, run_id: str, expected: int
) -> None:
    version(), version()
    append(store, run_id, 0, 1)
    append(store, run_id, 1, 2)

    assert try_append(store, run_id, expected, 1) is None
    assert len(history(store)) == 2


def test_an_entry_that_came_too_late_is_written_and_does_not_count(
    store: Store, version: Version, run_id: str
) -> None:
    """What a slower author leaves behind who looked before the quicker one had written."""
    version()
    append(store, run_id, 0, 1)
    late = {"expected": "0", "action": "promote", "to": "7", "at": "later", "by": "slow"}
    store.client.create_model_version(
        log_name("digits"),
        f"runs:/{run_id}/bundle",
        run_id,
        tags={PREFIX + key: value for key, value in late.items()},
        await_creation_for=0,
    )

    assert [entry.to for entry in history(store)] == [1]
    assert append(store, run_id, 1, 1).revision == 2


class Quicker:
    """An MLflow client in front of which somebody else writes the same words first."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def create_model_version(self, *arguments: Any, **options: Any) -> Any:
        theirs = {**options["tags"], PREFIX + "token": "theirs"}
        self._client.create_model_version(*arguments, **{**options, "tags": theirs})
        return self._client.create_model_version(*arguments, **options)


def test_the_same_words_of_somebody_quicker_are_not_ones_own(
    store: Store, version: Version, run_id: str
) -> None:
    version()
    store.client = Quicker(store.client)  # type: ignore[assignment]

    assert try_append(store, run_id, 0, 1) is None
    assert len(history(store)) == 1


def test_a_stranger_in_the_log_does_not_count(store: Store, version: Version, run_id: str) -> None:
    version()
    append(store, run_id, 0, 1)
    store.client.create_model_version(log_name("digits"), "somewhere", await_creation_for=0)

    assert append(store, run_id, 1, 1).revision == 2


def test_the_log_is_hidden_from_lists_of_models(
    store: Store, version: Version, run_id: str
) -> None:
    from mindtrace.registry.client_reader import ClientReader

    version()
    append(store, run_id, 0, 1)

    reader = ClientReader(store.uri, store.root)
    assert reader.names() == ["digits"]
    assert [row.name for row in reader.versions(None, 10)] == ["digits"]
    assert reader.versions(log_name("digits"), 10) == []


@pytest.mark.slow
def test_of_many_processes_one_wins_each_revision_though_all_say_the_same(
    store: Store, version: Version, run_id: str, soak: int
) -> None:
    """Same author, same version, often the same millisecond: still one winner each."""
    version()
    processes, rounds = 4, 5 * soak
    started = [
        subprocess.Popen(
            [sys.executable, "-c", APPEND, store.uri, str(store.root), run_id, "1", str(rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )
        for _ in range(processes)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
    heard = [line.split() for process in started for line in process.stdout]  # type: ignore[union-attr]
    assert [process.wait() for process in started] == [0] * processes

    won = sorted(int(revision) for word, revision in heard if word == "won")
    entries = history(store)
    assert len(heard) == processes * rounds
    assert won == list(range(1, len(entries) + 1)), "each revision has exactly one winner"
    assert [entry.revision for entry in entries] == won
    assert len(won) >= rounds, "in every round somebody wins"
    for process in started:
        process.stdout.close()  # type: ignore[union-attr]
