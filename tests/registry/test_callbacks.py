"""`MlflowLightningCallback` under a trainer of one's own, to its good or bad end."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from mindtrace.bundle.bundle import read_bundle
from mindtrace.bundle.predictor import Predictor
from mindtrace.config.settings import Settings, load_settings
from mindtrace.data import Digits
from mindtrace.errors import StoreError
from mindtrace.models import MLP
from mindtrace.registry import MlflowLightningCallback
from mindtrace.registry.reader import open_database
from mindtrace.registry.reference import locate
from mindtrace.registry.store import Store

Fit = Callable[..., None]
# The callback as anybody makes it.
track = partial(MlflowLightningCallback, "starter", log_system_metrics=False)

# Lightning 2.6 calls torch 2.14 in a way that torch would like changed.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated")


@pytest.fixture
def mlp() -> MLP:
    torch.manual_seed(0)
    return MLP(dim=[64, 100, 10], dropout=0.1)


@pytest.fixture
def fit(mlp: MLP, store: Store) -> Fit:
    """`fit(callback, max_epochs=1)`: of digits, by a trainer of one's own."""

    def train(
        *callbacks: pl.Callback,
        model: pl.LightningModule = mlp,
        data: pl.LightningDataModule | None = None,
        max_epochs: int = 1,
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


def status(store: Store, tracked: MlflowLightningCallback) -> str:
    assert tracked.run_id is not None
    return str(store.client.get_run(tracked.run_id).info.status)


def names(store: Store) -> list[str]:
    return open_database(store.root / "mlflow.db").names()


def test_a_training_is_tracked_and_its_version_registered(
    store: Store, settings: Settings, fit: Fit, mlp: MLP
) -> None:
    tracked = track(job_id="j7", params={"dropout": 0.1, "nested": {"a": 1}})
    data = Digits(batch_size=32, num_val=0.2, test_fraction=0.1, split_seed=5)

    fit(tracked, data=data, max_epochs=2)

    run = store.client.get_run(tracked.run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "digits/1 mlp seed 0")
    assert run.data.tags["mlflow.source.name"] == sys.argv[0]
    assert "trains mlp on digits" in run.data.tags["mlflow.note.content"]
    assert data.digests().data_digest.startswith(run.inputs.dataset_inputs[0].dataset.digest)
    assert store.client.get_experiment(run.info.experiment_id).name == "starter"
    params = {"params.dropout": "0.1", "params.nested.a": "1", "max_epochs": "2"}
    params |= {"lr": "0.001", "batch_size": "32", "dim": "[64, 100, 10]", "dropout": "0.1"}
    assert params.items() <= run.data.params.items()
    assert {"train_loss", "val_loss", "val_acc", "test_acc"} <= set(run.data.metrics)
    assert len(store.client.get_metric_history(run.info.run_id, "val_acc")) == 2
    assert tracked.published is not None
    assert (tracked.published.name, tracked.published.version) == ("digits", 1)
    located = locate(settings, "digits")
    assert located.row is not None
    assert located.row.tags["mindtrace.job_id"] == "j7"
    assert located.row.run_id == run.info.run_id

    predictor = Predictor.open(located.folder, located.digest)
    images = data.split("test").images[:50]
    expected = mlp.predict(data.normalise(images))
    assert predictor.run(images[:, 0].numpy()).argmax(1).tolist() == expected.tolist()
    assert predictor.model_config.class_names == data.class_names
    assert predictor.model_config.spec == data.spec

    text = (located.folder / "config.ini").read_text()
    made = load_settings(text=text)
    assert (made.data.source, made.data.batch_size, made.data.split_seed) == ("digits", 32, 5)
    assert (made.data.num_val, made.data.test_fraction) == (0.2, 0.1)
    assert (made.model.name, made.model.hidden, made.model.dropout) == ("mlp", 100, 0.1)
    assert (made.train.max_epochs, made.train.lr) == (2, mlp.lr)
    assert made.train.schedule == mlp.schedule
    assert (made.compute.device, made.compute.precision) == ("cpu", "32")
    assert "auto" not in text


class Forget(pl.Callback):
    """In the last epoch all is lost before it is validated."""

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch + 1 == trainer.max_epochs:
            with torch.no_grad():
                for parameter in pl_module.parameters():
                    parameter.zero_()


def test_the_best_weights_are_registered_and_the_callers_model_is_left_as_it_ended(
    store: Store, fit: Fit, mlp: MLP, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGISTRY__MODEL_NAME", "mine")
    tracked = track()
    fit(tracked, Forget(), max_epochs=3)
    first = tracked.run_id

    row = locate(load_settings(), "mine").row
    assert row is not None
    assert row.tags["mindtrace.best_epoch"] == "2"
    assert float(row.tags["mindtrace.metric.test_acc"]) > 0.7
    assert all((parameter == 0).all() for parameter in mlp.parameters())

    fit(tracked)  # a second fit is a second run and version
    assert tracked.run_id != first
    assert tracked.published is not None and tracked.published.version == 2
    assert not tracked.published.aliases
    assert names(store) == ["mine"]


def test_nothing_is_opened_before_the_training_begins(root: Path) -> None:
    track(tracking_uri="postgresql://u:p@nowhere.invalid/db")

    assert list(root.iterdir()) == []


class Loaders(pl.LightningDataModule):
    """Somebody else's images."""

    def train_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.randn(8, 1, 8, 8), torch.arange(8)), batch_size=4)

    val_dataloader = train_dataloader


