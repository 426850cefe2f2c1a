"""From what a user names (`NAME@ALIAS`, `NAME/VERSION`, a folder) to a version and its bundle."""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from mindtrace.bundle import manifest
from mindtrace.config.networks import TORCHVISION
from mindtrace.config.settings import Settings, load_settings
from mindtrace.config.urls import file_path
from mindtrace.errors import BundleError, NotFoundError, StoreError, UsageError, listed
from mindtrace.registry.names import CHAMPION, NAME
from mindtrace.registry.reader import ModelVersion, Reader, open_reader
from mindtrace.system import aside

# More digits than a version will ever have are a name, or nothing.
_NUMBER = r"[1-9][0-9]{0,9}"
_FORM = re.compile(rf"(?P<name>{NAME})(?:@(?P<alias>{NAME})|/(?P<version>{_NUMBER}))?")
_FORMS = "NAME, NAME@ALIAS, NAME/VERSION, VERSION or a bundle folder"


class Reference(NamedTuple):
    """A parsed reference; exactly one of `folder`, `version` and `alias` is set."""

    name: str | None = None
    alias: str | None = None
    version: int | None = None
    folder: Path | None = None


class Located(NamedTuple):
    """A bundle that can be opened; no `digest` and `row` for a folder that was named itself."""

    folder: Path
    digest: str | None
    row: ModelVersion | None

    @property
    def name(self) -> str:
        """NAME/VERSION, or the folder."""
        return str(self.folder) if self.row is None else self.row.label

    @property
    def model_name(self) -> str | None:
        return None if self.row is None else self.row.name

    @property
    def version(self) -> int | None:
        return None if self.row is None else self.row.version


def parse_reference(text: str | None) -> Reference:
    """Read a reference; None is the champion of the only model."""
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


def find(
    settings: Settings, reader: Reader, ref: str | Reference | None, model_name: str | None = None
) -> ModelVersion:
    """The registered version that `ref` names; a bare number is one of `model_name`."""
    reference = ref if isinstance(ref, Reference) else parse_reference(ref)
    if reference.folder is not None:
        message = f"{ref} is a folder, not a registered version"
        raise UsageError(message, hint="write NAME, NAME@ALIAS, NAME/VERSION or VERSION")
    if reference.version is not None and not (reference.name or model_name):
        reference = _named_by_number(settings, reader, reference)
    name = reference.name or model_name or default_model(settings, reader)
    number = reference.version
    if number is None:
        assert reference.alias is not None
        number = reader.version_of_alias(name, reference.alias)
        if number is None:
            require_model(reader, name)
            known = sorted(f"{name}@{alias}" for alias in reader.aliases(name))
            raise NotFoundError("alias", f"{name}@{reference.alias}", known)
    row = reader.version(name, number)
    if row is None:
        require_model(reader, name)
        known = [f"{name}/{row.version}" for row in reader.versions(name, 8)]
        raise NotFoundError("version", f"{name}/{number}", known)
    return row


def _named_by_number(settings: Settings, reader: Reader, reference: Reference) -> Reference:
    """The champion of the model that has the number as its name, if there is one."""
    text, names = str(reference.version), reader.names()
    if text not in names:
        return reference
    known = settings.registry.model_name or (text if len(names) == 1 else None)
    if known is not None and reader.version(known, int(text)) is not None:
        message = f"'{text}' is the name of a model and a version of {known}"
        raise UsageError(message, hint=f"write {text}@{CHAMPION} or {known}/{text}")
    return Reference(name=text, alias=CHAMPION)


def default_model(settings: Settings, reader: Reader) -> str:
    """`[registry] model_name`, else the only registered one."""
    if settings.registry.model_name is not None:
        return settings.registry.model_name
    names = reader.names()
    if len(names) == 1:
        return names[0]
    if not names:
        raise NotFoundError("model", None, hint="mindtrace train")
    raise NotFoundError("model", None, names, hint=f"--set registry.model_name={names[0]}")


