"""From a reference to a version and its bundle, without importing MLflow.

In: settings and `NAME`, `NAME@ALIAS`, `NAME/VERSION`, `VERSION`, a folder or nothing.
Out: the version's row, and a local folder with its bundle.
"""

from __future__ import annotations

import functools
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from mindtrace.bundle import manifest
from mindtrace.config.settings import Settings
from mindtrace.config.urls import file_path, sqlite_path
from mindtrace.errors import BundleError, NotFoundError, StoreError
from mindtrace.registry.names import PREFIX
from mindtrace.registry.reference import Reference, parse_reference
from mindtrace.registry.rows import Reader, VersionRow
from mindtrace.registry.sqlite_reader import SqliteReader, UnknownSchemaError

if TYPE_CHECKING:
    from mindtrace.registry.child_reader import ChildReader

_TRAIN = "mindtrace train --config cfg.ini"


@dataclass(frozen=True)
class Located:
    """A bundle that can be opened.

    `row` is None for a folder that was named itself; `digest` is what the registry says
    of it, None where nobody says.
    """

    folder: Path
    digest: str | None
    row: VersionRow | None


def open_reader(settings: Settings) -> Reader:
    """The quickest reader for this store.

    Raises:
        StoreError: it cannot be read.
    """
    uri = settings.registry.tracking_uri
    database = sqlite_path(uri)
    if database is not None:
        if not database.exists():
            raise NotFoundError(
                "registry", str(database), hint=f"the first training makes it: {_TRAIN}"
            )
        try:
            return SqliteReader(database)
        except UnknownSchemaError:
            return _child(uri, settings.dirs.root, os.getpid())
    return _child(uri, settings.dirs.root, os.getpid())


@functools.lru_cache(maxsize=2)
def _child(uri: str, root: Path, _pid: int) -> ChildReader:
    """One child for a store, which takes seconds to start; not shared with a forked process."""
    from mindtrace.registry.child_reader import ChildReader

    return ChildReader(uri, root)


def find(settings: Settings, reader: Reader, reference: Reference) -> VersionRow:
    """The version that a reference names.

    Raises:
        NotFoundError: model, version or alias; with what exists.
    """
    name = reference.name or the_model(settings, reader)
    number = reference.version
    if number is None:
        assert reference.alias is not None
        number = reader.aliased(name, reference.alias)
        if number is None:
            _demand_model(reader, name)
            raise NotFoundError("alias", f"{name}@{reference.alias}", _aliases(reader, name))
    row = reader.version(name, number)
    if row is None:
        _demand_model(reader, name)
        known = [f"{name}/{row.version}" for row in reader.versions(name, 8)]
        raise NotFoundError("version", f"{name}/{number}", known)
    return row


def the_model(settings: Settings, reader: Reader) -> str:
    """`[registry] model_name`, else the only registered one.

    Raises:
        NotFoundError: there is none, or more than one.
    """
    if settings.registry.model_name is not None:
        return settings.registry.model_name
    names = reader.names()
    if len(names) == 1:
        return names[0]
    if not names:
        raise NotFoundError("model", None, hint=f"train one: {_TRAIN}")
    raise NotFoundError("model", None, names, hint="name one, or set [registry] model_name")


def locate(settings: Settings, text: str | None) -> Located:
    """The bundle of a reference, fetched if it is not on this machine.

    Raises:
        NotFoundError: no such model, version, alias or folder.
        BundleError: the version has no bundle, or it could not be fetched whole.
        StoreError: the store cannot be read.
    """
    reference = parse_reference(text)
    if reference.folder is not None:
        if not reference.folder.is_dir():
            raise NotFoundError("bundle folder", str(reference.folder))
        return Located(reference.folder, None, None)
    reader = open_reader(settings)
    row = find(settings, reader, reference)
    return locate_row(settings, reader, row)


def locate_row(settings: Settings, reader: Reader, row: VersionRow) -> Located:
    """The bundle of a version, fetched if it is not on this machine.

    Raises:
        BundleError: the version has no bundle, or it could not be fetched whole.
    """
    digest = row.tags.get(PREFIX + "bundle_digest")
    if digest is None or row.location is None:
        raise BundleError(
            f"of {row.name}/{row.version}",
            "there is none: the version was not registered by mindtrace",
        )
    local = file_path(row.location)
    if local is not None:
        return Located(local, digest, row)
    return Located(_fetched(settings, reader, row.location, digest), digest, row)


def _fetched(settings: Settings, reader: Reader, location: str, digest: str) -> Path:
    """`<ROOT>/bundles/<digest>`; whole or not there, however many fetch it at once."""
    bundles = settings.dirs.root / "bundles"
    folder = bundles / digest
    if folder.is_dir():
        try:
            manifest.check(folder, digest)
        except BundleError:
            # A copy that a power cut or a disk has torn is fetched again.
            shutil.rmtree(folder)
        else:
            return folder
    try:
        bundles.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot keep bundles in {bundles}: {error.strerror}") from error
    aside = bundles / f".{digest}-{uuid4().hex}"
    try:
        reader.fetch(location, aside)
        manifest.check(aside, digest)
        try:
            os.rename(aside, folder)  # noqa: PTH104 - must fail if somebody was quicker
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _demand_model(reader: Reader, name: str) -> None:
    names = reader.names()
    if name not in names:
        raise NotFoundError("model", name, names)


def _aliases(reader: Reader, name: str) -> list[str]:
    return sorted(f"{name}@{alias}" for alias in reader.aliases(name))
