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
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from mindtrace.documents import document
from mindtrace.errors import ConflictError
from mindtrace.registry.names import BUNDLE, CHAMPION, PREFIX, log_name
from mindtrace.registry.reader import iso

if TYPE_CHECKING:
    from mindtrace.registry.reader import ModelVersion, Reader
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


class Identity(NamedTuple):
    """What cannot come again when a version's number does, after its model was deleted."""

    run_id: str | None
    bundle_digest: str | None
    created_at: str | None  # UTC, ISO 8601


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
    forced: bool = False  # whatever the gate said
    gone: bool = False  # the version `to` exists no more; the entry makes nobody champion
    # The identity of the version `to`; None of what older releases did not write.
    run_id: str | None = None
    bundle_digest: str | None = None
    created_at: str | None = None

    def is_about(self, version: Identity | None) -> bool:
        """Whether `version` is the one that the entry speaks of, as far as it says."""
        if version is None:
            return False
        known = (self.run_id, self.bundle_digest, self.created_at)
        return all(mine in (None, its) for mine, its in zip(known, version, strict=True))

    def document(self) -> dict[str, Any]:
        """The JSON document of `mindtrace registry history`."""
        named = {"from" if key == "origin" else key: value for key, value in vars(self).items()}
        for name in ("test_digest", "token", *Identity._fields):
            del named[name]
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


def identity_of(row: ModelVersion) -> Identity:
    """What cannot come again of a version."""
    return Identity(row.run_id, row.own_tags.get("bundle_digest"), row.created_at)


Counts = Callable[[HistoryEntry], bool]


def champion_of(entries: Sequence[HistoryEntry], counts: Counts = lambda _: True) -> int | None:
    """The version that the entries name, or None."""
    return next((entry.to for entry in reversed(champions(entries)) if counts(entry)), None)


def champions(entries: Sequence[HistoryEntry]) -> list[HistoryEntry]:
    """The entries that made somebody champion and were not undone; the last one is in force."""
    standing: list[HistoryEntry] = []
    for entry in entries:
        if entry.action == ROLLBACK and standing:
            standing.pop()
        if entry.action == PROMOTE or (
            entry.action == ROLLBACK and (not standing or standing[-1].to != entry.to)
        ):
            standing.append(entry)
    return standing


def promotion_to_undo(
    entries: Sequence[HistoryEntry], counts: Counts = lambda _: True
) -> HistoryEntry | None:
    """The latest promotion not yet undone whose champion before is still there, or None."""
    last = next((entry for entry in reversed(champions(entries)) if counts(entry)), None)
    if last is None or last.action != PROMOTE or last.origin is None:
        return None
    before = [entry for entry in entries if entry.to == last.origin and entry.action != REFUSE]
    return last if not before or any(map(counts, before)) else None


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
        identity: Callable[[int], Identity | None] | None = None,
    ) -> None:
        self.model_name = model_name
        self._written = written
        self.identity = functools.cache(identity or (lambda _: None))
        self._checks = identity is not None
        # Opened by the first write, which is when MLflow is imported.
        self._store = functools.cache(open_store)
        self._entries: tuple[HistoryEntry, ...] = ()
        self._last_number = 0

    @classmethod
    def of_store(cls, store: Store, model_name: str) -> ChampionLog:
        """The log as MLflow's client reads it."""
        from mindtrace.registry.store import if_there, store_errors

        def identity(number: int) -> Identity | None:
            with store_errors(store.uri):
                row = if_there(lambda: store.client.get_model_version(model_name, str(number)))
            if row is None:
                return None
            digest, created = row.tags.get(PREFIX + "bundle_digest"), row.creation_timestamp
            return Identity(row.run_id or None, digest, iso(created))

        return cls(
            model_name, functools.partial(written, store, model_name), lambda: store, identity
        )

    @classmethod
    def of_reader(
        cls, reader: Reader, model_name: str, open_store: Callable[[], Store]
    ) -> ChampionLog:
        """The log of a reader; the store is opened by the first write."""

        def identity(number: int) -> Identity | None:
            row = reader.version(model_name, number)
            return None if row is None else identity_of(row)

        return cls(model_name, functools.partial(reader.log, model_name), open_store, identity)

    def entries(self) -> tuple[HistoryEntry, ...]:
        """All entries as of now, oldest first; reads only what was written since the last call."""
        rows = self._written(self._last_number)
        if rows:
            self._entries = tuple(parse_log(self.model_name, rows, self._entries))
            self._last_number = rows[-1][0]
        return self._entries

    def counts(self, entry: HistoryEntry) -> bool:
        """Whether the version that an entry speaks of is still there."""
        return not self._checks or entry.is_about(self.identity(entry.to))

    def champion(self) -> int | None:
        """The version that the entries read last name, or None."""
        return champion_of(self._entries, self.counts)

    def shown(self, entries: Iterable[HistoryEntry]) -> list[HistoryEntry]:
        """These entries, each with whether its version is gone."""
        return [replace(entry, gone=not self.counts(entry)) for entry in entries]

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
        identity: Identity,
        origin: int | None = None,
        reason: str | None = None,
        verdict: str | None = None,
        test_digest: str | None = None,
        forced: bool = False,
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
            origin=origin or self.champion(),
            to=to,
            reason=reason,
            verdict=verdict,
            test_digest=test_digest,
            token=uuid4().hex,
            forced=forced,
            **identity._asdict(),
        )
        if not self._write(entry):
            return None
        after = self.entries()
        # Compared by token: others may write the very same values, and MLflow's client repeats a
        # request whose answer was lost, so the number that it returns may be another author's.
        if len(after) <= expected or after[expected].token != entry.token:
            return None
        self._set_alias(self.champion())
        return entry

    def repair_alias(self, alias: int | None) -> None:
        """Set the alias, which names `alias` now, to the champion of the log."""
        self.entries()
        if self.champion() != alias:
            self._set_alias(self.champion())

    def lost_race(self) -> ConflictError:
        """The error of a writer that lost too many races."""
        return ConflictError(
            f"{self.model_name}: somebody else changed its champion at the same time",
            hint=f"look with mindtrace registry history {self.model_name}, then repeat",
        )

    def _write(self, entry: HistoryEntry) -> bool:
        """Write an entry, which counts or not; False if MLflow gave up."""
        from mlflow.exceptions import MlflowException

        from mindtrace.registry.store import store_errors

        kept = {**vars(entry), "expected": entry.revision - 1}
        del kept["revision"], kept["model_name"], kept["gone"]
        tags = {PREFIX + key: str(value) for key, value in kept.items() if value is not None}
        store, name = self._store(), log_name(self.model_name)
        # An MLflow server refuses a version without a run.
        run_id = entry.run_id
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
            self.entries()
            written, version = version, self.champion()


