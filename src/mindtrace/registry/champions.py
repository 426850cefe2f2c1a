"""The append-only log of who was champion of a model; the alias `champion` mirrors it."""

# MLflow has no conditional write. What each of its stores has is an atomic creation of model
# versions with dense numbers. So the log is a companion model: each of its versions is an entry
# that carries the revision its author expected, and counts only if that is the revision right
# before it. All who read the entries in order find the same history. An alias cannot promise
# that, because its last writer wins.
#
# Reading must not import MLflow: the server and `registry history` read.

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from mindtrace.documents import document
from mindtrace.errors import ConflictError
from mindtrace.registry.names import BUNDLE, CHAMPION, PREFIX, log_name

if TYPE_CHECKING:
    from mindtrace.registry.store import Store

PROMOTE, ROLLBACK, REFUSE = "promote", "rollback", "refuse"

# One writer wins each revision, so only many concurrent writers make one lose this often.
ATTEMPTS = 40
_LONGEST_PAUSE = 0.05  # seconds
_PAGE = 1000
# What MLflow says when others created versions of this name in each of its attempts.
_GAVE_UP = "Giving up after"

# Number and tags of a version of the companion model.
Written = tuple[int, Mapping[str, str]]


@dataclass(frozen=True)
class HistoryEntry:
    """One entry that counts: who made which version champion, or refused to, and why."""

    revision: int  # 1 for the first
    model_name: str
    at: str  # UTC, ISO 8601
    by: str
    action: str  # PROMOTE, ROLLBACK or REFUSE
    origin: int | None  # the champion before
    to: int
    reason: str | None = None
    verdict: str | None = None  # of the gate
    test_digest: str | None = None  # of the test set that the gate used
    token: str | None = None  # by which its author recognises it

    def document(self) -> dict[str, Any]:
        """The JSON document of `mindtrace registry history`."""
        named = {"from" if key == "origin" else key: value for key, value in vars(self).items()}
        del named["test_digest"], named["token"]
        return document(named)


def parse_log(
    model_name: str, written: Iterable[Written], before: Sequence[HistoryEntry] = ()
) -> list[HistoryEntry]:
    """`before` and the entries that count of what was written after it, without gaps."""
    # Whether an entry counts depends only on what was written before it: once counted, always
    # counted, for every reader.
    entries = list(before)
    for _, tags in written:
        if tags.get(PREFIX + "expected") == str(len(entries)):
            entry = _parse_entry(len(entries) + 1, model_name, tags)
            if entry is not None:
                entries.append(entry)
    return entries


def champion_of(entries: Sequence[HistoryEntry]) -> int | None:
    """The version that the log names, or None."""
    return next((entry.to for entry in reversed(entries) if entry.action != REFUSE), None)


def promotion_to_undo(entries: Sequence[HistoryEntry]) -> HistoryEntry | None:
    """The latest promotion not yet undone that had a champion before it, or None."""
    standing: list[HistoryEntry] = []
    for entry in entries:
        if entry.action == PROMOTE:
            standing.append(entry)
        elif entry.action == ROLLBACK and standing:
            standing.pop()
    return standing[-1] if standing and standing[-1].origin is not None else None


def times_used(entries: Sequence[HistoryEntry], test_digest: str) -> int:
    """How often this test set has decided about a promotion."""
    return sum(entry.test_digest == test_digest for entry in entries)


