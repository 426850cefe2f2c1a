"""What is registered is verified, exported, and deleted when it is old."""

from __future__ import annotations

import functools
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mindtrace.bundle import manifest
from mindtrace.config.settings import Settings
from mindtrace.config.urls import file_path
from mindtrace.errors import BundleError, ConflictError, StoreError, UsageError, VerdictError
from mindtrace.registry.champions import ChampionLog
from mindtrace.registry.names import BUNDLE, CHAMPION, LATEST, NAME, is_below, is_log
from mindtrace.registry.reader import ALL, ModelVersion, Reader, open_reader, open_store
from mindtrace.registry.reference import find, locate, model_names, parse_reference
from mindtrace.system import aside, sync

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

    from mindtrace.registry.store import Store

# A rollback may need any champion of the last entries of the history again.
HISTORY_KEPT = 10
_PICKLED_NAMES = re.compile(r"\.(pkl|pickle|pt|pth|ckpt|joblib|dill)$", re.IGNORECASE)
# A pickle, or a ZIP archive that names one: what torch saves.
_PICKLED = re.compile(rb"\x80[\x02-\x05]|PK\x03\x04.*\.pkl", re.DOTALL)


@dataclass(frozen=True)
class Verification:
    """What was found of one version, of the aliases of a model, or of a bundle's folder."""

    model_name: str | None  # None for a folder
    version: int | None  # None for aliases and a folder
    subject: str  # NAME/VERSION, NAME (aliases) or the folder
    bundle_digest: str | None  # as registered
    state: Literal["verified", "damaged", "no bundle"]  # the last: registered by plain MLflow
    faults: tuple[str, ...]


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


def verify(settings: Settings, ref: str | None = None) -> list[Verification]:
    """Check one version (the champion for None) and the aliases of its model, or a folder.

    What is wrong stands in the `faults` of what comes back; nothing is raised for it.
    """
    reference = parse_reference(ref)
    if reference.folder is not None:
        folder = locate(settings, ref).folder
        return [_found(str(folder), _bundle_faults(folder, None))]
    reader = open_reader(settings)
    row = find(settings, reader, reference)
    return [_version(reader, row), _aliases(reader, row.name)]


def verify_all(settings: Settings, name: str | None = None) -> Iterator[Verification]:
    """Check every version of one model, or of all, and the aliases; one by one."""
    reader = open_reader(settings)
    for model_name in model_names(reader, name):
        for row in reader.versions(model_name, ALL):
            yield _version(reader, row)
        yield _aliases(reader, model_name)


def require_verified(found: Sequence[Verification], *, named: bool) -> None:
    """Raise VerdictError unless all is as registered; a version asked for by name has a bundle."""
    wrong = [one for one in found if one.state == "damaged" or (named and one.state == "no bundle")]
    if wrong:
        first = wrong[0]
        faults = "; ".join(first.faults) or "it has no bundle: mindtrace did not register it"
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        hint = "restore the files from a copy, or train and register again"
        raise VerdictError(f"{first.subject}: {faults}{more}", hint=hint)


def export(settings: Settings, ref: str, folder: Path | str) -> Exported:
    """Write a bundle into a new or empty folder; BundleError if it is not what was registered."""
    from mindtrace.bundle.predictor import Predictor

    located = locate(settings, ref)
    target = Path(os.path.abspath(os.path.expanduser(folder)))  # noqa: PTH100, PTH111 - keep links; no error
    files = manifest.check(located.folder, located.digest)
    with new_folder(target) as part:
        part.mkdir()
        for name, content in files.items():
            (part / name).write_bytes(content)
            sync(part / name)
        sync(part)
        predictor = Predictor.open(part, located.digest)
    sizes = {name: len(content) for name, content in sorted(files.items())}
    return Exported(located.model_name, located.version, str(target), predictor.digest, sizes)


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
        for row in reversed(reader.versions(model_name, ALL)[keep:]):
            digest = row.own_tags.get("bundle_digest")
            if row.version in named or digest is None:
                continue
            # Read again: it may have got an alias since.
            removed = not dry_run and row.version not in _named_versions(reader, model_name)
            if removed:
                _delete(settings, store(), row)
            yield Removal(row.name, row.version, row.created_at, digest, removed)


def delete(settings: Settings, ref: str) -> Removal:
    """Delete one version with its bundle, unless it is the champion; the history stays."""
    reader = open_reader(settings)
    row = find(settings, reader, ref)
    if CHAMPION in row.aliases or ChampionLog(reader, row.name).champion() == row.version:
        message = f"{row.name}/{row.version} is the champion"
        raise ConflictError(message, hint=f"mindtrace registry history {row.name}")
    _delete(settings, open_store(settings), row)
    digest = row.own_tags.get("bundle_digest", "")
    return Removal(row.name, row.version, row.created_at, digest, removed=True)


