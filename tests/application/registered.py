"""A registry with versions of the small model, made in moments."""

from __future__ import annotations

import contextlib
import functools
import shutil
import sqlite3
import warnings
from collections.abc import Sequence
from pathlib import Path

from tests.application.conftest import CLASSES, contents

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow warns of classes of its own while it is imported
    import mlflow.pyfunc  # noqa: F401

from mindtrace.bundle.bundle import Contents
from mindtrace.config.settings import load_settings
from mindtrace.registry.names import CHAMPION
from mindtrace.registry.publish import publish
from mindtrace.registry.store import Store, start_run

NAME = "squares"


class Registered:
    """A registry with versions of the small model."""

    def __init__(self, root: Path, uri: str | None = None) -> None:
        self.root = root
        self.uri = uri or f"sqlite:///{root / 'mlflow.db'}"
        self.settings = load_settings(
            sets=[f"DIR_PATHS.ROOT={root}", f"registry.tracking_uri={self.uri}"], environ={}
        )

    @functools.cached_property
    def store(self) -> Store:
        return Store(self.uri, self.root)

    def add(self, scale: float, name: str = NAME, classes: Sequence[str] = CLASSES) -> int:
        """One more version; the first of a name is its champion."""
        return self.publish(contents(scale=scale, classes=classes), name)

    def publish(self, contents: Contents, name: str) -> int:
        run = start_run(self.store, name, None, {})  # a run has one bundle
        published = publish(
            self.store,
            model_name=name,
            run_id=run.run_id,
            contents=contents,
            metadata={"seed": "0"},
        )
        run.end("FINISHED")
        return published.version

    def point(self, version: int, alias: str = CHAMPION, name: str = NAME) -> None:
        """What a promotion does to the alias, whoever makes it."""
        self.store.client.set_registered_model_alias(name, alias, str(version))

    def folder(self, version: int, name: str = NAME) -> Path:
        """Where the bundle of a version is."""
        found = self.store.client.get_model_version(name, str(version))
        run = self.store.client.get_run(found.run_id)
        return Path(run.info.artifact_uri.removeprefix("file://")) / "bundle"

    def break_(self, version: int) -> None:
        """What a disk, or somebody with an editor, does."""
        path = self.folder(version) / "model.onnx"
        path.write_bytes(path.read_bytes()[:-1] + b"\0")


def copied(registry: Registered, folder: Path) -> Registered:
    """The same registry in a file that MLflow's client has not open."""
    copy_database(Path(registry.uri.removeprefix("sqlite:///")), folder / "mlflow.db")
    shutil.copytree(registry.root / "mlartifacts", folder / "mlartifacts")
    return Registered(folder)


def copy_database(source: Path, target: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(source)) as connection,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        connection.backup(copy)
