"""Old versions are deleted with their bundles; a bundle is exported to a folder."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mindtrace.bundle import manifest
from mindtrace.config.settings import Settings
from mindtrace.errors import UsageError
from mindtrace.registry.champions import parse_log
from mindtrace.registry.names import BUNDLE, is_log
from mindtrace.registry.places import is_below
from mindtrace.registry.reader import ModelVersion, Reader, open_reader, open_store
from mindtrace.registry.reference import locate, model_names
from mindtrace.system import aside, sync

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

    from mindtrace.registry.store import Store

# A rollback may need any champion of the last entries of the history again.
HISTORY_KEPT = 10
_ALL = 1_000_000


@dataclass(frozen=True)
class Removal:
    """A version to delete; `removed` is False in a dry run, and if it has got a name since."""

    model_name: str
    version: int
    created_at: str  # UTC, ISO 8601
    bundle_digest: str
    removed: bool


@dataclass(frozen=True)
class Exported:
    """A bundle in a folder of the user's; without name and version if it came from a folder."""

    model_name: str | None
    version: int | None
    folder: str  # absolute
    bundle_digest: str
    files: dict[str, int]  # name to size in bytes


def gc(
    settings: Settings, name: str | None = None, *, keep: int, dry_run: bool = False
) -> Iterator[Removal]:
    """Delete all but the newest `keep` versions that nothing names, the oldest first."""
    if keep < 1:
        raise UsageError(f"keep = {keep}: must be 1 or more")
    reader = open_reader(settings)
    store = functools.cache(functools.partial(open_store, settings))
    for model_name in model_names(reader, name):
        named = _named_versions(reader, model_name)
        for row in reversed(reader.versions(model_name, _ALL)[keep:]):
            digest = row.own_tags.get("bundle_digest")
            if row.version in named or digest is None:
                continue
            # Read again: it may have got an alias since.
            removed = not dry_run and row.version not in _named_versions(reader, model_name)
            if removed:
                _delete(store(), row)
                fetched = settings.dirs.root / "bundles" / digest
                if is_below(fetched, settings.dirs.root):
                    shutil.rmtree(fetched, ignore_errors=True)
            yield Removal(row.name, row.version, row.created_at, digest, removed)


def export(settings: Settings, ref: str, folder: Path) -> Exported:
    """Write a bundle into a new or empty folder; all of it or nothing."""
    from mindtrace.bundle.predictor import Predictor

    located = locate(settings, ref)
    target = Path(os.path.abspath(os.path.expanduser(folder)))  # noqa: PTH100, PTH111 - keep links; no error
    _require_empty(target)
    files = manifest.check(located.folder, located.digest)
    part = aside(target)
    try:
        part.mkdir(parents=True)
        for name, content in files.items():
            (part / name).write_bytes(content)
            sync(part / name)
        sync(part)
        predictor = Predictor.open(part, located.digest)
        # Onto an empty folder this is one step; onto one that filled meanwhile it fails.
        part.rename(target)
    except OSError as error:
        raise UsageError(f"folder '{folder}' cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Exported(
        model_name=located.model_name,
        version=located.version,
        folder=str(target),
        bundle_digest=predictor.digest,
        files={name: len(content) for name, content in sorted(files.items())},
    )


def _named_versions(reader: Reader, model_name: str) -> set[int | None]:
    """Versions that an alias or the last entries of the history name."""
    recent = parse_log(model_name, reader.log(model_name))[-HISTORY_KEPT:]
    champions = {version for entry in recent for version in (entry.to, entry.origin)}
    return champions | set(reader.aliases(model_name).values())


def _delete(store: Store, row: ModelVersion) -> None:
    """Delete a version, then the bundle that its run keeps for it, unless others have it too."""
    from mindtrace.registry.store import delete_artifacts, if_there, store_errors

    client = store.client

    def delete_version() -> MlflowVersion:
        found = client.get_model_version(row.name, str(row.version))
        client.delete_model_version(row.name, str(row.version))
        return found

    # In this order: if only one of them is deleted, a bundle without a version does no harm, a
    # version without a bundle is damaged. The run and its metrics stay.
    with store_errors(store.uri):
        found = if_there(delete_version)
        if found is None:
            return  # another process was faster
        run_id = found.run_id
        if not run_id or found.source != f"runs:/{run_id}/{BUNDLE}":
            return  # its files are not where mindtrace puts them
        users = client.search_model_versions(f"run_id = '{run_id}'")
        if any(not is_log(user.name) for user in users):
            return
        delete_artifacts(store, run_id, BUNDLE)


def _require_empty(target: Path) -> None:
    try:
        if not target.exists() or (target.is_dir() and not any(target.iterdir())):
            return
    except OSError as error:
        raise UsageError(f"folder '{target}' cannot be read: {error.strerror}") from error
    kind = "is not empty" if target.is_dir() else "is a file"
    raise UsageError(f"folder '{target}' {kind}", hint="name a folder that does not exist yet")
