"""A store with tables, the contents of a bundle, and what it takes to register it."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import torch
from tests.registry.servers import execute, mlflow_server, postgres_programs, postgres_server

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow warns of classes of its own while it is imported
    import mlflow.pyfunc  # noqa: F401

from mindtrace.bundle.bundle import Contents
from mindtrace.config.settings import Settings, load_settings
from mindtrace.data.datamodule import build_data
from mindtrace.registry.champions import ensure_model
from mindtrace.registry.names import PREFIX
from mindtrace.registry.publish import publish
from mindtrace.registry.reader import ModelVersion
from mindtrace.registry.store import Store, start_run
from mindtrace.training.export import contents
from mindtrace.training.fit import fit

Publish = Callable[..., ModelVersion]
Version = Callable[..., int]
NewStore = Callable[[], Store]

_SMALL = ["data.source=digits", "train.max_epochs=1", "train.lr=0.01", "compute.device=cpu"]


def register_version(
    store: Store, contents: Contents, name: str = "digits", **changes: Any
) -> ModelVersion:
    """A version with its bundle."""
    run = start_run(store, name, None, {})
    options = {"metadata": {"seed": "0"}, **changes}
    published = publish(store, model_name=name, run_id=run.run_id, contents=contents, **options)
    run.end("FINISHED")
    return published


def plain_version(store: Store, name: str = "digits", **tags: str) -> int:
    """A version without a bundle, in a moment."""
    run = start_run(store, name, None, {})
    ensure_model(store, name)
    tags = {PREFIX + key: value for key, value in tags.items()}
    source = f"runs:/{run.run_id}/bundle"
    options = {"tags": tags, "await_creation_for": 0}
    created = store.client.create_model_version(name, source, run.run_id, **options)
    run.end("FINISHED")
    return int(created.version)


def sqlite_store(folder: Path) -> Store:
    return Store(f"sqlite:///{folder / 'mlflow.db'}", folder)


def closed(database: Path) -> Path:
    """A database that may be copied: all is in the one file."""
    connection = sqlite3.connect(database)
    connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()
    return database


def with_ledger(contents: Contents, **changes: Any) -> Contents:
    """The same version, with other arrays in its ledger."""
    ledger = dataclasses.replace(contents.predictions, **changes)
    data = {**contents.data, "test_digest": ledger.test_digest}
    return dataclasses.replace(contents, predictions=ledger, data=data)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small networks are quickest with one, above all where other tests run beside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def packed() -> Contents:
    """What a training of one epoch has to register."""
    settings = load_settings(sets=[*_SMALL, "compute.threads=1", "compute.precision=32"])
    result = fit(settings, build_data(settings))
    return contents(result.model, result.data, result.test, settings.to_ini())


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an `mlflow server`."""
    with mlflow_server(tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server whose database `tables` has MLflow's tables, to be copied."""
    with postgres_server(postgres_programs()) as url:
        execute(f"{url}/postgres", "create database tables")
        script = "import sys; from mlflow import MlflowClient; MlflowClient(*sys.argv[1:])" + (
            ".search_experiments()"
        )
        # In a process of its own: no connection may be open when the database is copied.
        made = subprocess.run(
            [sys.executable, "-c", script, f"{url}/tables"], capture_output=True, text=True
        )
        assert made.returncode == 0, made.stderr
        yield url


@pytest.fixture
def postgres_store(postgres: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty store in PostgreSQL, which the settings name."""
    name = f"test_{uuid4().hex}"
    execute(f"{postgres}/postgres", f"create database {name} template tables")
    monkeypatch.setenv("REGISTRY__TRACKING_URI", f"{postgres}/{name}")
    yield Store(f"{postgres}/{name}", root)
    execute(f"{postgres}/postgres", f"drop database if exists {name} with (force)")


@pytest.fixture
def server_store(server: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store of the `mlflow server`, which the settings name; others may have used it."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("REGISTRY__TRACKING_URI", server)
    return Store(server, root)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, which take it more than a second to make."""
    return closed(sqlite_store(tmp_path_factory.mktemp("tables")).root / "mlflow.db")


@pytest.fixture(scope="session")
def new_store(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> NewStore:
    """`new_store()`: an empty one, in a folder of its own."""

    def make() -> Store:
        root = tmp_path_factory.mktemp("store")
        shutil.copy(empty_database, root / "mlflow.db")
        return sqlite_store(root)

    return make


@pytest.fixture
def template(empty_database: Path) -> Path:
    """The database that `store` begins with; a module may put a filled one in its place."""
    return empty_database


@pytest.fixture
def store(root: Path, template: Path) -> Store:
    """A store in ROOT."""
    shutil.copy(template, root / "mlflow.db")
    if (made := template.parent / "mlartifacts").exists():  # a bundle is looked for under ROOT
        shutil.copytree(made, root / "mlartifacts")
    return sqlite_store(root)


@pytest.fixture
def settings(root: Path) -> Settings:
    return load_settings()


@pytest.fixture
def register(store: Store, packed: Contents) -> Publish:
    """`register("digits", contents=...)`: a version with its bundle."""
    return lambda name="digits", contents=packed, **changes: register_version(
        store, contents, name, **changes
    )


@pytest.fixture
def version(store: Store) -> Version:
    """`version("digits", seed="1")`: a version without a bundle."""
    return partial(plain_version, store)


@pytest.fixture
def database(root: Path) -> Path:
    return root / "mlflow.db"
