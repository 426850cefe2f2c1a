"""The verb gc: old versions go, what an alias or the recent history names stays."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mindtrace.config.settings import Settings
from mindtrace.documents import document
from mindtrace.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from mindtrace.registry.reader import ModelVersion, Reader
    from mindtrace.registry.store import Store

# A rollback may want any champion of the last entries of the history again.
HISTORY_KEPT = 10
_ALL = 1_000_000


@dataclass(frozen=True)
class Removal:
    """A version that goes.

    Attributes:
        model_name: of it.
        version: its number.
        created_at: UTC, ISO 8601.
        bundle_digest: of what it held.
        removed: False in a dry run, and where it turned out to be named after all.
    """

    model_name: str
    version: int
    created_at: str
    bundle_digest: str
    removed: bool

    def document(self) -> dict[str, Any]:
        """The JSON document of `mindtrace registry gc`."""
        return document(vars(self))


def gc(
    settings: Settings, name: str | None = None, *, keep: int, dry_run: bool = False
) -> Iterator[Removal]:
    """Delete all but the newest versions and their bundles, oldest first, one by one.

    A version that an alias or the last ten entries of the history name stays whatever its
    age, and so does one that mindtrace did not register.

    Args:
        settings: which registry.
        name: one model; None for all.
        keep: so many of the newest versions of each model stay.
        dry_run: delete nothing.

    Raises:
        UsageError: `keep` is below 1.
        NotFoundError: no such model, or no registry.
        StoreError: the registry cannot be read or written.
    """
    from mindtrace.registry.reader import open_reader

    if keep < 1:
        raise UsageError(f"keep = {keep}: must be 1 or more")
    reader = open_reader(settings)
    names = reader.names()
    if name is not None and name not in names:
        raise NotFoundError("model", name, names)
    store: Store | None = None
    for model_name in names if name is None else [name]:
        named = protected(reader, model_name)
        rows = reader.versions(model_name, _ALL)[keep:]
        for row in reversed(rows):
            digest = _digest(row)
            if row.version in named or digest is None:
                continue
            if not dry_run:
                store = store or _open(settings)
            gone = store is not None and _remove(settings, store, reader, row)
            yield Removal(row.name, row.version, row.created_at, digest, gone)


def protected(reader: Reader, model_name: str) -> set[int]:
    """Versions that an alias or the last entries of the history name."""
    from mindtrace.registry.history import counted

    recent = counted(reader.log(model_name))[-HISTORY_KEPT:]
    told = {entry.to for entry in recent} | {entry.origin for entry in recent}
    return {number for number in told if number is not None} | set(
        reader.aliases(model_name).values()
    )


def _digest(row: ModelVersion) -> str | None:
    from mindtrace.registry.names import PREFIX

    return row.tags.get(PREFIX + "bundle_digest")


def _open(settings: Settings) -> Store:
    from mindtrace.registry.store import Store

    return Store(settings.registry.tracking_uri, settings.dirs.root)


def _remove(settings: Settings, store: Store, reader: Reader, row: ModelVersion) -> bool:
    """Delete a version unless it has been named since it was chosen."""
    from mindtrace.registry.removal import remove

    if row.version in protected(reader, row.name):
        return False
    remove(store, row)
    digest = _digest(row)
    if digest:
        shutil.rmtree(settings.dirs.root / "bundles" / digest, ignore_errors=True)
    return True
