"""Lightning callbacks of a training: seeds, best weights, progress, reasons to stop."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from mindtrace.errors import TrainingError
from mindtrace.progress import EpochReport, Progress

METRICS = ("train_loss", "val_loss", "val_acc")
CLASS_METRICS = ("val_balanced_accuracy", "val_f1_macro")


class BestWeights(pl.Callback):
    """Keeps the weights of the best epoch in memory; `epoch` counts from 1, 0 is none yet."""

    def __init__(self, monitor: str = "val_acc") -> None:
        self.monitor = monitor
        self.epoch = 0
        self.metrics: dict[str, float] = {}
        self._weights: dict[str, Tensor] = {}
        self._validated: dict[str, Tensor] = {}
        self._best = -math.inf

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep what was validated: with weight averaging the average, which goes away again."""
        self._validated = {
            name: tensor.detach().clone() for name, tensor in pl_module.state_dict().items()
        }

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = epoch_metrics(trainer)
        value = metrics.get(self.monitor, math.nan)
        score = -value if self.monitor.endswith("loss") else value
        if score > self._best:  # the first of equals stays
            self._best, self.epoch = score, trainer.current_epoch + 1
            self.metrics, self._weights = metrics, self._validated

    def state_dict(self) -> dict[str, Any]:
        kept = {"best": self._best, "epoch": self.epoch}
        return {**kept, "metrics": self.metrics, "weights": self._weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best, self.epoch = state_dict["best"], state_dict["epoch"]
        self.metrics, self._weights = dict(state_dict["metrics"]), dict(state_dict["weights"])

    def restore(self, pl_module: pl.LightningModule) -> None:
        """Put the best weights back into the module; nothing if no epoch ended."""
        if self._weights:
            pl_module.load_state_dict(self._weights)


class EpochSeeds(pl.Callback):
    """Makes an epoch's random numbers depend on seed and epoch alone, also after a resume."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        torch.manual_seed(self.seed * 1_000_003 + trainer.current_epoch + 1)


class ProgressCallback(pl.Callback):
    """Reports steps and epochs to a `Progress`; `course` has a report of each epoch so far."""

    def __init__(self, progress: Progress, best: BestWeights, steps: int) -> None:
        self.course: list[EpochReport] = []
        self._progress = progress
        self._best = best
        self._steps = steps
        self._began = 0.0

    @property
    def state_key(self) -> str:
        """The key of its state in a checkpoint: the class's name when the format was made."""
        return "Relay"

    def state_dict(self) -> dict[str, Any]:
        return {"course": [asdict(report) for report in self.course]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.course = [EpochReport(**fields) for fields in state_dict["course"]]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *about: Any) -> None:
        epoch = trainer.current_epoch
        self._progress.advanced(epoch + 1, trainer.global_step - epoch * self._steps)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # `BestWeights` comes before in the list of callbacks.
        epoch = trainer.current_epoch + 1
        max_epochs, metrics = trainer.max_epochs or epoch, epoch_metrics(trainer)
        seconds, best = time.perf_counter() - self._began, self._best.epoch == epoch
        report = EpochReport(epoch, max_epochs, metrics, seconds, best, self._best.monitor)
        self.course.append(report)
        self._progress.epoch(report)


class StopOnRequest(pl.Callback):
    """Raises what `wanted` returns, between two batches and never within a step."""

    def __init__(self, wanted: Callable[[], BaseException | None]) -> None:
        self._wanted = wanted

    def on_train_batch_start(self, *about: Any) -> None:
        self.check()

    def check(self) -> None:
        """Raise what is wanted, if anything is."""
        if error := self._wanted():
            raise error


class TerminateOnNaN(pl.Callback):
    """Ends a training whose loss is no longer finite."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch, hint = trainer.current_epoch + 1, "if it stays, look at the images"
        for name, value in epoch_metrics(trainer).items():
            if name.endswith("loss") and not math.isfinite(value):
                message = f"{name} = {value} in epoch {epoch}: the training diverged"
                raise TrainingError(message, hint=f"try a smaller [train] lr; {hint}")


def epoch_metrics(trainer: pl.Trainer) -> dict[str, float]:
    """`METRICS` of the epoch that ends, NaN if not logged, and those of `CLASS_METRICS` logged."""
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    known = {name: logged[name] for name in CLASS_METRICS if name in logged}
    return {name: logged.get(name, math.nan) for name in METRICS} | known
