"""Which version a server ought to answer with, and that version opened."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mindtrace.config.settings import Settings
from mindtrace.config.urls import masked, sqlite_path
from mindtrace.errors import BundleError, NotFoundError
from mindtrace.registry import reference
from mindtrace.registry.reader import ModelVersion, open_reader
from mindtrace.service.predict import LoadedModel
from mindtrace.system import atomic_write

if TYPE_CHECKING:
    from mindtrace.bundle.bundle import Bundle

    # A model that can answer, and the golden images that it must answer as in training.
    Opened = tuple[LoadedModel, Bundle]

T = TypeVar("T")
_SERVED = "served.json"  # in ROOT: what each reference meant when its store answered last


def open_or_wait(settings: Settings, model_ref: str | None) -> Opened | None:
    """The model to serve; None where nothing was named and nothing is registered yet."""
    named = model_ref is not None
    located = _if_any(settings, lambda: reference.locate(settings, model_ref), named=named)
    return None if located is None else _open_and_remember(settings, model_ref, located)


def open_row(settings: Settings, row: ModelVersion, model_ref: str | None) -> Opened:
    """A version, fetched if it is not on this machine."""
    located = reference.locate_version(settings, open_reader(settings), row)
    return _open_and_remember(settings, model_ref, located)


def open_remembered(settings: Settings, model_ref: str | None) -> Opened | None:
    """What a reference meant when its store answered last, if that bundle is on this machine."""
    try:
        found = _remembered(settings)[_key(settings, model_ref)]
        folder, digest = settings.dirs.root / found["folder"], str(found["bundle_digest"])
        return _open(folder, digest, str(found["model_name"]), int(found["version"]))
    except (BundleError, KeyError, TypeError, ValueError):
        return None


def is_moving(model_ref: str | None) -> bool:
    """Whether a reference may mean another version tomorrow."""
    return reference.parse_reference(model_ref).alias is not None


def pointed_at(
    settings: Settings, model_ref: str | None, model_name: str | None
) -> ModelVersion | None:
    """The version that a reference means now; None for nothing yet."""

    def find() -> ModelVersion:
        return reference.find(settings, open_reader(settings), model_ref, model_name)

    return _if_any(settings, find, named=model_name is not None)


def _open_and_remember(
    settings: Settings, model_ref: str | None, located: reference.Located
) -> Opened:
    opened = _open(located.folder, located.digest, located.model_name, located.version)
    root = settings.dirs.root
    if located.row is not None and sqlite_path(settings.registry.tracking_uri) is None:
        is_ours = located.folder.is_relative_to(root)
        entry = {
            "model_name": located.model_name,
            "version": located.version,
            "bundle_digest": located.digest,
            "folder": str(located.folder.relative_to(root) if is_ours else located.folder),
        }
        known = {**_remembered(settings), _key(settings, model_ref): entry}
        with contextlib.suppress(OSError):  # a ROOT that may not be written
            atomic_write(root / _SERVED, json.dumps(known, indent=1).encode())
    return opened


def _remembered(settings: Settings) -> dict[str, Any]:
    try:
        found = json.loads((settings.dirs.root / _SERVED).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _key(settings: Settings, model_ref: str | None) -> str:
    name = model_ref or settings.registry.model_name or ""
    return f"{masked(settings.registry.tracking_uri)} {name}"


def _open(folder: Path, digest: str | None, name: str | None, version: int | None) -> Opened:
    from mindtrace.bundle.bundle import read_bundle
    from mindtrace.bundle.predictor import Predictor

    bundle = read_bundle(folder, digest)
    return LoadedModel(Predictor(bundle), name, version), bundle


def _if_any(settings: Settings, find: Callable[[], T], *, named: bool) -> T | None:
    """What `find` finds; None for nothing yet, unless it is named or a choice of several models."""
    try:
        return find()
    except NotFoundError as error:
        chosen = settings.registry.model_name is not None
        if named or (error.kind == "model" and error.known and not chosen):
            raise
        return None