class Linear(pl.LightningModule):
    """Somebody else's model."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)

    def validation_step(self, batch: Any, index: int) -> None:
        """Nothing to report."""

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        loss = functional.cross_entropy(self.layer(batch[0].flatten(1)), batch[1])
        self.log("my_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Mine(Digits):
    """Feeds other images than it has digests of."""

    train_dataloader = Loaders.train_dataloader


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*The number of training batches")
@pytest.mark.filterwarnings("ignore:.*`max_epochs=0`")
@pytest.mark.filterwarnings("ignore:You requested to overfit")
def test_what_is_no_training_of_ours_is_logged_and_registers_nothing(
    store: Store, caplog: pytest.LogCaptureFixture, fit: Fit, mlp: MLP
) -> None:
    foreign: dict[str, Any] = {"limit_val_batches": 0, "data": Loaders()}
    limited = "the trainer limits the batches"
    for options, metrics, reason in (
        ({"model": mlp, **foreign}, {"train_loss"}, "only a model and a data module"),
        ({"model": Linear(), **foreign}, {"my_loss"}, "only a model and a data module"),
        ({"data": Mine()}, {"train_loss"}, "only a model and a data module"),
        ({"fast_dev_run": True}, set(), limited),
        ({"limit_train_batches": 0.5}, {"train_loss"}, limited),
        ({"limit_val_batches": 0}, {"train_loss"}, limited),
        ({"overfit_batches": 1}, {"train_loss"}, limited),
        ({"max_steps": 3}, set(), "no epoch was trained and validated"),
        ({"max_epochs": 0}, set(), "no epoch was trained and validated"),
    ):
        tracked = track(params={"a": 1}, run_name="mine")
        with caplog.at_level(logging.WARNING, "mindtrace"):
            fit(tracked, **options)

        run = store.client.get_run(tracked.run_id)
        assert (run.info.status, run.info.run_name) == ("FINISHED", "mine")
        foreign_data = isinstance(options.get("data"), Loaders)
        assert ("mlp" in run.data.tags["mlflow.note.content"]) != foreign_data
        assert run.data.params["params.a"] == "1"
        assert metrics <= set(run.data.metrics)
        assert tracked.published is None
        assert f"run {tracked.run_id} is logged, no version is registered: {reason}" in caplog.text
    assert names(store) == []


def test_only_the_first_process_registers_and_says_what(
    store: Store, fit: Fit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "pytorch_lightning"):
        fit(track())
    assert "registered digits/1, the champion" in caplog.text

    monkeypatch.setattr(pl.Trainer, "is_global_zero", False)
    other = track()
    fit(other)
    assert (other.run_id, other.published) == (None, None)
    assert [
        row.version for row in open_database(store.root / "mlflow.db").versions("digits", 9)
    ] == [1]


class Break(pl.Callback):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_train_batch_start(self, trainer: pl.Trainer, *rest: Any) -> None:
        if trainer.global_step == 25:
            raise self.error


def test_a_run_ends_as_the_training_did(
    store: Store, monkeypatch: pytest.MonkeyPatch, fit: Fit
) -> None:
    # Lightning would have this process ignore SIGINT from then on.
    monkeypatch.setattr("signal.signal", lambda signum, handler: None)
    for error, raised, ended in (
        (ZeroDivisionError("x"), ZeroDivisionError, "FAILED"),
        (KeyboardInterrupt(), SystemExit, "KILLED"),
    ):
        tracked = track()
        with pytest.raises(raised):
            fit(tracked, Break(error), max_epochs=2)

        assert status(store, tracked) == ended
        metrics = store.client.get_run(tracked.run_id).data.metrics
        assert "val_acc" in metrics, "the epoch that ended is known"
        assert tracked.published is None

    unfit = track()
    with pytest.raises(Exception, match=r"\[12\]"):
        fit(unfit, model=MLP(dim=[64, 20, 12]))  # digits have ten classes
    assert status(store, unfit) == "FAILED"
    (store.root / "staging").rmdir()
    (store.root / "staging").write_text("a file")
    unregistered = track()
    with pytest.raises(StoreError):
        fit(unregistered)
    assert status(store, unregistered) == "FAILED"
    assert names(store) == []


STARTER = """
import json, logging, os, sys
import mlflow
from pytorch_lightning import Trainer
from mindtrace.data import Digits
from mindtrace.models import MLP
from mindtrace.registry import MlflowLightningCallback

