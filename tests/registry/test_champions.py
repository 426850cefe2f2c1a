"""The history of champions: append-only, dense, one winner a revision, the same for all readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, strategies as st
from tests.registry.conftest import Version

from mindtrace.registry.champions import ChampionLog, HistoryEntry
from mindtrace.registry.names import PREFIX
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


@pytest.mark.parametrize("changed", [None, "run_id", "bundle_digest", "created_at"])
def test_an_entry_is_about_one_version(changed: str | None) -> None:
    """Not about another of its number, after its model was deleted; older ones say less."""
    ties = {"run_id": "r", "bundle_digest": "d", "created_at": "t"}
    now = ties | {str(changed): "x"}
    digest = {f"{PREFIX}bundle_digest": now["bundle_digest"]}
    row = ModelVersion("digits", 1, (), now["run_id"], now["created_at"], digest, {}, None)
    (entry,) = log_of([tags(0, **ties)]).entries()
    assert entry.is_about(row) is (changed is None)
    assert not entry.is_about(None)
    (older,) = log_of([tags(0)]).entries()
    assert older.is_about(row)


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


@pytest.fixture
def log(store: Store, version: Version) -> Log:
    version(), version()
    return Log(store)


def test_an_entry_counts_only_at_the_revision_that_its_author_expected(log: Log) -> None:
    assert log.entries() == []
    first, second = log.append(0, 1, reason="first"), log.append(1, 2, verdict="PROMOTE")
    assert log.entries() == [first, second]
    for expected in (0, 1, 3, 99):
        assert log.append(expected, 1) is None
    assert len(log.entries()) == 2


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
