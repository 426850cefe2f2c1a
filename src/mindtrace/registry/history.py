"""What the log of champions says, for whoever reads it; light.

In: what was written into the companion model of a name, in its order. Out: the entries
that count, the champion, and which promotion a rollback would undo. `promotion` writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mindtrace.registry.names import PREFIX

PROMOTE, ROLLBACK, REFUSE = "promote", "rollback", "refuse"

Written = tuple[int, Mapping[str, str]]


@dataclass(frozen=True)
class Entry:
    """One counted line of the history.

    Attributes:
        revision: 1 for the first.
        at: UTC, ISO 8601.
        by: who.
        action: `promote`, `rollback` or `refuse`.
        origin: the champion before, or None.
        to: the version it is about.
        reason: free text, or None.
        verdict: the gate's, or None.
        test_digest: of the test set that the gate used, or None.
        token: by which its author knows it again, or None.
    """

    revision: int
    at: str
    by: str
    action: str
    origin: int | None
    to: int
    reason: str | None = None
    verdict: str | None = None
    test_digest: str | None = None
    token: str | None = None


class History:
    """What counts of one log; each look reads only what was written since the one before.

    Numbers are dense and given in order, so what was seen is never added to.
    """

    def __init__(self, written: Callable[[int], Sequence[Written]]) -> None:
        """Remember how to read.

        Args:
            written: everything behind a number, in the order of writing.
        """
        self._written = written
        self._entries: tuple[Entry, ...] = ()
        self._seen = 0

    def read(self) -> tuple[Entry, ...]:
        """All counted entries as of now, oldest first.

        Raises:
            StoreError: the store is away.
        """
        rows = self._written(self._seen)
        if rows:
            self._entries = tuple(counted(rows, self._entries))
            self._seen = rows[-1][0]
        return self._entries


def counted(written: Iterable[Written], before: Sequence[Entry] = ()) -> list[Entry]:
    """The entries that count.

    Whether one counts depends on what was written before it and on nothing else. So a
    counted entry counts for ever, and every reader finds the same ones.

    Args:
        written: number and tags of everything after `before`, in the order of writing.
        before: what is known to count.

    Returns:
        `before` and what follows it, revisions without a gap.
    """
    entries = list(before)
    for _, tags in written:
        if tags.get(PREFIX + "expected") == str(len(entries)):
            entry = _entry(len(entries) + 1, tags)
            if entry is not None:
                entries.append(entry)
    return entries


def champion(entries: Sequence[Entry]) -> int | None:
    """The version that the log names, or None."""
    for entry in reversed(entries):
        if entry.action != REFUSE:
            return entry.to
    return None


def to_undo(entries: Sequence[Entry]) -> Entry | None:
    """The latest promotion not yet undone that had a champion before it, or None."""
    standing: list[Entry] = []
    for entry in entries:
        if entry.action == PROMOTE:
            standing.append(entry)
        elif entry.action == ROLLBACK and standing:
            standing.pop()
    return standing[-1] if standing and standing[-1].origin is not None else None


def times_used(entries: Sequence[Entry], test_digest: str) -> int:
    """How often this test set has decided about a promotion."""
    return sum(entry.test_digest == test_digest for entry in entries)


def _entry(revision: int, tags: Mapping[str, str]) -> Entry | None:
    """The entry in these tags; None for a stranger's, which must not stop the log."""
    found = {key.removeprefix(PREFIX): value for key, value in tags.items()}
    try:
        origin = found.get("origin")
        return Entry(
            revision=revision,
            at=found["at"],
            by=found["by"],
            action=found["action"],
            origin=None if origin is None else int(origin),
            to=int(found["to"]),
            reason=found.get("reason"),
            verdict=found.get("verdict"),
            test_digest=found.get("test_digest"),
            token=found.get("token"),
        )
    except (KeyError, ValueError):
        return None
