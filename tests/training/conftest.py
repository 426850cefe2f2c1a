"""Trainings of digits that take a moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from mindtrace.bundle.bundle import weights_digest
from mindtrace.config.settings import load_settings
from mindtrace.data.datamodule import build_data
from mindtrace.training.fit import TrainResult, fit

Fit = Callable[..., TrainResult]

_SMALL = (
    "data.source=digits",
    "train.max_epochs=3",
    "train.lr=0.005",
    "compute.threads=1",
    "compute.device=cpu",
    "compute.precision=32",
)


@pytest.fixture(scope="session")
def fitted() -> Fit:
    """`fitted("train.seed=1", callbacks=[...])`: a whole training."""

    def train(*sets: str, **options: Any) -> TrainResult:
        settings = load_settings(sets=[*_SMALL, *sets], environ={})
        return fit(settings, build_data(settings), **options)

    return train


def digest(result: TrainResult) -> str:
    return weights_digest(result.model.weights())


class SpoilFrom(pl.Callback):
    """From the epoch `epoch` on, what the network has learnt is lost before it is validated."""

    def __init__(self, epoch: int, value: float = 0.0) -> None:
        self.epoch = epoch
        self.value = value

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch + 1 >= self.epoch:
            with torch.no_grad():
                for parameter in pl_module.parameters():
                    parameter.fill_(self.value)


class PowerCutError(Exception):
    """What `InterruptAt` raises."""


class InterruptAt(pl.Callback):
    """Raises before the validation of an epoch, after its steps were done."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch + 1 == self.epoch:
            raise PowerCutError
