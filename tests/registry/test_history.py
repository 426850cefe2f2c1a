"""What counts of a log: the same for every reader, however often he looked before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from mindtrace.registry.champions import (
    ChampionLog,
    HistoryEntry,
    Written,
    champion_of,
    promotion_to_undo,
    times_used,
)
from mindtrace.registry.champions import parse_log as parse
from mindtrace.registry.names import PREFIX
from mindtrace.registry.store import Store


def tags(expected: int | str, action: str = "promote", to: int | str = 1, **more: str) -> Written:
    fields = {"expected": expected, "action": action, "to": to, "at": "now", "by": "me", **more}
    return 0, {PREFIX + key: str(value) for key, value in fields.items()}


def parse_log(rows: Iterable[Written]) -> list[HistoryEntry]:
    return parse("digits", rows)


def no_store() -> Store:
    raise AssertionError("reading opens no store")


def numbered(rows: Sequence[Written]) -> list[tuple[int, Mapping[str, str]]]:
    return [(number, found) for number, (_, found) in enumerate(rows, 1)]


written = st.lists(
    st.builds(tags, st.integers(0, 6), st.sampled_from(["promote", "rollback", "refuse"])),
    max_size=20,
)


@given(written)
def test_revisions_are_dense_whatever_was_written(rows: list[Written]) -> None:
    entries = parse_log(numbered(rows))
    assert [entry.revision for entry in entries] == list(range(1, len(entries) + 1))


@given(written, st.lists(st.integers(0, 20), max_size=4))
def test_who_looks_often_sees_what_a_newcomer_sees(rows: list[Written], looks: list[int]) -> None:
    everything, there = numbered(rows), 0
    log = ChampionLog(
        "digits", lambda after: [row for row in everything[:there] if row[0] > after], no_store
    )
    for there in [*sorted(looks), len(rows)]:
        assert list(log.entries()) == parse_log(everything[:there])


def test_what_no_entry_can_be_does_not_count_and_stops_nobody() -> None:
    rows = [
        (0, {}),
        (0, {PREFIX + "expected": "0"}),
        tags(0, to="x"),
        tags("zero"),
        tags(0, to=5),
        tags(0, to=6),
        tags(1, to=7, action="refuse"),
    ]
    entries = parse_log(numbered(rows))
    assert [(entry.revision, entry.to) for entry in entries] == [(1, 5), (2, 7)]
    assert champion_of(entries) == 5


def test_a_rollback_undoes_the_latest_promotion_that_still_stands() -> None:
    def entries(*steps: tuple[str, int | None, int]) -> list[Written]:
        return [
            tags(index, action, to, **({} if origin is None else {"origin": str(origin)}))
            for index, (action, origin, to) in enumerate(steps)
        ]

    steps: list[tuple[str, int | None, int]] = [("promote", None, 1)]
    assert promotion_to_undo(parse_log(entries())) is None
    assert promotion_to_undo(parse_log(entries(*steps))) is None
    steps += [("promote", 1, 2), ("refuse", 2, 9), ("promote", 2, 3)]
    assert getattr(promotion_to_undo(parse_log(entries(*steps))), "origin", None) == 2
    steps += [("rollback", 3, 2)]
    assert getattr(promotion_to_undo(parse_log(entries(*steps))), "origin", None) == 1
    steps += [("promote", 2, 4), ("rollback", 4, 2), ("rollback", 2, 1)]
    assert promotion_to_undo(parse_log(entries(*steps))) is None


def test_decisions_on_a_test_set_are_parse_log() -> None:
    rows = [tags(0), tags(1, test_digest="a"), tags(2, "refuse", test_digest="a")]
    entries = parse_log(rows)
    assert (times_used(entries, "a"), times_used(entries, "b")) == (2, 0)
