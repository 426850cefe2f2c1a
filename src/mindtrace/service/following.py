"""Which version a server ought to answer with, and that version opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mindtrace.config.settings import Settings
from mindtrace.errors import NotFoundError
from mindtrace.registry.names import PREFIX
from mindtrace.registry.reader import open_reader
from mindtrace.registry.reference import (
    Located,
    default_model,
    locate,
    locate_version,
    parse_reference,
)
from mindtrace.service.predict import LoadedModel

if TYPE_CHECKING:
    from mindtrace.bundle.predictions import GoldenCase
    from mindtrace.registry.reader import ModelVersion


@dataclass(frozen=True)
class Opened:
    """A model that can answer, and golden images that it must still answer as in training."""

    model: LoadedModel
    folder: Path
    golden: tuple[GoldenCase, ...]


@dataclass(frozen=True)
class Identity:
    """Tells versions apart, also those of a registry that was deleted and made anew."""

    model_name: str | None  # None for a bare folder, as its version
    version: int | None
    digest: str | None  # of the bundle; None where nobody registered one

    @classmethod
    def of(cls, model: LoadedModel) -> Identity:
        """The identity of what is served."""
        return cls(model.model_name, model.version, model.predictor.digest)

    @classmethod
    def of_row(cls, row: ModelVersion) -> Identity:
        """The identity of what is registered."""
        return cls(row.name, row.version, row.tags.get(PREFIX + "bundle_digest"))


def open_or_wait(settings: Settings, model_ref: str | None) -> Opened | None:
    """The model to serve; None where nothing was named and nothing is registered yet."""
    try:
        located = locate(settings, model_ref)
    except NotFoundError as error:
        if model_ref is not None or _is_choice(settings, error):
            raise
        return None
    return _open(located)


def open_row(settings: Settings, row: ModelVersion) -> Opened:
    """A version, fetched if it is not on this machine."""
    return _open(locate_version(settings, open_reader(settings), row))


def is_moving(model_ref: str | None) -> bool:
    """Whether a reference may mean another version tomorrow."""
    return parse_reference(model_ref).alias is not None


def pointed_at(
    settings: Settings, model_ref: str | None, model_name: str | None
) -> tuple[str, int] | None:
    """The name and version that a moving reference means now; None for nothing yet."""
    reference = parse_reference(model_ref)
    assert reference.alias is not None
    try:
        reader = open_reader(settings)
        name = model_name or reference.name or default_model(settings, reader)
        version = reader.version_of_alias(name, reference.alias)
    except NotFoundError as error:
        if model_name is not None or _is_choice(settings, error):
            raise
        return None
    if version is None and model_name is not None:
        raise NotFoundError("alias", f"{name}@{reference.alias}")
    return None if version is None else (name, version)


def find_row(settings: Settings, model_name: str, version: int) -> ModelVersion | None:
    """What the registry says of one version."""
    return open_reader(settings).version(model_name, version)


def _open(located: Located) -> Opened:
    from mindtrace.bundle.bundle import read_bundle
    from mindtrace.bundle.predictor import Predictor

    bundle = read_bundle(located.folder, located.digest)
    model = LoadedModel(Predictor(bundle), located.model_name, located.version)
    return Opened(model, located.folder, bundle.golden)


def _is_choice(settings: Settings, error: NotFoundError) -> bool:
    """Whether several models exist, and nothing says which of them is meant."""
    chosen = settings.registry.model_name is not None
    return error.kind == "model" and bool(error.known) and not chosen
