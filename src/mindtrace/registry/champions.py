"""The append-only log of who was champion of a model; the alias `champion` mirrors it."""

# MLflow has no conditional write. What each of its stores has is an atomic creation of model
# versions with dense numbers. So the log is a companion model: each of its versions is an entry
# that carries the revision its author expected, and counts only if that is the revision right
# before it. All who read the entries in order find the same history. An alias cannot promise
# that, because its last writer wins.
#
# Reading must not import MLflow: the server and `registry history` read.

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from mindtrace.documents import document
from mindtrace.errors import ConflictError
from mindtrace.registry.names import BUNDLE, CHAMPION, PREFIX, log_name
from mindtrace.registry.provenance import who
from mindtrace.registry.reader import ALL, ModelVersion, Reader

if TYPE_CHECKING:
    from mindtrace.registry.store import Store

PROMOTE, ROLLBACK, REFUSE = "promote", "rollback", "refuse"

# The tag of a version that answers one class to everything.
ONE_CLASS = "one_class"
# One writer wins each revision, so only many concurrent writers make one lose this often.
ATTEMPTS = 40
_LONGEST_PAUSE = 0.05  # seconds
# What MLflow's pages, which cannot hide a registered model, say of the companion.
_ABOUT = """No model, but the history of the champions of {0}, which mindtrace keeps here: each
version is an entry, its tags say who made which version champion, when and why
(`mindtrace registry history {0}`). Leave it as it is: without it nobody can roll back."""
# What MLflow says when others created versions of this name in each of its attempts.
_GAVE_UP = "Giving up after"


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
    # Of the version `to`, what cannot come again; None of what older releases did not write.
    run_id: str | None = None
    bundle_digest: str | None = None
    created_at: str | None = None

    def is_about(self, row: ModelVersion | None) -> bool:
        """Whether `row` is the version that the entry speaks of, as far as it says."""
        return row is not None and all(
            getattr(self, name) in (None, value) for name, value in _ties(row).items()
        )

    def document(self) -> dict[str, Any]:
        """The JSON document of `mindtrace registry history`."""
        named = {"from" if key == "origin" else key: value for key, value in vars(self).items()}
        for name in ("test_digest", "token", "run_id", "bundle_digest", "created_at"):
            del named[name]
        return document(named)


def _standing(entries: Sequence[HistoryEntry]) -> list[HistoryEntry]:
    """The entries that made somebody champion and were not undone; the last one is in force."""
    standing: list[HistoryEntry] = []
    for entry in entries:
        back = entry.action == ROLLBACK
        if back and standing:
            standing.pop()
        if entry.action == PROMOTE or (back and (not standing or standing[-1].to != entry.to)):
            standing.append(entry)
    return standing


