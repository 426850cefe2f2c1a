"""`MlflowLightningCallback` under a trainer of one's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from mindtrace.bundle.bundle import read_bundle
from mindtrace.bundle.predictor import Predictor
from mindtrace.config.settings import Settings, load_settings
from mindtrace.data import Digits
from mindtrace.models import MLP
from mindtrace.registry import MlflowLightningCallback
from mindtrace.registry.reader import open_database
from mindtrace.registry.reference import locate
from mindtrace.registry.store import Store

Track = Callable[..., MlflowLightningCallback]
Fit = Callable[..., None]

# Lightning 2.6 calls torch 2.14 in a way that torch would like changed.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated")


def test_a_training_is_tracked_and_its_version_registered(
    store: Store, settings: Settings, track: Track, fit_with: Fit, mlp: MLP
) -> None:
    tracked = track(run_name="mlp", job_id="j7", params={"dropout": 0.1, "nested": {"a": 1}})

    fit_with(tracked)

    run = store.client.get_run(tracked.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "mlp"
    assert store.client.get_experiment(run.info.experiment_id).name == "starter"
    assert run.data.params["params.dropout"] == "0.1"
    assert run.data.params["params.nested.a"] == "1"
    assert run.data.params["max_epochs"] == "2"
    assert {"train_loss", "val_loss", "val_acc", "test_acc"} <= set(run.data.metrics)
    assert len(store.client.get_metric_history(run.info.run_id, "val_acc")) == 2
    assert tracked.published is not None
    assert (tracked.published.model_name, tracked.published.version) == ("digits", 1)
    located = locate(settings, "digits")
    assert located.row is not None
    assert located.row.tags["mindtrace.job_id"] == "j7"
    assert located.row.run_id == run.info.run_id


def test_what_is_registered_answers_as_the_model_does(
    store: Store, settings: Settings, track: Track, fit_with: Fit, mlp: MLP
) -> None:
    data = Digits()
    fit_with(track(), data=data)

    located = locate(settings, "digits")
    predictor = Predictor.open(located.folder, located.digest)

    images = data.split("test").images[:50]
    expected = mlp.predict(data.normalise(images))
    assert predictor.run(images[:, 0].numpy()).argmax(1).tolist() == expected.tolist()
    assert predictor.model_config.class_names == data.class_names
    assert predictor.model_config.spec == data.spec


class Forget(pl.Callback):
    """In the last epoch all is lost before it is validated."""

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch + 1 == trainer.max_epochs:
            with torch.no_grad():
                for parameter in pl_module.parameters():
                    parameter.zero_()


def test_the_best_weights_are_registered_and_the_callers_model_is_left_as_it_ended(
    store: Store, settings: Settings, track: Track, fit_with: Fit, mlp: MLP
) -> None:
    tracked = track()
    fit_with(tracked, Forget(), max_epochs=3)

    located = locate(settings, "digits")
    assert located.row is not None
    assert located.row.tags["mindtrace.best_epoch"] == "2"
    assert float(located.row.tags["mindtrace.metric.test_acc"]) > 0.7
    assert all((parameter == 0).all() for parameter in mlp.parameters())


def test_the_configuration_of_the_bundle_is_what_was_really_trained(
    store: Store, settings: Settings, track: Track, fit_with: Fit, mlp: MLP
) -> None:
    data = Digits(batch_size=32, num_val=0.2, test_fraction=0.1, split_seed=5)
    fit_with(track(), max_epochs=1, data=data)

    text = (locate(settings, "digits").folder / "config.ini").read_text()
    said = load_settings(text=text)

    assert (said.data.source, said.data.batch_size, said.data.split_seed) == ("digits", 32, 5)
    assert (said.data.num_val, said.data.test_fraction) == (0.2, 0.1)
    assert (said.model.name, said.model.hidden, said.model.dropout) == ("mlp", 100, 0.1)
    assert (said.train.max_epochs, said.train.lr) == (1, mlp.lr)
    assert said.train.schedule == mlp.schedule
    assert (said.compute.device, said.compute.precision) == ("cpu", "32")
    assert "auto" not in text


def test_a_configured_name_is_the_models_name(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch, track: Track, fit_with: Fit
) -> None:
    monkeypatch.setenv("REGISTRY__MODEL_NAME", "mine")

    fit_with(track(), max_epochs=1)

    assert open_database(store.root / "mlflow.db").names() == ["mine"]


def test_a_second_fit_is_a_second_run_and_version(
    store: Store, track: Track, fit_with: Fit
) -> None:
    tracked = track()
    fit_with(tracked, max_epochs=1)
    first = tracked.run_id
    fit_with(tracked, max_epochs=1)

    assert tracked.run_id != first
    assert tracked.published is not None and tracked.published.version == 2
    assert not tracked.published.champion


def test_nothing_is_opened_before_the_training_begins(root: Path, track: Track) -> None:
    track(tracking_uri="postgresql://u:p@nowhere.invalid/db")

    assert list(root.iterdir()) == []


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
    said = json.loads(done.stdout.splitlines()[-1])
    assert said == {
        "uris": True,
        "active": False,
        "last": False,
        "variables": [],
        "version": 1,
        "steps": 21,
    }
    assert {path.name for path in folder.iterdir()} <= {"lightning_logs", "checkpoints"}
    reader = open_database(root / "mlflow.db")
    row = reader.version("digits", 1)
    assert row is not None
    (bundle,) = root.glob("mlartifacts/*/artifacts/bundle")
    assert read_bundle(bundle, row.tags["mindtrace.bundle_digest"])
