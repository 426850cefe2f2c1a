"""A training of one's own that ends badly, or with images that are not ours, registers nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from mindtrace.errors import StoreError
from mindtrace.models import MLP
from mindtrace.registry import MlflowLightningCallback
from mindtrace.registry.reader import open_database
from mindtrace.registry.store import Store

Track = Callable[..., MlflowLightningCallback]
Fit = Callable[..., None]

# Lightning 2.6 calls torch 2.14 in a way that torch would like changed.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated")


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
        """Nothing to say."""

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        loss = functional.cross_entropy(self.layer(batch[0].flatten(1)), batch[1])
        self.log("my_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*The number of training batches")
@pytest.mark.parametrize("kind", [MLP, Linear])
def test_with_images_that_are_not_ours_the_run_is_logged_and_nothing_registered(
    store: Store, kind: Any, caplog: pytest.LogCaptureFixture, track: Track, fit_with: Fit, mlp: MLP
) -> None:
    tracked = track(params={"a": 1})

    with caplog.at_level(logging.WARNING, "mindtrace"):
        fit_with(
            tracked,
            max_epochs=1,
            limit_val_batches=0,
            model=mlp if kind is MLP else Linear(),
            data=Loaders(),
        )

    run = store.client.get_run(tracked.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["params.a"] == "1"
    assert {"my_loss", "train_loss"} & set(run.data.metrics)
    assert tracked.published is None
    assert open_database(store.root / "mlflow.db").names() == []
    assert "no version is registered" in caplog.text


def test_a_fast_dev_run_makes_no_champion(
    store: Store, caplog: pytest.LogCaptureFixture, track: Track, fit_with: Fit
) -> None:
    tracked = track()

    fit_with(tracked, fast_dev_run=True)

    assert tracked.published is None
    assert store.client.get_run(tracked.run_id).info.status == "FINISHED"


class Break(pl.Callback):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_train_batch_start(self, trainer: pl.Trainer, *rest: Any) -> None:
        if trainer.global_step == 25:
            raise self.error


@pytest.mark.parametrize(
    ("error", "raised", "status"),
    [
        (ZeroDivisionError("x"), ZeroDivisionError, "FAILED"),
        (KeyboardInterrupt(), SystemExit, "KILLED"),
    ],
)
def test_a_run_ends_as_the_training_did(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    raised: type[BaseException],
    status: str,
    track: Track,
    fit_with: Fit,
) -> None:
    # Lightning would have this process ignore SIGINT from then on.
    monkeypatch.setattr("signal.signal", lambda signum, handler: None)
    tracked = track()

    with pytest.raises(raised):
        fit_with(tracked, Break(error))

    run = store.client.get_run(tracked.run_id)
    assert run.info.status == status
    assert "val_acc" in run.data.metrics, "the epoch that ended is known"
    assert tracked.published is None
    assert open_database(store.root / "mlflow.db").names() == []


def test_a_registration_that_fails_fails_the_run(store: Store, track: Track, fit_with: Fit) -> None:
    (store.root / "staging").write_text("a file")
    tracked = track()

    with pytest.raises(StoreError):
        fit_with(tracked, max_epochs=1)

    assert store.client.get_run(tracked.run_id).info.status == "FAILED"


def test_a_model_that_does_not_fit_the_images_registers_nothing(
    store: Store, track: Track, fit_with: Fit
) -> None:
    torch.manual_seed(0)
    tracked = track()

    with pytest.raises(Exception, match=r"\[12\]"):
        fit_with(tracked, max_epochs=1, model=MLP(dim=[64, 20, 12]))

    assert store.client.get_run(tracked.run_id).info.status == "FAILED"
    assert open_database(store.root / "mlflow.db").names() == []