class ChampionLog:
    """The log of one model as `reader` sees it; what is written goes into a store."""

    def __init__(self, reader: Reader, model_name: str) -> None:
        self.model_name = model_name
        self._reader = reader
        self._version = cache(partial(reader.version, model_name))
        self._entries: list[HistoryEntry] = []
        self._last_number = 0

    def entries(self) -> tuple[HistoryEntry, ...]:
        """All entries as of now, oldest first; reads only what was written since the last call."""
        for number, tags in self._reader.log(self.model_name, self._last_number):
            self._last_number = number
            # Whether an entry counts depends only on what was written before it: once counted,
            # always counted, for every reader.
            if tags.get(PREFIX + "expected") == str(len(self._entries)):
                self._entries += _parse_entry(len(self._entries) + 1, self.model_name, tags)
        return tuple(self._entries)

    def counts(self, entry: HistoryEntry) -> bool:
        """Whether the version that an entry speaks of is still there."""
        return entry.is_about(self._version(entry.to))

    def champions(self) -> Iterator[HistoryEntry]:
        """Of the entries read last, those by which a version is or was champion, newest first."""
        return filter(self.counts, reversed(_standing(self._entries)))

    def champion(self) -> int | None:
        """The version in force, or None."""
        return next((entry.to for entry in self.champions()), None)

    def promotion_to_undo(self) -> HistoryEntry | None:
        """The latest promotion not yet undone whose champion before is still there, or None."""
        entries, last = self._entries, next(self.champions(), None)
        if last is None or last.action != PROMOTE or last.origin is None:
            return None
        before = [entry for entry in entries if entry.to == last.origin and entry.action != REFUSE]
        return last if not before or any(map(self.counts, before)) else None

    def shown(self, entries: Iterable[HistoryEntry]) -> list[HistoryEntry]:
        """These entries, each with whether its version is gone."""
        return [replace(entry, gone=not self.counts(entry)) for entry in entries]

    def attempts(self, if_revision: int | None = None) -> Iterator[tuple[HistoryEntry, ...]]:
        """The entries to decide on, read again after each lost race; must be at `if_revision`."""
        for _ in range(ATTEMPTS):
            entries = self.entries()
            if if_revision is not None and len(entries) != if_revision:
                reason = f"its history is at revision {len(entries)}, not {if_revision}"
                hint = f"mindtrace registry history {self.model_name}"
                raise ConflictError(f"{self.model_name}: {reason}", hint=hint)
            yield entries
            time.sleep(random.uniform(0, _LONGEST_PAUSE))
        raise self.lost_race()

    def append(
        self, store: Store, *, expected: int, action: str, row: ModelVersion, **told: Any
    ) -> HistoryEntry | None:
        """Add an entry and set the alias; None if the last revision is not `expected` any more."""
        before = self.entries()
        if len(before) != expected:
            return None
        entry = HistoryEntry(
            revision=expected + 1,
            model_name=self.model_name,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            by=who(),
            action=action,
            to=row.version,
            token=uuid4().hex,
            **{**told, **_ties(row), "origin": told.get("origin") or self.champion()},
        )
        if not self._write(store, entry):
            return None
        after = self.entries()
        # Compared by token: others may write the very same values, and MLflow's client repeats a
        # request whose answer was lost, so the number that it returns may be another author's.
        if len(after) <= expected or after[expected].token != entry.token:
            return None
        self._set_alias(store)
        return entry

    def repair_alias(self, open_store: Callable[[], Store]) -> None:
        """Set the alias to the champion of the log where it names another version."""
        self.entries()
        if self.champion() != self._reader.version_of_alias(self.model_name, CHAMPION):
            self._set_alias(open_store())

    def lost_race(self) -> ConflictError:
        """The error of a writer that lost too many races."""
        message = f"{self.model_name}: somebody else changed its champion at the same time"
        hint = f"mindtrace registry history {self.model_name}  # look, then repeat"
        return ConflictError(message, hint=hint)

    def _write(self, store: Store, entry: HistoryEntry) -> bool:
        """Write an entry, which counts or not; False if MLflow gave up."""
        from mlflow.exceptions import MlflowException

        from mindtrace.registry.store import store_errors

        kept = {**vars(entry), "expected": entry.revision - 1}
        del kept["revision"], kept["model_name"], kept["gone"]
        tags = {PREFIX + key: str(value) for key, value in kept.items() if value is not None}
        name = log_name(self.model_name)
        # An MLflow server refuses a version without a run.
        run_id = entry.run_id
        source = f"runs:/{run_id}/{BUNDLE}" if run_id else "mindtrace"
        with store_errors(store.uri):
            if entry.revision == 1:
                ensure_model(store, name, _ABOUT.format(self.model_name))
            try:
                store.client.create_model_version(
                    name, source, run_id, tags=tags, await_creation_for=0
                )
            except MlflowException as error:
                if _GAVE_UP in str(error):
                    return False
                raise
        return True

    def _set_alias(self, store: Store) -> None:
        from mindtrace.registry.store import store_errors

        # Each writer reads the log once more after it wrote the alias. So the last one to write
        # it leaves it as the log has it then.
        written, version = None, self.champion()
        while version is not None and version != written:
            with store_errors(store.uri):
                store.client.set_registered_model_alias(self.model_name, CHAMPION, str(version))
            self.entries()
            written, version = version, self.champion()


def ensure_model(store: Store, name: str, description: str | None = None) -> None:
    """Create a registered model unless it exists."""
    from mlflow.exceptions import MlflowException

    try:
        store.client.create_registered_model(name, description=description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def promote_first_version(store: Store, model_name: str, version: int) -> bool:
    """Make a version champion if its name never had one and it tells classes apart; whether so."""
    reader = store.reader()
    log = ChampionLog(reader, model_name)
    entries, row = log.entries(), reader.version(model_name, version)
    if row is None or ONE_CLASS in row.own_tags or log.champion() is not None:
        return False
    if reader.version_of_alias(model_name, CHAMPION) is not None:
        return False  # MLflow's own page set it, or renamed the model
    # Entries of a deleted model of this name are no matter.
    before = reader.versions(model_name, ALL, after=version) if entries else ()
    if any("bundle_digest" in one.own_tags for one in before):
        return False
    # None also where another first version was quicker: that one is champion then.
    why = "first version"
    return log.append(store, expected=len(entries), action=PROMOTE, row=row, reason=why) is not None


def _ties(row: ModelVersion) -> dict[str, Any]:
    """What cannot come again when a version's number does, after its model was deleted."""
    digest = row.own_tags.get("bundle_digest")
    return {"run_id": row.run_id, "bundle_digest": digest, "created_at": row.created_at}


def _parse_entry(revision: int, model_name: str, tags: Mapping[str, str]) -> list[HistoryEntry]:
    """The entry in these tags; none in what somebody else wrote, which must not stop the log."""
    names = {field.name for field in fields(HistoryEntry)}
    found: dict[str, Any] = {
        name: value for key, value in tags.items() if (name := key.removeprefix(PREFIX)) in names
    }
    try:
        origin = found.get("origin")
        found |= {"origin": None if origin is None else int(origin), "to": int(found["to"])}
        # Older releases did not write that a promotion was forced; its verdict shows it.
        overruled = found["action"] == PROMOTE and found.get("verdict") in ("HOLD", "REJECT")
        found["forced"] = found.get("forced") == "True" or overruled
        found |= {"revision": revision, "model_name": model_name, "gone": False}
        return [HistoryEntry(**found)]
    except (KeyError, ValueError, TypeError):
        return []
