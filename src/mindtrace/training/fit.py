"""Trains a network and tests its best weights."""

import copy
import logging
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
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping, EMAWeightAveraging, Timer
from pytorch_lightning.utilities.exceptions import SIGTERMException

from mindtrace.config.sections import TrainSettings
from mindtrace.config.settings import Settings
from mindtrace.data.batches import batch_sizes, class_weights, image_weights
from mindtrace.data.datamodule import ImageDataModule
from mindtrace.errors import InterruptedByUser, UsageError
from mindtrace.models import ImageClassifier, build_model
from mindtrace.progress import EpochReport, Progress
from mindtrace.system import auto_device, has_bf16
from mindtrace.training.callbacks import (
    BestWeights,
    EpochSeeds,
    ProgressCallback,
    StopOnRequest,
    TerminateOnNaN,
)
from mindtrace.training.checkpoint import LAST, Checkpoints
from mindtrace.training.frozen import FrozenPart, Head, frozen_part, trains_head_only
from mindtrace.training.report import Evaluation, evaluate, evaluation
from mindtrace.utils.system import available_cores

# Batches gathered by one indexing: a list of them costs Lightning's hooks once.
CHUNK = 32


@dataclass(frozen=True)
class TrainResult:
    """A finished training: the model with the weights of its best epoch, on the CPU."""

    model: ImageClassifier
    data: ImageDataModule
    metrics: dict[str, float]  # of the best epoch and of the test
    test: Evaluation
    course: tuple[EpochReport, ...]
    best_epoch: int
    epochs: int
    steps: int  # of the optimizer
    fit_s: float  # `Trainer.fit` and the features of frozen layers, validation included
    started_at: datetime
    ended_at: datetime
    graph: bytes | None = None  # of the network in ONNX, where it is known


def resolve_compute(settings: Settings) -> Settings:
    """`settings` with every `auto` of `[compute]` as it is for this network on this machine."""
    compute = settings.compute
    device = compute.device
    if device == "auto":
        device = auto_device()
        # This build of torch may lack what the machine has.
        device = device if device in devices() else "cpu"
    elif device not in devices():
        message = f"[compute] device = {device}: torch finds {', '.join(devices())} here"
        raise UsageError(message, hint=f"--device {devices()[-1]}")
    # A perceptron has too little to multiply for bf16's casts, or for a second thread, to pay.
    convolves = settings.model.name != "mlp"
    threads = compute.threads
    if threads is None:
        threads = available_cores() if device == "cpu" and convolves else 1
    precision = compute.precision
    if precision == "auto":
        bf16 = not trains_head_only(settings) and (
            (device.startswith("cuda") and torch.cuda.is_bf16_supported())
            or (device == "cpu" and convolves and has_bf16())
        )
        precision = "bf16" if bf16 else "32"
    found = {"compute.device": device, "compute.precision": precision, "compute.threads": threads}
    return settings.replace(**found)


