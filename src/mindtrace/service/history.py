"""The verb history, and what promote and rollback share: the log of champions of one name.

In: a model's name. Out: who was champion and who said so. Reading imports no MLflow; writing
does, and one writer wins each revision.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mindtrace.config.settings import Settings
from mindtrace.documents import document
from mindtrace.errors import ConflictError, NotFoundError, UsageError

if TYPE_CHECKING:
    from mindtrace.registry.compare import Comparison
    from mindtrace.registry.history import Entry
    from mindtrace.registry.promotion import Log
    from mindtrace.registry.reader import ModelVersion, Reader

# Somebody wins each revision, so only a crowd makes one writer lose this often.
ATTEMPTS = 40
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
    from mindtrace.registry.reader import open_reader

    reader = open_reader(settings)
    model_name = model_of(settings, reader, name)
    writer = ChampionLog(settings, reader, model_name)
    entries = writer.entries(None)
    if repair:
        writer.repair(champion_of(entries))
    return [told(model_name, entry) for entry in entries]


class ChampionLog:
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
        row: ModelVersion,
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

        if champion is not None and self._reader.version_of_alias(self._name, CHAMPION) != champion:
            self._open().mirror()

    def _open(self) -> Log:
        if self._log is None:
            from mindtrace.registry.promotion import Log
            from mindtrace.registry.store import Store

            settings = self._settings
            store = Store(settings.registry.tracking_uri, settings.dirs.root)
            self._log = Log(store, self._name, self._history)
        return self._log


def version_row(settings: Settings, reader: Reader, ref: str) -> ModelVersion:
    """The registered version that a reference names.

    Raises:
        UsageError: a folder.
        NotFoundError: no such version.
    """
    from mindtrace.registry.reference import find, parse_reference

    reference = parse_reference(ref)
    if reference.folder is not None:
        raise UsageError(
            f"{ref} is a folder, not a registered version",
            hint="write NAME@ALIAS, NAME/VERSION or VERSION",
        )
    return find(settings, reader, reference)


def model_of(settings: Settings, reader: Reader, name: str | None) -> str:
    """A name that is registered; None is the only one there is.

    Raises:
        NotFoundError: it is not registered.
    """
    from mindtrace.registry.reference import default_model

    model_name = default_model(settings, reader) if name is None else name
    names = reader.names()
    if model_name not in names:
        raise NotFoundError("model", model_name, names)
    return model_name


def champion_of(entries: Sequence[Entry]) -> int | None:
    """The version that the log names, or None."""
    from mindtrace.registry.history import champion

    return champion(entries)


def told(model_name: str, entry: Entry) -> HistoryEntry:
    """An entry of the log as callers see it."""
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


def check_reason(reason: str | None) -> None:
    """Refuse a reason that the store would not keep.

    Raises:
        UsageError: it is too long.
    """
    if reason is not None and len(reason) > _LONGEST_REASON:
        raise UsageError(f"a reason has at most {_LONGEST_REASON} characters, not {len(reason)}")


def crowd(model_name: str) -> ConflictError:
    """The error of who lost to others, more often than makes sense."""
    return ConflictError(
        f"{model_name}: somebody else changed its champion at the same time",
        hint=f"look with mindtrace registry history {model_name}, then repeat",
    )