before = mlflow.get_tracking_uri(), mlflow.get_registry_uri(), dict(os.environ)
callback = MlflowLightningCallback(experiment_name="starter", run_name="mlp", params={"hidden": 50})
dataset, model = Digits(batch_size=64), MLP(dim=[64, 50, 10])
trainer = Trainer(max_epochs=1, callbacks=[callback])
trainer.fit(model, dataset)
trainer.test(model, dataset)
after = mlflow.get_tracking_uri(), mlflow.get_registry_uri(), dict(os.environ)
changed = {key: value for key, value in after[2].items() if before[2].get(key) != value}
print(json.dumps({
    "uris": before[:2] == after[:2], "active": mlflow.active_run() is not None,
    "last": mlflow.last_active_run() is not None if before[0].startswith("http") else False,
    "variables": sorted(key for key in changed if key.startswith("MLFLOW")),
    "version": callback.published.version, "steps": trainer.global_step,
}))
"""


@pytest.mark.proof
@pytest.mark.slow
def test_the_starters_own_example_leaves_mlflow_and_the_folder_as_they_were(
    root: Path, tmp_path: Path
) -> None:
    """With everything that Lightning does of itself, and system metrics on."""
    folder = tmp_path / "work"
    folder.mkdir()

    done = subprocess.run(
        [sys.executable, "-c", STARTER],
        cwd=folder,
        capture_output=True,
        text=True,
        env=dict(os.environ),
        check=False,
    )

    assert done.returncode == 0, done.stderr
    same = {"uris": True, "active": False, "last": False, "variables": []}
    assert json.loads(done.stdout.splitlines()[-1]) == {**same, "version": 1, "steps": 21}
    assert {path.name for path in folder.iterdir()} <= {"lightning_logs", "checkpoints"}
    row = open_database(root / "mlflow.db").version("digits", 1)
    assert row is not None
    (bundle,) = root.glob("mlartifacts/*/artifacts/bundle")
    assert read_bundle(bundle, row.tags["mindtrace.bundle_digest"])
