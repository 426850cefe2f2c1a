"""The training itself.

In: settings and images. Out: a `TrainResult` with the best weights, by the monitored
validation metric, and what they do on the test images.
"""

from __future__ import annotations

import logging
import math
import signal
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping, Timer
from pytorch_lightning.utilities.exceptions import SIGTERMException

from mindtrace.config.settings import Settings
from mindtrace.data.base import ImageDataModule
from mindtrace.errors import InterruptedByUser
from mindtrace.models import ImageClassifier, build_model
from mindtrace.progress import EpochReport, Progress
from mindtrace.training.callbacks import BestWeights, EpochSeeds, Relay, StopOnNonsense
from mindtrace.training.checkpoint import LAST, Checkpoints
from mindtrace.training.evaluate import Evaluation, evaluate

# Batches gathered by one indexing: a list of them costs Lightning's hooks once.
CHUNK = 32


@dataclass(frozen=True)
class TrainResult:
    """A finished training.

    Attributes:
        model: with the weights of the best epoch, on the CPU.
        data: the images it saw.
        metrics: train_loss, val_loss, val_acc of the best epoch; test_loss, test_acc.
        test: the answers to the test images.
        course: a report of each epoch.
        best_epoch: from 1.
        epochs: how many were run.
        steps: optimizer steps, as Lightning counted them.
        fit_s: seconds of `Trainer.fit`, with validation and callbacks.
        started_at: UTC.
        ended_at: UTC.
    """

    model: ImageClassifier
    data: ImageDataModule
    metrics: dict[str, float]
    test: Evaluation
    course: tuple[EpochReport, ...]
    best_epoch: int
    epochs: int
    steps: int
    fit_s: float
    started_at: datetime
    ended_at: datetime


def fit(
    settings: Settings,
    data: ImageDataModule,
    *,
    callbacks: Sequence[pl.Callback] = (),
    progress: Progress | None = None,
    checkpoints: Path | None = None,
    resume: bool = False,
) -> TrainResult:
    """Train `[model]` on `data` as `[train]` and `[compute]` say.

    Args:
        settings: every `auto` of `[compute]` resolved.
        data: set up.
        callbacks: more Lightning callbacks, called after ours.
        progress: hears of every epoch.
        checkpoints: the folder to keep `last.ckpt` in; None keeps none.
        resume: go on from the `last.ckpt` in `checkpoints`.

    Raises:
        TrainingError: the loss is no number any more.
    """
    progress = progress or Progress()
    started_at = datetime.now(UTC)
    train = settings.train
    with _threads(settings.compute.threads), _quiet():
        torch.manual_seed(train.seed)
        model = build_model(settings.model, train, data.spec, data.class_names)
        steps = math.ceil(len(data.split("train")) / data.batch_size)
        model.automatic_optimization = False
        model.steps_per_epoch = steps
        data.seed, data.chunk = train.seed, CHUNK
        best = BestWeights(train.monitor)
        relay = Relay(progress, best, steps)
        own: list[pl.Callback] = [EpochSeeds(train.seed), best, relay, StopOnNonsense()]
        if checkpoints is not None:
            own.append(Checkpoints(checkpoints))
        trainer = _trainer(settings, [*own, *_limits(settings), *callbacks])
        start = checkpoints / LAST if checkpoints is not None and resume else None
        progress.started(train.max_epochs, steps)
        began = time.perf_counter()
        try:
            # weights_only: tensors and plain values; a checkpoint can run no code.
            trainer.fit(model, datamodule=data, ckpt_path=start, weights_only=True)
        except SIGTERMException as error:
            # Lightning heard the signal too, and was quicker.
            raise InterruptedByUser(signal.SIGTERM) from error
        fit_s = time.perf_counter() - began
        best.restore(model)
        model.cpu()
        progress.stage("testing the best weights")
        test = evaluate(model, data, "test")
    return TrainResult(
        model=model,
        data=data,
        metrics={**best.metrics, "test_loss": test.loss, "test_acc": test.accuracy},
        test=test,
        course=tuple(relay.course),
        best_epoch=best.epoch,
        epochs=trainer.current_epoch,
        steps=trainer.global_step,
        fit_s=fit_s,
        started_at=started_at,
        ended_at=datetime.now(UTC),
    )


def _trainer(settings: Settings, callbacks: list[pl.Callback]) -> pl.Trainer:
    precision: Any = "bf16-mixed" if settings.compute.precision == "bf16" else "32-true"
    return pl.Trainer(
        max_epochs=settings.train.max_epochs,
        accelerator=settings.compute.device,
        devices=1,
        precision=precision,
        callbacks=callbacks,
        logger=False,
        # Ours or none; True alone would add one of Lightning's own.
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=settings.dirs.checkpoints,
    )


def _limits(settings: Settings) -> list[pl.Callback]:
    limits: list[pl.Callback] = []
    if settings.train.patience is not None:
        mode = "max" if settings.train.monitor.endswith("acc") else "min"
        limits.append(
            EarlyStopping(settings.train.monitor, patience=settings.train.patience, mode=mode)
        )
    if settings.train.max_minutes is not None:
        limits.append(
            Timer(timedelta(minutes=settings.train.max_minutes), interval="epoch", verbose=False)
        )
    return limits


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's banners and advertisements stay out; its warnings about us do not."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 calls torch 2.14 in a way that torch would like changed.
            warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")
            yield
    finally:
        logger.setLevel(level)
