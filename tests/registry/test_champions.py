"""The history of champions: append-only, dense, one winner a revision, the same for all readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, strategies as st
from tests.registry.conftest import Version

from mindtrace.registry.champions import ChampionLog, HistoryEntry
from mindtrace.registry.names import PREFIX, log_name
from mindtrace.registry.provenance import who
from mindtrace.registry.reader import ModelVersion, Reader
from mindtrace.registry.store import Store, start_run

Tags = Mapping[str, str]


def tags(expected: int | str, action: str = "promote", to: int | str = 1, **more: str) -> Tags:
    fields = {"expected": expected, "action": action, "to": to, "at": "now", "by": "me", **more}
    return {PREFIX + key: str(value) for key, value in fields.items()}


class Written(Reader):
    """A companion model with these tags, of which `there` have been written; all versions exist."""

    def __init__(self, rows: Sequence[Tags], there: int | None = None) -> None:
        self.rows, self.there = rows, there

    def log(self, model_name: str, after: int = 0) -> Sequence[tuple[int, Tags]]:
        return [*enumerate(self.rows, 1)][after : self.there]

    def version(self, name: str, number: int) -> ModelVersion:
        return ModelVersion(name, number, (), None, "then", {}, {}, None)


def log_of(rows: Sequence[Tags]) -> ChampionLog:
    log = ChampionLog(Written(rows), "digits")
    log.entries()
    return log


written = st.lists(
    st.builds(tags, st.integers(0, 6), st.sampled_from(["promote", "rollback", "refuse"])),
    max_size=20,
)


@given(written, st.lists(st.integers(0, 20), max_size=4))
def test_revisions_are_dense_and_the_same_however_often_one_reads(
    rows: list[Tags], reads: list[int]
) -> None:
    reader = Written(rows)
    log = ChampionLog(reader, "digits")
    for reader.there in [*sorted(reads), len(rows)]:
        entries = log.entries()
        assert entries == log_of(rows[: reader.there]).entries()
        assert [entry.revision for entry in entries] == list(range(1, len(entries) + 1))


def test_what_no_entry_can_be_does_not_count_and_stops_nobody() -> None:
    log = log_of(
        [
            *({}, {PREFIX + "expected": "0"}, tags(0, to="x"), tags("zero")),
            *(tags(0, to=5), tags(0, to=6), tags(1, to=7, action="refuse")),
        ]
    )
    assert [(entry.revision, entry.to) for entry in log.entries()] == [(1, 5), (2, 7)]
    assert log.champion() == 5
    assert log_of([]).champion() is None


def test_a_rollback_undoes_the_latest_promotion_that_still_stands() -> None:
    rows: list[Tags] = []

    def undone_after(*steps: tuple[str, int | None, int]) -> int | None:
        for action, origin, to in steps:
            more = {} if origin is None else {"origin": str(origin)}
            rows.append(tags(len(rows), action, to, **more))
        return getattr(log_of(rows).promotion_to_undo(), "origin", None)

    assert undone_after() is None
    assert undone_after(("promote", None, 1)) is None
    assert undone_after(("promote", 1, 2), ("refuse", 2, 9), ("promote", 2, 3)) == 2
    assert undone_after(("rollback", 3, 2)) == 1
    assert undone_after(("promote", 2, 4), ("rollback", 4, 2), ("rollback", 2, 1)) is None


class Log:
    """The log of `digits`, read anew for each step."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.run_id = start_run(store, "digits", None, {}).run_id

    def read(self) -> ChampionLog:
        log = ChampionLog(self.store.reader(), "digits")
        log.entries()
        return log

    def entries(self) -> list[HistoryEntry]:
        return list(self.read().entries())

    def append(self, expected: int, to: int, **more: Any) -> HistoryEntry | None:
        row = self.store.reader().version("digits", to)
        assert row is not None
        options = {"action": "promote", "row": row, **more}
        return self.read().append(self.store, expected=expected, **options)

    def write(self, **fields: str) -> None:
        """What others write into the companion model."""
        self.store.client.create_model_version(
            log_name("digits"),
            f"runs:/{self.run_id}/bundle",
            self.run_id,
            tags={PREFIX + key: value for key, value in fields.items()},
            await_creation_for=0,
        )


@pytest.fixture
def log(store: Store, version: Version) -> Log:
    version(), version()
    return Log(store)


def test_entries_come_back_in_order_with_everything_they_say(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert log.entries() == []
    first = log.append(0, 1, reason="first")
    monkeypatch.setattr("getpass.getuser", lambda: "you")
    second = log.append(1, 2, verdict="PROMOTE")
    monkeypatch.undo()

    assert log.entries() == [first, second]
    assert first is not None and second is not None
    assert (first.revision, first.origin, first.to, first.reason) == (1, None, 1, "first")
    assert (second.revision, second.origin, second.to) == (2, 1, 2)
    assert (first.by, second.by) == (who(), "you")
    assert (second.verdict, second.reason) == ("PROMOTE", None)
    assert second.at >= first.at
    for expected in (0, 1, 3, 99):
        assert log.append(expected, 1) is None
    assert log.append(2, 1, action="refuse", verdict="REJECT") is not None
    alias = log.store.client.get_model_version_by_alias("digits", "champion")
    assert (log.read().champion(), int(alias.version)) == (2, 2)
    assert len(log.entries()) == 3


def test_what_came_too_late_or_is_no_entry_does_not_count(log: Log) -> None:
    """Left behind by an author who read before a quicker one had written, and by plain MLflow."""
    log.append(0, 1)
    log.write(expected="0", action="promote", to="7", at="later", by="slow")
    log.write()

    assert [entry.to for entry in log.entries()] == [1]
    again = log.append(1, 1)
    assert again is not None and again.revision == 2


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


def test_the_same_words_of_somebody_quicker_are_not_ones_own(log: Log) -> None:
    log.store.client = Quicker(log.store.client)  # type: ignore[assignment]

    assert log.append(0, 1) is None
    assert len(log.entries()) == 1
