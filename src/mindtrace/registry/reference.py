"""From what a user names (`NAME@ALIAS`, `NAME/VERSION`, a folder) to a version and its bundle."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from mindtrace.bundle import manifest
from mindtrace.bundle.manifest import MANIFEST
from mindtrace.config.settings import Settings
from mindtrace.config.urls import file_path
from mindtrace.errors import BundleError, NotFoundError, StoreError, UsageError
from mindtrace.registry.names import CHAMPION, NAME, PREFIX
from mindtrace.registry.reader import ModelVersion, Reader, open_reader

_TRAIN = "mindtrace train --config cfg.ini"

# More digits than a version will ever have are a name, or nothing.
_NUMBER = r"[1-9][0-9]{0,9}"
_FORM = re.compile(rf"(?P<name>{NAME})(?:@(?P<alias>{NAME})|/(?P<version>{_NUMBER}))?")
_FORMS = "NAME, NAME@ALIAS, NAME/VERSION, VERSION or a bundle folder"


@dataclass(frozen=True)
class Reference:
    """A parsed reference; exactly one of `folder`, `version` and `alias` is set.

    `name` is None where only a version, or nothing, was given.
    """

    name: str | None = None
    alias: str | None = None
    version: int | None = None
    folder: Path | None = None


def parse_reference(text: str | None) -> Reference:
    """Read a reference; None is the champion of the only model.

    Raises:
        UsageError: of no known form.
    """
    if text is None:
        return Reference(alias=CHAMPION)
    if text.startswith((".", "/", "~")) or _is_bundle(text):
        return Reference(folder=Path(os.path.expanduser(text)))  # noqa: PTH111 - never raises
    if re.fullmatch(_NUMBER, text):
        return Reference(version=int(text))
    match = _FORM.fullmatch(text)
    if match is None:
        raise UsageError(f"'{text}' names no version", hint=f"write {_FORMS}")
    if match["version"]:
        return Reference(name=match["name"], version=int(match["version"]))
    return Reference(name=match["name"], alias=match["alias"] or CHAMPION)


def _is_bundle(text: str) -> bool:
    try:
        return (Path(text) / MANIFEST).is_file()
    except (OSError, ValueError):
        # Too long for a path, or with characters that none can have.
        return False


@dataclass(frozen=True)
class Located:
    """A bundle that can be opened.

    `row` is None for a folder that was named itself; `digest` is what the registry says
    of it, None where nobody says.
    """

    folder: Path
    digest: str | None
    row: ModelVersion | None


def find(settings: Settings, reader: Reader, reference: Reference) -> ModelVersion:
    """The version that a reference names.

    Raises:
        NotFoundError: model, version or alias; with what exists.
    """
    name = reference.name or default_model(settings, reader)
    number = reference.version
    if number is None:
        assert reference.alias is not None
        number = reader.version_of_alias(name, reference.alias)
        if number is None:
            _demand_model(reader, name)
            raise NotFoundError("alias", f"{name}@{reference.alias}", _aliases(reader, name))
    row = reader.version(name, number)
    if row is None:
        _demand_model(reader, name)
        known = [f"{name}/{row.version}" for row in reader.versions(name, 8)]
        raise NotFoundError("version", f"{name}/{number}", known)
    return row


def default_model(settings: Settings, reader: Reader) -> str:
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
    return locate_version(settings, reader, row)


def locate_version(settings: Settings, reader: Reader, row: ModelVersion) -> Located:
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