class ChampionLog:
    """The log of one model; `written(n)` gives what its companion holds after number n."""

    def __init__(
        self,
        model_name: str,
        written: Callable[[int], Sequence[Written]],
        open_store: Callable[[], Store],
    ) -> None:
        self.model_name = model_name
        self._written = written
        # Opened by the first write, which is when MLflow is imported.
        self._store = functools.cache(open_store)
        self._entries: tuple[HistoryEntry, ...] = ()
        self._last_number = 0

    @classmethod
    def of_store(cls, store: Store, model_name: str) -> ChampionLog:
        """The log as MLflow's client reads it."""
        return cls(model_name, functools.partial(written, store, model_name), lambda: store)

    def entries(self) -> tuple[HistoryEntry, ...]:
        """All entries as of now, oldest first; reads only what was written since the last call."""
        rows = self._written(self._last_number)
        if rows:
            self._entries = tuple(parse_log(self.model_name, rows, self._entries))
            self._last_number = rows[-1][0]
        return self._entries

    def attempts(self, if_revision: int | None = None) -> Iterator[tuple[HistoryEntry, ...]]:
        """The entries to decide on, read again after each lost race; must be at `if_revision`."""
        for _ in range(ATTEMPTS):
            entries = self.entries()
            if if_revision is not None and len(entries) != if_revision:
                raise ConflictError(
                    f"{self.model_name}: its history is at revision {len(entries)}, "
                    f"not {if_revision}",
                    hint=f"mindtrace registry history {self.model_name}",
                )
            yield entries
            time.sleep(random.uniform(0, _LONGEST_PAUSE))
        raise self.lost_race()

    def append(
        self,
        *,
        expected: int,
        action: str,
        to: int,
        by: str,
        run_id: str | None,
        reason: str | None = None,
        verdict: str | None = None,
        test_digest: str | None = None,
    ) -> HistoryEntry | None:
        """Add an entry and set the alias; None if the last revision is not `expected` any more."""
        before = self.entries()
        if len(before) != expected:
            return None
        entry = HistoryEntry(
            revision=expected + 1,
            model_name=self.model_name,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            by=by,
            action=action,
            origin=champion_of(before),
            to=to,
            reason=reason,
            verdict=verdict,
            test_digest=test_digest,
            token=uuid4().hex,
        )
        if not self._write(entry, run_id):
            return None
        after = self.entries()
        # Compared by token: others may write the very same values, and MLflow's client repeats a
        # request whose answer was lost, so the number that it returns may be another author's.
        if len(after) <= expected or after[expected].token != entry.token:
            return None
        self._set_alias(champion_of(after))
        return entry

    def repair_alias(self, alias: int | None) -> None:
        """Set the alias, which names `alias` now, to the champion of the log."""
        champion = champion_of(self.entries())
        if champion != alias:
            self._set_alias(champion)

    def lost_race(self) -> ConflictError:
        """The error of a writer that lost too many races."""
        return ConflictError(
            f"{self.model_name}: somebody else changed its champion at the same time",
            hint=f"look with mindtrace registry history {self.model_name}, then repeat",
        )

    def _write(self, entry: HistoryEntry, run_id: str | None) -> bool:
        """Write an entry, which counts or not; False if MLflow gave up."""
        from mlflow.exceptions import MlflowException

        from mindtrace.registry.store import store_errors

        kept = {**vars(entry), "expected": entry.revision - 1}
        del kept["revision"], kept["model_name"]
        tags = {PREFIX + key: str(value) for key, value in kept.items() if value is not None}
        store, name = self._store(), log_name(self.model_name)
        # An MLflow server refuses a version without a run.
        source = f"runs:/{run_id}/{BUNDLE}" if run_id else "mindtrace"
        with store_errors(store.uri):
            if entry.revision == 1:
                ensure_model(store, name, "history of champions, kept by mindtrace")
            try:
                store.client.create_model_version(
                    name, source, run_id, tags=tags, await_creation_for=0
                )
            except MlflowException as error:
                if _GAVE_UP in str(error):
                    return False
                raise
        return True

    def _set_alias(self, version: int | None) -> None:
        from mindtrace.registry.store import store_errors

        # Each writer reads the log once more after it wrote the alias. So the last one to write
        # it leaves it as the log has it then.
        written = None
        while version is not None and version != written:
            store = self._store()
            with store_errors(store.uri):
                store.client.set_registered_model_alias(self.model_name, CHAMPION, str(version))
            written, version = version, champion_of(self.entries())


def written(store: Store, model_name: str, after: int = 0) -> list[Written]:
    """Number and tags of all in the companion model after a number, in order."""
    from mindtrace.registry.store import pages, store_errors

    where = f"name = '{log_name(model_name)}' and version_number > {after}"
    order = ["version_number ASC"]
    with store_errors(store.uri):
        found = pages(store.client.search_model_versions, where, max_results=_PAGE, order_by=order)
        rows = [(int(version.version), version.tags) for version in found]
    return sorted(rows, key=lambda row: row[0])


def ensure_model(store: Store, name: str, description: str | None = None) -> None:
    """Create a registered model unless it exists."""
    from mlflow.exceptions import MlflowException

    try:
        store.client.create_registered_model(name, description=description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def promote_first_version(
    store: Store, model_name: str, version: int, run_id: str, by: str
) -> bool:
    """Make a version champion if its name has no history; whether it did."""
    # None also where another first version was quicker: that one is champion then.
    entry = ChampionLog.of_store(store, model_name).append(
        expected=0, action=PROMOTE, to=version, by=by, run_id=run_id, reason="first version"
    )
    return entry is not None


def _parse_entry(revision: int, model_name: str, tags: Mapping[str, str]) -> HistoryEntry | None:
    """The entry in these tags; None for what somebody else wrote, which must not stop the log."""
    names = {field.name for field in fields(HistoryEntry)}
    found: dict[str, Any] = {
        name: value for key, value in tags.items() if (name := key.removeprefix(PREFIX)) in names
    }
    found |= {"revision": revision, "model_name": model_name}
    try:
        origin = found.get("origin")
        found |= {"origin": None if origin is None else int(origin), "to": int(found["to"])}
        return HistoryEntry(**found)
    except (KeyError, ValueError, TypeError):
        return None
