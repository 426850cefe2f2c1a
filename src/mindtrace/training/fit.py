"""Trains a network and tests its best weights."""

from __future__ import annotations

import json
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
from uuid import uuid4

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping, Timer
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch.nn import functional

from mindtrace.config.settings import Settings
from mindtrace.data.base import ImageDataModule
from mindtrace.errors import InterruptedByUser
from mindtrace.models import ImageClassifier, build_model
from mindtrace.models.networks import build_network, fit_layout, network_arguments
from mindtrace.preprocess import ImageSpec
from mindtrace.progress import EpochReport, Progress
from mindtrace.system import auto_device, has_bf16, processor
from mindtrace.training.callbacks import BestWeights, EpochSeeds, ProgressCallback, TerminateOnNaN
from mindtrace.training.checkpoint import LAST, Checkpoints
from mindtrace.training.report import Evaluation, evaluate
from mindtrace.utils.system import available_cores

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
        relay = ProgressCallback(progress, best, steps)
        own: list[pl.Callback] = [EpochSeeds(train.seed), best, relay, TerminateOnNaN()]
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


FILE = "machine.json"
TURNS = 8
SECONDS = 3.0  # a network that needs longer than this for two turns gets no third
# Values in a batch to race with: enough to keep two cores busy, little enough to be quick.
LARGEST_INPUT = 2**20
# A candidate must be this much quicker to win over the plainer one before it.
GAIN = 0.9


@dataclass(frozen=True)
class Choice:
    """One way to compute: `precision` is `32` or `bf16`."""

    threads: int
    precision: str


def resolve_compute(settings: Settings, spec: ImageSpec, classes: int) -> Settings:
    """`settings` with every `auto` of `[compute]` as it is for this network here.

    Args:
        settings: whose said values stay as they are.
        spec: the network's input.
        classes: how many.
    """
    architecture = settings.model.name
    arguments = network_arguments(settings.model, spec, classes)
    compute = settings.compute
    device = _usable_device() if compute.device == "auto" else compute.device
    candidates = _candidates(device, compute.threads, compute.precision, architecture)
    file = settings.dirs.root / FILE
    values = spec.channels * spec.height * spec.width
    batch = max(2, min(settings.data.batch_size, LARGEST_INPUT // values))
    key = _key(architecture, arguments, spec, batch)
    choice = candidates[0] if len(candidates) == 1 else _remembered(file, key)
    if choice not in candidates:
        choice = _race(candidates, architecture, arguments, spec, batch)
        _remember(file, key, choice)
    return settings.replace(
        **{
            "compute.device": device,
            "compute.precision": choice.precision,
            "compute.threads": choice.threads,
        }
    )


def _usable_device() -> str:
    """The machine's best device, or the processor if this build of torch cannot use that."""
    device = auto_device()
    if device == "cuda" and not torch.cuda.is_available():
        return "cpu"
    if device == "mps" and not torch.backends.mps.is_available():
        return "cpu"
    return device


def _candidates(
    device: str, threads: int | None, precision: str, architecture: str
) -> list[Choice]:
    """What may be raced, the plainest first; one where everything is said."""
    cores = available_cores()
    counts = [threads] if threads else ([1] if device != "cpu" or cores == 1 else [1, cores])
    if precision != "auto":
        precisions = [precision]
    elif device == "cuda":
        precisions = ["bf16" if torch.cuda.is_bf16_supported() else "32"]
    elif device == "cpu" and has_bf16() and architecture != "mlp":
        precisions = ["32", "bf16"]
    else:
        # A perceptron has too little to multiply for the casts to pay.
        precisions = ["32"]
    return [Choice(count, one) for one in precisions for count in counts]


def _race(
    candidates: list[Choice],
    architecture: str,
    arguments: dict[str, Any],
    spec: ImageSpec,
    batch: int,
) -> Choice:
    """The quickest candidate, by the best of a few real training steps of each.

    They take turns and only their best times count, so that somebody else's work on the
    same cores delays all of them alike and decides nothing.
    """
    began = time.perf_counter()
    before = torch.get_num_threads()
    best = [math.inf] * len(candidates)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            runners = [_Runner(architecture, arguments, spec, batch) for _ in candidates]
            for turn in range(TURNS):
                for index, (choice, runner) in enumerate(zip(candidates, runners, strict=True)):
                    best[index] = min(best[index], runner.seconds(choice))
                if turn and time.perf_counter() - began > SECONDS:
                    break
    finally:
        torch.set_num_threads(before)
    winner = 0
    for index, seconds in enumerate(best):
        if seconds < GAIN * best[winner]:
            winner = index
    return candidates[winner]


class _Runner:
    """A network that can be asked for the time of a training step."""

    def __init__(
        self, architecture: str, arguments: dict[str, Any], spec: ImageSpec, batch: int
    ) -> None:
        self._network = fit_layout(build_network(architecture, arguments)).train()
        self._optimizer = torch.optim.AdamW(self._network.parameters(), fused=True)
        self._images = torch.randn(batch, spec.channels, spec.height, spec.width)
        self._labels = torch.zeros(batch, dtype=torch.int64)

    def seconds(self, choice: Choice) -> float:
        """Of the second of two steps: the first wakes the threads."""
        torch.set_num_threads(choice.threads)
        self._step(choice)
        began = time.perf_counter()
        self._step(choice)
        return time.perf_counter() - began

    def _step(self, choice: Choice) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=choice.precision == "bf16"):
            loss = functional.cross_entropy(self._network(self._images), self._labels)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()


def _key(architecture: str, arguments: dict[str, Any], spec: ImageSpec, batch: int) -> str:
    """Everything that the outcome of a race depends on."""
    network = f"{architecture} {json.dumps(arguments, sort_keys=True)}"
    machine = f"{processor()}, {available_cores()} cores, torch {torch.__version__}"
    return f"{network} {spec.height}x{spec.width} batch {batch} on {machine}"


def _remembered(file: Path, key: str) -> Choice | None:
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))[key]
        return Choice(int(fields["threads"]), str(fields["precision"]))
    except (OSError, ValueError, KeyError, TypeError):
        # Nothing known, or a file that somebody broke: it is raced and written anew.
        return None


def _remember(file: Path, key: str, choice: Choice) -> None:
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    known[key] = vars(choice)
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.{uuid4().hex}")
    aside.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    aside.replace(file)