def or_latest(settings: Settings, ref: str | None, note: Callable[[str], None]) -> Settings:
    """For reading: where nobody names one of several models, that of the newest version."""
    try:
        names = [] if settings.registry.model_name else open_reader(settings).names()
    except NotFoundError:
        names = []
    is_number = ref is not None and re.fullmatch(_NUMBER, ref) and ref not in names
    if len(names) < 2 or not (ref is None or is_number):
        return settings
    name = open_reader(settings).versions(None, 1)[0].name
    others = listed([other for other in names if other != name])
    note(f"no model is named: {name}, which was trained last; there are also: {others}")
    return settings.replace(**{"registry.model_name": name})


def require_model(reader: Reader, name: str) -> None:
    """Raise NotFoundError unless a model of that name is registered."""
    names = reader.names()
    if name not in names:
        raise NotFoundError("model", name, names)


def open_model(settings: Settings, name: str | None) -> tuple[Reader, str]:
    """The reader of the registry, and a model in it; for None the only one."""
    reader = open_reader(settings)
    model_name = default_model(settings, reader) if name is None else name
    require_model(reader, model_name)
    return reader, model_name


def model_names(reader: Reader, name: str | None) -> list[str]:
    """One registered model, or all."""
    if name is None:
        return reader.names()
    require_model(reader, name)
    return [name]


def locate(settings: Settings, ref: str | None, model_name: str | None = None) -> Located:
    """The bundle that `ref` names, fetched if it is not here; `model_name` as in `find`."""
    reference = parse_reference(ref)
    if reference.folder is not None:
        if not reference.folder.is_dir():
            raise NotFoundError("bundle folder", str(reference.folder))
        return Located(reference.folder, None, None)
    reader = open_reader(settings)
    return locate_version(settings, reader, find(settings, reader, reference, model_name))


def locate_version(settings: Settings, reader: Reader, row: ModelVersion) -> Located:
    """The bundle of a version, fetched if it is not on this machine."""
    digest = row.own_tags.get("bundle_digest")
    if digest is None or row.location is None:
        reason = "there is none: the version was not registered by mindtrace"
        raise BundleError(f"of {row.label}", reason)
    local = file_path(row.location) or _fetched(settings, reader, row.location, digest)
    return Located(local, digest, row)


def settings_of_bundle(settings: Settings, config: str) -> Settings:
    """The configuration of a bundle, in the folders and with the registry of `settings`."""
    for name, new in TORCHVISION.items():
        config = config.replace(f"\nname = {name}\n", f"\nname = {new}\n")
    made = load_settings(text=config, environ={}, cwd=settings.dirs.root)
    folder, root = made.data.dir, settings.dirs.root
    if folder is not None and not folder.exists():
        # It may have moved with ROOT; the digests tell whether these are the images.
        below = (root / folder.relative_to(parent) for parent in reversed(folder.parents))
        folder = next((path for path in below if path.exists()), settings.data.dir or folder)
    data = made.data.model_copy(update={"mirror": settings.data.mirror, "dir": folder})
    return replace(made, dirs=settings.dirs, registry=settings.registry, data=data)


def _fetched(settings: Settings, reader: Reader, location: str, digest: str) -> Path:
    """`<ROOT>/bundles/<digest>`; whole or not there, however many fetch it at once."""
    bundles = settings.dirs.root / "bundles"
    folder = bundles / digest
    if folder.is_dir():
        try:
            manifest.check(folder, digest)
        except BundleError:
            # Damaged by a power cut or the disk: fetch it again.
            shutil.rmtree(folder)
        else:
            return folder
    try:
        bundles.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot keep bundles in {bundles}: {error.strerror}") from error
    part = aside(folder)
    try:
        reader.fetch(location, part)
        manifest.check(part, digest)
        try:
            os.rename(part, folder)  # noqa: PTH104 - must fail if another process was faster
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _is_bundle(text: str) -> bool:
    try:
        return (Path(text) / manifest.MANIFEST).is_file()
    except (OSError, ValueError):
        # Too long for a path, or with characters that none can have.
        return False