def devices() -> list[str]:
    """What `[compute] device` may be on this machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own words about a driver that is too old
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = ["cuda", *(f"cuda:{index}" for index in range(count))] if count else []
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]


def build(settings: Settings, data: ImageDataModule) -> ImageClassifier:
    """The network to train; UsageError where it cannot learn from these images and batches."""
    spec, size = data.spec, data.batch_size
    frozen = trains_head_only(settings)
    count = 1 if frozen else min(2, *batch_sizes(len(data.split("train")), size))
    torch.manual_seed(settings.train.seed)
    try:
        model = build_model(settings.model, settings.train, spec, data.class_names)
        trial = copy.deepcopy(model).train(not frozen)  # normalisations keep what they see
        trial.on_train_epoch_start()
        with torch.no_grad():
            trial(torch.zeros(count, spec.channels, spec.height, spec.width))
    except (RuntimeError, ValueError, MemoryError) as error:
        reason = (str(error).splitlines() or ["too little memory"])[0]
        hint = None if "memory" in reason else "--set data.image_size=32"
        raise UsageError(
            f"[model] name = {settings.model.name} cannot learn from images of {spec.width}x"
            f"{spec.height} in batches of {size}: {reason}",
            hint="--batch-size 2" if count == 1 else hint,
        ) from error
    return model


def fit(
    settings: Settings,
    data: ImageDataModule,
    *,
    model: ImageClassifier | None = None,
    callbacks: Sequence[pl.Callback] = (),
    progress: Progress | None = None,
    checkpoints: Path | None = None,
    resume: bool = False,
) -> TrainResult:
    """Train `model`, or one it builds, with resolved settings; keeps `last.ckpt`."""
    progress = progress or Progress()
    started_at = datetime.now(UTC)
    train = settings.train
    with _torch_threads(settings.compute.threads), _quiet():
        model = model or build(settings, data)
        part = frozen_part(model, settings, progress)
        began = time.perf_counter()
        if part is None:
            module, loaders = model, {"datamodule": data}
            steps = len(batch_sizes(len(data.split("train")), data.batch_size))
            _prepare(model, data, train, steps)
        else:
            module, loaders = _head(part, settings, data, callbacks)
            steps = 1
            settings = settings.replace(**{"compute.device": "cpu", "compute.precision": "32"})
        best = BestWeights(train.monitor)
        reporting = ProgressCallback(progress, best, steps)
        own: list[pl.Callback] = [EpochSeeds(train.seed), best, reporting, TerminateOnNaN()]
        if part is None and train.average != "none":
            # Over about an epoch of steps, and at least ten. After `best`, which looks at weights
            # before this takes them back.
            own.append(EMAWeightAveraging(decay=1 - 1 / min(1000, max(10, steps))))
        own += _limits(train)
        if checkpoints is not None:
            own.append(Checkpoints(checkpoints))
        trainer = _trainer(settings, [*own, *callbacks])
        start = checkpoints / LAST if checkpoints is not None and resume else None
        progress.started(train.max_epochs, steps)
        try:
            # A second thread waits longer than it works on one layer.
            with _torch_threads(1 if part else settings.compute.threads):
                # weights_only: tensors and plain values; a checkpoint can run no code.
                trainer.fit(module, **loaders, ckpt_path=start, weights_only=True)
        except SIGTERMException as error:
            # Lightning's own handler saw the signal first.
            raise InterruptedByUser(signal.SIGTERM) from error
        best.restore(module)
        if part is not None and isinstance(module, Head):
            part.put_back(module)
        fit_s = time.perf_counter() - began
        model.cpu()
        progress.stage("testing the best weights")
        if part is None:
            test = evaluate(model, data, "test")
        else:
            test = evaluation(part.logits(data.split("test")), data.split("test").labels)
    return TrainResult(
        model=model,
        data=data,
        metrics={**best.metrics, **test.metrics},
        test=test,
        course=tuple(reporting.course),
        best_epoch=best.epoch,
        epochs=trainer.current_epoch,
        steps=trainer.global_step,
        fit_s=fit_s,
        started_at=started_at,
        ended_at=datetime.now(UTC),
        graph=part.graph if part else None,
    )


def _prepare(
    model: ImageClassifier, data: ImageDataModule, train: TrainSettings, steps: int
) -> None:
    """Have all layers learn from lists of batches, balanced as `[train] balance` says."""
    model.automatic_optimization = False
    model.steps_per_epoch = steps
    data.order.seed, data.chunk = train.seed, CHUNK if train.average == "none" else 1
    data.balanced = train.balance == "sample"
    if train.balance == "loss":
        model.class_weights = class_weights(data.split("train").labels, len(data.class_names))


def _head(
    part: FrozenPart, settings: Settings, data: ImageDataModule, callbacks: Sequence[pl.Callback]
) -> tuple[Head, dict[str, Any]]:
    """The last layer to train, and its loaders: features of training and validation images."""
    stopping = [one.check for one in callbacks if isinstance(one, StopOnRequest)]
    train, val = (part.features(data.split(stage), *stopping) for stage in ("train", "val"))
    head = Head(part, settings, train)
    # All images are there at once: to draw some more often is to weigh them more.
    head.image_weights = image_weights(data.split("train"), settings.train.balance != "none")
    return head, {
        "train_dataloaders": head.loader(train, data.split("train").labels),
        "val_dataloaders": head.loader(val, data.split("val").labels),
    }


def _trainer(settings: Settings, callbacks: list[pl.Callback]) -> pl.Trainer:
    precision: Any = "bf16-mixed" if settings.compute.precision == "bf16" else "32-true"
    device, _, index = settings.compute.device.partition(":")
    return pl.Trainer(
        max_epochs=settings.train.max_epochs,
        accelerator=device,
        devices=[int(index)] if index else 1,
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


def _limits(train: TrainSettings) -> Iterator[pl.Callback]:
    """What ends a training early: patience and minutes."""
    if train.patience is not None:
        mode = "min" if train.monitor.endswith("loss") else "max"
        yield EarlyStopping(train.monitor, patience=train.patience, mode=mode)
    if train.max_minutes is not None:
        duration = timedelta(minutes=train.max_minutes)
        yield Timer(duration, interval="epoch", verbose=False)


@contextmanager
def _torch_threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences Lightning's banners and advertisements; its warnings still show."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 calls torch 2.14 in a way that torch deprecates.
            warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")
            yield
    finally:
        logger.setLevel(level)