def set_alias(settings: Settings, ref: str, alias: str) -> ModelVersion:
    """Give a version an alias, which leaves the version that had it."""
    from mindtrace.registry.store import store_errors

    if alias.lower() in (CHAMPION, LATEST) or not re.fullmatch(NAME, alias):
        reason = "letters, digits, '.', '_' and '-'"
        reason = "only promotions set it" if alias.lower() in (CHAMPION, LATEST) else reason
        raise UsageError(f"alias '{alias}': {reason}", hint="mindtrace registry promote --help")
    row = find(settings, open_reader(settings), ref)
    store = open_store(settings)
    with store_errors(store.uri):
        store.client.set_registered_model_alias(row.name, alias, str(row.version))
    return row


def _version(reader: Reader, row: ModelVersion) -> Verification:
    """Check the bundle of a version, fetched if it is not on this machine."""
    digest = row.own_tags.get("bundle_digest")
    if digest is None:
        return Verification(row.name, row.version, row.label, None, "no bundle", ())
    folder = row.location and file_path(row.location)
    faults: Iterable[str]
    if row.location is None:
        faults = [f"its files are nowhere: the store has no run {row.run_id}"]
    elif folder:
        faults = _bundle_faults(folder, digest)
    else:
        # Fetched anew: an earlier copy proves nothing about what the store holds now.
        try:
            with tempfile.TemporaryDirectory(prefix="mindtrace-") as scratch:
                reader.fetch(row.location, Path(scratch) / "bundle")
                faults = _bundle_faults(Path(scratch) / "bundle", digest)
        except StoreError as error:
            faults = [f"its files cannot be had: {error.message}"]
    return _found(row.label, faults, row.name, row.version, digest)


def _aliases(reader: Reader, model_name: str) -> Verification:
    """Check that each alias names what exists, and the champion's what the history says."""
    aliases = reader.aliases(model_name)
    faults = [
        f"alias '{alias}' names version {number}, which does not exist"
        for alias, number in aliases.items()
        if reader.version(model_name, number) is None
    ]
    log = ChampionLog(reader, model_name)
    log.entries()
    champion, found = log.champion(), aliases.get(CHAMPION)
    if champion is not None and found != champion:
        named = "no version" if found is None else f"version {found}"
        faults.append(f"alias '{CHAMPION}' names {named}, the history says {champion}")
    return _found(f"{model_name} (aliases)", faults, model_name)


def _found(
    subject: str,
    faults: Iterable[str],
    model_name: str | None = None,
    version: int | None = None,
    digest: str | None = None,
) -> Verification:
    faults = tuple(faults)
    state: Literal["verified", "damaged"] = "damaged" if faults else "verified"
    return Verification(model_name, version, subject, digest, state, faults)


def _bundle_faults(folder: Path, digest: str | None) -> list[str]:
    """What is wrong with a bundle, compared with its registered digest."""
    from mindtrace.bundle.predictor import Predictor

    pickles = [
        f"{path.relative_to(folder)} is a pickle, which no bundle holds"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and (_PICKLED_NAMES.search(path.name) or _PICKLED.match(path.read_bytes()))
    ]
    try:
        Predictor.open(folder, digest)
        foreign = [f"{name} is no file of this bundle" for name in manifest.orphans(folder)]
    except BundleError as error:
        return [error.reason, *pickles]
    return [*foreign, *pickles]


def _named_versions(reader: Reader, model_name: str) -> set[int | None]:
    """Versions that an alias or the last entries of the history name."""
    recent = ChampionLog(reader, model_name).entries()[-HISTORY_KEPT:]
    champions = {version for entry in recent for version in (entry.to, entry.origin)}
    return champions | set(reader.aliases(model_name).values())


def _delete(settings: Settings, store: Store, row: ModelVersion) -> None:
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
    fetched = settings.dirs.root / "bundles" / row.own_tags.get("bundle_digest", "")
    if fetched.name != "bundles" and is_below(fetched, settings.dirs.root):
        shutil.rmtree(fetched, ignore_errors=True)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to make and fill, that becomes `target`, new or empty: all of it or nothing."""
    part = aside(target)
    try:
        if target.exists() and (target.is_file() or any(target.iterdir())):
            kind = "is not empty" if target.is_dir() else "is a file"
            hint = "name a folder that does not exist yet"
            raise UsageError(f"folder '{target}' {kind}", hint=hint)
        part.parent.mkdir(parents=True, exist_ok=True)
        yield part
        # Onto an empty folder this is one step; onto one that filled meanwhile it fails.
        part.rename(target)
    except OSError as error:
        raise UsageError(f"folder '{target}' cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
