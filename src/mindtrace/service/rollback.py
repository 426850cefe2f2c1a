"""The verb rollback: the champion before comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mindtrace.config.settings import Settings
from mindtrace.errors import ConflictError
from mindtrace.service.history import (
    ATTEMPTS,
    ChampionLog,
    HistoryEntry,
    champion_of,
    check_reason,
    crowd,
    model_of,
    told,
    version_row,
)

if TYPE_CHECKING:
    from mindtrace.registry.history import Entry


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
    check_reason(reason)
    from mindtrace.bundle.predictor import Predictor
    from mindtrace.registry.history import ROLLBACK, to_undo
    from mindtrace.registry.reader import open_reader
    from mindtrace.registry.reference import locate_version

    reader = open_reader(settings)
    model_name = model_of(settings, reader, name)
    writer = ChampionLog(settings, reader, model_name)
    wanted: Entry | None = None
    for _ in range(ATTEMPTS):
        entries = writer.entries(if_revision)
        undone = to_undo(entries)
        if undone is None:
            writer.repair(champion_of(entries))
            raise ConflictError(
                f"{model_name}: there is nothing to roll back",
                hint=f"mindtrace registry history {model_name}",
            )
        if wanted is not None and undone != wanted:
            # Somebody else undid it or promoted on: what the caller saw is gone.
            raise crowd(model_name)
        wanted = undone
        row = version_row(settings, reader, f"{model_name}/{undone.origin}")
        located = locate_version(settings, reader, row)
        Predictor.open(located.folder, located.digest)
        entry = writer.append(len(entries), ROLLBACK, row, reason, None, if_revision)
        if entry is not None:
            return told(model_name, entry)
    raise crowd(model_name)
