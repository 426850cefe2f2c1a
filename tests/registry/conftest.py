"""A store with tables, the contents of a bundle, and what it takes to register it."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import pytorch_lightning as pl
import torch
from mlflow.entities import Metric
from tests.registry.servers import execute, mlflow_server, postgres_programs, postgres_server

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow warns of classes of its own while it is imported
    import mlflow.pyfunc  # noqa: F401

from mindtrace.bundle.bundle import Contents
from mindtrace.config.settings import Settings, load_settings
from mindtrace.data import Digits
from mindtrace.data.datamodule import build_data
from mindtrace.models import MLP
from mindtrace.registry import MlflowLightningCallback
from mindtrace.registry.names import PREFIX
from mindtrace.registry.publish import Published, publish
from mindtrace.registry.store import Store, start_run
from mindtrace.training.export import contents
from mindtrace.training.fit import fit

Publish = Callable[..., Published]
Track = Callable[..., MlflowLightningCallback]
Fit = Callable[..., None]
Version = Callable[..., int]

_SMALL = ["data.source=digits", "train.max_epochs=1", "train.lr=0.01", "compute.device=cpu"]


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
    folder = tmp_path_factory.mktemp("tables")
    Store(f"sqlite:///{folder / 'mlflow.db'}", folder)
    with sqlite3.connect(folder / "mlflow.db") as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()
    return folder / "mlflow.db"


@pytest.fixture
def store(root: Path, empty_database: Path) -> Store:
    """An empty store in ROOT."""
    shutil.copy(empty_database, root / "mlflow.db")
    return Store(f"sqlite:///{root / 'mlflow.db'}", root)


@pytest.fixture
def settings(root: Path) -> Settings:
    return load_settings()


@pytest.fixture
def register(store: Store, packed: Contents) -> Publish:
    """`register("digits", contents=...)`: a version with its bundle."""

    def register(name: str = "digits", **changes: object) -> Published:
        run = start_run(store, name, None, {})
        options = {"contents": packed, "metadata": {"seed": "0"}, "by": "tester", **changes}
        published = publish(store, model_name=name, run_id=run.run_id, **options)
        run.end("FINISHED")
        return published

    return register


@pytest.fixture
def version(store: Store) -> Version:
    """`version("digits", tags={...})`: a version without a bundle, in a moment."""

    def version(name: str = "digits", **tags: str) -> int:
        from mindtrace.registry.champions import ensure_model

        run = start_run(store, name, None, {})
        ensure_model(store, name)
        created = store.client.create_model_version(
            name,
            f"runs:/{run.run_id}/bundle",
            run.run_id,
            tags={PREFIX + key: value for key, value in tags.items()},
            await_creation_for=0,
        )
        run.end("FINISHED")
        return int(created.version)

    return version


@pytest.fixture
def track() -> Track:
    """`track(job_id="j1")`: the callback as anybody makes it."""
    return lambda **more: MlflowLightningCallback("starter", log_system_metrics=False, **more)


@pytest.fixture
def mlp() -> MLP:
    torch.manual_seed(0)
    return MLP(dim=[64, 100, 10], dropout=0.1)


@pytest.fixture
def fit_with(mlp: MLP) -> Fit:
    """`fit_with(callback, max_epochs=1)`: of digits, by a trainer of one's own."""

    def train(
        *callbacks: pl.Callback,
        model: pl.LightningModule = mlp,
        data: pl.LightningDataModule | None = None,
        max_epochs: int = 2,
        **options: object,
    ) -> None:
        trainer = pl.Trainer(
            max_epochs=max_epochs,
            callbacks=list(callbacks),
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,  # type: ignore[arg-type]
        )
        trainer.fit(model, Digits() if data is None else data)

    return train


@pytest.fixture
def database(root: Path) -> Path:
    return root / "mlflow.db"


@pytest.fixture
def filled(store: Store, register: Publish, version: Version) -> Store:
    """Two models, a deleted version, aliases, odd metrics and tags, a version without a run."""
    register("digits", metadata={"seed": "3", "who": "Jörg 'x' \"y\"", "metric.val_acc": "0.5"})
    for number in range(11):
        version("mnist", seed=str(number))
    client = store.client
    client.set_registered_model_alias("mnist", "champion", "3")
    client.set_registered_model_alias("mnist", "zweite", "3")
    client.set_registered_model_alias("mnist", "gone", "5")
    client.delete_model_version("mnist", "5")
    client.delete_model_version("mnist", "11")
    run = start_run(store, "odd", None, {})
    values = {"val_acc": 0.25, "nan": float("nan"), "big": 1e300, "inf": float("inf")}
    client.log_batch(run.run_id, metrics=[Metric(k, v, 1, 1) for k, v in values.items()])
    client.log_batch(run.run_id, metrics=[Metric("val_acc", 0.75, 2, 2)])
    run.log_params({"train.lr": 0.1, "umlaut": "ü"})
    run.end("FAILED")
    client.create_model_version("mnist", f"runs:/{run.run_id}/bundle", run.run_id, tags={"a": "b"})
    client.create_model_version("mnist", "/somewhere/else", await_creation_for=0)
    return store
