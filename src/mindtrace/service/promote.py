"""The verbs promote, rollback and history: who is champion, who was, and who said so.

In: references and what the caller insists on. Out: what was decided. Reading and deciding
import no MLflow; writing does, and one writer wins each revision of the history.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mindtrace.core.documents import document
from mindtrace.core.settings import Settings
from mindtrace.errors import (
    BundleError,
    ConflictError,
    MindtraceError,
    NotFoundError,
    UsageError,
    VerdictError,
    listed,
)

if TYPE_CHECKING:
    from mindtrace.registry.compare import Comparison
    from mindtrace.registry.history import Entry
    from mindtrace.registry.promotion import Log
    from mindtrace.registry.rows import Reader, VersionRow

# Somebody wins each revision, so only a crowd makes one writer lose this often.
_ATTEMPTS = 40
_LONGEST_PAUSE = 0.05  # seconds
_LONGEST_REASON = 1000  # MLflow's limit for a tag is above


@dataclass(frozen=True)
class HistoryEntry:
    """One line of the history of champions; `origin` is `from` in JSON."""

    revision: int
    model_name: str
    at: str
    by: str
    action: str
    origin: int | None
    to: int
    reason: str | None
    verdict: str | None

    def document(self) -> dict[str, Any]:
        """The JSON document of `mindtrace registry history`."""
        fields = {"from" if key == "origin" else key: value for key, value in vars(self).items()}
        return document(fields)


@dataclass(frozen=True)
class Promotion:
    """What became of a wish to promote.

    Attributes:
        model_name: of the model.
        version: the challenger.
        champion: who was champion before, or None.
        promoted: whether the challenger is champion now.
        dry_run: whether nothing was to be changed.
        forced: whether the gate was only asked.
        revision: of the history now.
        verdict: the gate's; None where there was nothing to compare with.
        reasons: of the verdict, one line each.
        reason: the caller's.
        times_used: how many earlier decisions this test set was used for.
        comparison: champion and challenger, or None.
    """

    model_name: str
    version: int
    champion: int | None
    promoted: bool
    dry_run: bool
    forced: bool
    revision: int
    verdict: str | None
    reasons: tuple[str, ...]
    reason: str | None
    times_used: int
    comparison: Comparison | None

    def document(self) -> dict[str, Any]:
        """The JSON document of `mindtrace registry promote`."""
        comparison = None if self.comparison is None else self.comparison.document()
        return document({**vars(self), "reasons": list(self.reasons), "comparison": comparison})

    def demand(self) -> None:
        """Raise unless the gate lets the challenger pass, or was told to.

        Raises:
            VerdictError: HOLD or REJECT.
        """
        if self.forced or self.verdict in (None, "PROMOTE"):
            return
        raise VerdictError(
            f"{self.verdict}: {self.model_name}/{self.version} does not replace "
            f"{self.model_name}/{self.champion}: {listed(self.reasons, 2)}",
            hint=f"mindtrace registry compare {self.model_name} {self.version} --html changes.html",
        )


def promote(
    settings: Settings,
    ref: str,
    *,
    dry_run: bool = False,
    margin: float = 0.01,
    force: bool = False,
    reason: str | None = None,
    if_revision: int | None = None,
) -> Promotion:
    """Make a version champion, if the gate lets it pass.

    A refusal is written into the history and returned; `Promotion.demand` raises it.

    Args:
        settings: which registry.
        ref: the challenger.
        dry_run: decide, change nothing.
        margin: how much worse is still as good.
        force: promote whatever the gate says; wants a reason.
        reason: kept in the history.
        if_revision: only if the history is at this revision.

    Raises:
        NotFoundError: no such version.
        BundleError: its bundle, or the champion's, is not what was registered.
        UsageError: it cannot be compared with the champion, or an argument is wrong.
        ConflictError: the history is at another revision than `if_revision`.
        StoreError: the registry cannot be read or written.
    """
    _check(margin, force, reason)
    from mindtrace.inference.predictor import Predictor
    from mindtrace.registry.history import PROMOTE, REFUSE, champion, times_used
    from mindtrace.registry.lookup import locate_row, open_reader

    reader = open_reader(settings)
    row = _find(settings, reader, ref)
    located = locate_row(settings, reader, row)
    Predictor.open(located.folder, located.digest)
    writer = _Writer(settings, reader, row.name)
    compared: dict[int, Comparison | None] = {}
    for _ in range(_ATTEMPTS):
        entries = writer.entries(if_revision)
        before = champion(entries)
        comparison = None
        if before is not None and before != row.version:
            if before not in compared:
                compared[before] = _gate(settings, reader, row, before, margin, force)
            comparison = compared[before]
        refused = comparison is not None and comparison.verdict != "PROMOTE" and not force
        used = 0 if comparison is None else times_used(entries, comparison.test_digest)
        revision = len(entries)
        if before == row.version:
            if not dry_run:
                writer.repair(before)
        elif not dry_run:
            entry = writer.append(
                revision, REFUSE if refused else PROMOTE, row, reason, comparison, if_revision
            )
            if entry is None:
                continue
            revision = entry.revision
        return Promotion(
            model_name=row.name,
            version=row.version,
            champion=before,
            promoted=before == row.version or not (refused or dry_run),
            dry_run=dry_run,
            forced=force,
            revision=revision,
            verdict=None if comparison is None else comparison.verdict,
            reasons=_reasons(row, before) if comparison is None else comparison.reasons,
            reason=reason,
            times_used=used,
            comparison=comparison,
        )
    raise _crowd(row.name)


def rollback(
    settings: Settings,
    name: str | None = None,
    *,
    reason: str | None = None,
    if_revision: int | None = None,
) -> HistoryEntry:
    """Put the champion before the latest promotion not yet undone back.

    Args:
        settings: which registry.
        name: of the model; None for the one there is.
        reason: kept in the history.
        if_revision: only if the history is at this revision.

    Raises:
        NotFoundError: no such model, or the champion to restore was deleted.
        BundleError: the bundle of the champion to restore is not what was registered.
        ConflictError: nothing to roll back, or somebody else changed the champion.
        StoreError: the registry cannot be read or written.
    """
    _check_reason(reason)
    from mindtrace.inference.predictor import Predictor
    from mindtrace.registry.history import ROLLBACK, to_undo
    from mindtrace.registry.lookup import locate_row, open_reader

    reader = open_reader(settings)
    model_name = _model(settings, reader, name)
    writer = _Writer(settings, reader, model_name)
    wanted: Entry | None = None
    for _ in range(_ATTEMPTS):
        entries = writer.entries(if_revision)
        undone = to_undo(entries)
        if undone is None:
            writer.repair(_champion(entries))
            raise ConflictError(
                f"{model_name}: there is nothing to roll back",
                hint=f"mindtrace registry history {model_name}",
            )
        if wanted is not None and undone != wanted:
            # Somebody else undid it or promoted on: what the caller saw is gone.
            raise _crowd(model_name)
        wanted = undone
        row = _find(settings, reader, f"{model_name}/{undone.origin}")
        located = locate_row(settings, reader, row)
        Predictor.open(located.folder, located.digest)
        entry = writer.append(len(entries), ROLLBACK, row, reason, None, if_revision)
        if entry is not None:
            return _told(model_name, entry)
    raise _crowd(model_name)


def history(
    settings: Settings, name: str | None = None, *, repair: bool = True
) -> list[HistoryEntry]:
    """The history of a model, oldest first; empty where nobody was ever champion.

    Args:
        settings: which registry.
        name: of the model; None for the one there is.
        repair: set the alias right if it differs from the history.

    Raises:
        NotFoundError: no such model.
        StoreError: the registry cannot be read.
    """
    from mindtrace.registry.lookup import open_reader

    reader = open_reader(settings)
    model_name = _model(settings, reader, name)
    writer = _Writer(settings, reader, model_name)
    entries = writer.entries(None)
    if repair:
        writer.repair(_champion(entries))
    return [_told(model_name, entry) for entry in entries]


class _Writer:
    """The history of one name: read with the light reader, written through MLflow."""

    def __init__(self, settings: Settings, reader: Reader, model_name: str) -> None:
        from mindtrace.registry.history import History

        self._settings = settings
        self._reader = reader
        self._name = model_name
        self._history = History(functools.partial(reader.log, model_name))
        self._log: Log | None = None

    def entries(self, if_revision: int | None) -> Sequence[Entry]:
        """What counts as of now.

        Raises:
            ConflictError: it is not what the caller insists on.
        """
        entries = self._history.read()
        if if_revision is not None and len(entries) != if_revision:
            raise ConflictError(
                f"{self._name}: its history is at revision {len(entries)}, not {if_revision}",
                hint=f"mindtrace registry history {self._name}",
            )
        return entries

    def append(
        self,
        expected: int,
        action: str,
        row: VersionRow,
        reason: str | None,
        comparison: Comparison | None,
        if_revision: int | None,
    ) -> Entry | None:
        """Add an entry; None if somebody was quicker and the caller may look again.

        Raises:
            ConflictError: somebody was quicker, and the caller insists on a revision.
        """
        from mindtrace.registry.provenance import who

        try:
            return self._open().append(
                expected=expected,
                action=action,
                to=row.version,
                by=who(),
                run_id=row.run_id,
                reason=reason,
                verdict=None if comparison is None else comparison.verdict,
                test_digest=None if comparison is None else comparison.test_digest,
            )
        except ConflictError:
            if if_revision is not None:
                raise
        time.sleep(random.uniform(0, _LONGEST_PAUSE))
        return None

    def repair(self, champion: int | None) -> None:
        """Set the alias right, if it is not what the history says."""
        from mindtrace.registry.names import CHAMPION

        if champion is not None and self._reader.aliased(self._name, CHAMPION) != champion:
            self._open().mirror()

    def _open(self) -> Log:
        if self._log is None:
            from mindtrace.registry.promotion import Log
            from mindtrace.registry.store import Store

            settings = self._settings
            store = Store(settings.registry.tracking_uri, settings.dirs.root)
            self._log = Log(store, self._name, self._history)
        return self._log


def _gate(
    settings: Settings, reader: Reader, row: VersionRow, before: int, margin: float, force: bool
) -> Comparison | None:
    """Champion and challenger; None where force makes up for what cannot be compared."""
    from mindtrace.registry.compare import compare, read_side
    from mindtrace.registry.lookup import locate_row

    try:
        champion = _find(settings, reader, f"{row.name}/{before}")
        a, b = (read_side(locate_row(settings, reader, one)) for one in (champion, row))
        return compare(a, b, margin)
    except (BundleError, NotFoundError, UsageError) as error:
        if force:
            return None
        error.hint = error.hint or "--force --reason TEXT promotes without comparing"
        raise


def _find(settings: Settings, reader: Reader, ref: str) -> VersionRow:
    from mindtrace.registry.lookup import find
    from mindtrace.registry.reference import parse_reference

    reference = parse_reference(ref)
    if reference.folder is not None:
        raise UsageError(
            f"{ref} is a folder, not a registered version",
            hint="write NAME@ALIAS, NAME/VERSION or VERSION",
        )
    return find(settings, reader, reference)


def _model(settings: Settings, reader: Reader, name: str | None) -> str:
    from mindtrace.registry.lookup import the_model

    model_name = the_model(settings, reader) if name is None else name
    names = reader.names()
    if model_name not in names:
        raise NotFoundError("model", model_name, names)
    return model_name


def _champion(entries: Sequence[Entry]) -> int | None:
    from mindtrace.registry.history import champion

    return champion(entries)


def _told(model_name: str, entry: Entry) -> HistoryEntry:
    return HistoryEntry(
        revision=entry.revision,
        model_name=model_name,
        at=entry.at,
        by=entry.by,
        action=entry.action,
        origin=entry.origin,
        to=entry.to,
        reason=entry.reason,
        verdict=entry.verdict,
    )


def _reasons(row: VersionRow, before: int | None) -> tuple[str, ...]:
    if before is None:
        return (f"{row.name} had no champion",)
    if before == row.version:
        return (f"{row.name}/{row.version} is the champion",)
    return ("forced without comparing",)


def _check(margin: float, force: bool, reason: str | None) -> None:
    if not 0 <= margin <= 1:
        raise UsageError(f"margin {margin}: must be between 0 and 1")
    if force and not (reason or "").strip():
        raise UsageError("force wants a reason for the history", hint="--force --reason TEXT")
    _check_reason(reason)


def _check_reason(reason: str | None) -> None:
    if reason is not None and len(reason) > _LONGEST_REASON:
        raise UsageError(f"a reason has at most {_LONGEST_REASON} characters, not {len(reason)}")


def _crowd(model_name: str) -> MindtraceError:
    return ConflictError(
        f"{model_name}: somebody else changed its champion at the same time",
        hint=f"look with mindtrace registry history {model_name}, then repeat",
    )