def written(store: Store, model_name: str, after: int = 0) -> list[Written]:
    """Number and tags of all in the companion model after a number, in order."""
    from mindtrace.registry.store import pages, store_errors

    where = f"name = '{log_name(model_name)}' and version_number > {after}"
    order = ["version_number ASC"]
    with store_errors(store.uri):
        found = pages(store.client.search_model_versions, where, max_results=_PAGE, order_by=order)
        rows = [
            (
                int(one.version),
                {PREFIX + "run_id": one.run_id, **one.tags} if one.run_id else one.tags,
            )
            for one in found
        ]
    return sorted(rows, key=lambda row: row[0])


def ensure_model(store: Store, name: str, description: str | None = None) -> None:
    """Create a registered model unless it exists."""
    from mlflow.exceptions import MlflowException

    try:
        store.client.create_registered_model(name, description=description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def promote_first_version(store: Store, model_name: str, version: int, by: str) -> bool:
    """Make a version champion if its name has none and never had one; whether it did."""
    log = ChampionLog.of_store(store, model_name)
    entries = log.entries()
    identity = log.identity(version)
    if log.champion() is not None or identity is None or not _is_first(log, store, version):
        return False
    # None also where another first version was quicker: that one is champion then.
    entry = log.append(
        expected=len(entries),
        action=PROMOTE,
        to=version,
        by=by,
        identity=identity,
        reason="first version",
    )
    return entry is not None


def _is_first(log: ChampionLog, store: Store, version: int) -> bool:
    """Whether nobody was champion before; entries of a deleted model of this name are no matter."""
    from mindtrace.registry.store import if_there, pages, store_errors

    client, name = store.client, log.model_name
    with store_errors(store.uri):
        if if_there(lambda: client.get_model_version_by_alias(name, CHAMPION)) is not None:
            return False  # MLflow's own page set it, or renamed the model
        if not log.entries():
            return True
        where = f"name = '{name}' and version_number < {version}"
        before = pages(client.search_model_versions, where, max_results=_PAGE)
        return not any(PREFIX + "bundle_digest" in one.tags for one in before)


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
        # Older releases did not write that a promotion was forced; its verdict shows it.
        overruled = found["action"] == PROMOTE and found.get("verdict") in ("HOLD", "REJECT")
        found |= {"forced": found.get("forced") == "True" or overruled, "gone": False}
        return HistoryEntry(**found)
    except (KeyError, ValueError, TypeError):
        return None
