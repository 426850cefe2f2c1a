"""What a trained network answers to the test images, and what that says about it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mindtrace.bundle.predictions import class_metrics
from mindtrace.data.datamodule import ImageDataModule
from mindtrace.data.listing import Stage
from mindtrace.models import ImageClassifier

BATCH = 512
BINS = 15
MISTAKES = 25
# A class with fewer training images than this share of the largest one's is worth a warning.
RARE = 0.05


@dataclass(frozen=True)
class Evaluation:
    """Answers to one split: probabilities float32 (images, classes), loss in nats."""

    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    loss: float
    accuracy: float

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Counts by true class and answer, (classes, classes)."""
        count = self.probabilities.shape[1]
        pairs = self.labels * count + self.probabilities.argmax(1)
        return np.bincount(pairs, minlength=count * count).reshape(count, count)

    @property
    def metrics(self) -> dict[str, float]:
        """Loss, accuracy and the metrics of classes, named as those of a test."""
        found = {"loss": self.loss, "acc": self.accuracy, **class_metrics(self.confusion)}
        return {f"test_{name}": value for name, value in found.items()}


@torch.inference_mode()
def evaluate(
    model: ImageClassifier, data: ImageDataModule, stage: Stage, count: int | None = None
) -> Evaluation:
    """Run a split, or its first images, through the network, in float32 however it was trained."""
    was_training = model.training
    model.eval()
    split = data.split(stage)
    images, labels = split.images[:count], split.labels[:count]
    batches = (data.normalise(part).to(model.device) for part in images.split(BATCH))
    logits = torch.cat([model(batch).cpu() for batch in batches])
    model.train(was_training)
    return evaluation(logits, labels)


def evaluation(logits: Tensor, labels: Tensor) -> Evaluation:
    """What logits, float32 (images, classes), say about labels."""
    loss = float(functional.cross_entropy(logits, labels))
    accuracy = float((logits.argmax(1) == labels).float().mean())
    return Evaluation(logits.softmax(1).numpy(), labels.numpy(), loss, accuracy)


@dataclass(frozen=True)
class ClassScore:
    """One class on the test images; a score without an image to measure it on is None."""

    class_name: str
    images: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Bin:
    """Answers with a confidence in (low, high]: their mean confidence and their accuracy."""

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Mistake:
    """One wrong answer to the image at `index` of the test split."""

    index: int
    label: int
    predicted: int
    confidence: float
    path: str | None  # of its file, where the source has files

    @property
    def name(self) -> str:
        """What to call the image."""
        return self.path or f"test image {self.index}"


@dataclass(frozen=True)
class Confusion:
    """Images of one class that were taken for another."""

    class_name: str
    taken_for: str
    images: int


@dataclass(frozen=True)
class Report:
    """Scores by label, confusion (rows are true classes), calibration, the worst mistakes."""

    accuracy: float
    interval: tuple[float, float]  # of the accuracy, 95 %
    balanced_accuracy: float
    f1_macro: float
    classes: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    calibration_error: float
    bins: tuple[Bin, ...]
    confusions: tuple[Confusion, ...]  # the most frequent first
    mistakes: tuple[Mistake, ...]
    warnings: tuple[str, ...]


def report(
    test: Evaluation,
    class_names: Sequence[str],
    trained: NDArray[np.int64],
    files: Sequence[str] | None = None,
) -> Report:
    """What the answers to the test images say; `trained` counts training images by label."""
    labels = test.labels
    predicted, confidence = test.probabilities.argmax(1), test.probabilities.max(1)
    right = predicted == labels
    confusion = test.confusion
    bins = reliability(confidence, right)
    wrong = np.flatnonzero(~right)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    paths: Sequence[str | None] = files or [None] * len(labels)
    classes = tuple(_scores(confusion, class_names))
    return Report(
        accuracy=float(right.mean()),
        interval=accuracy_interval(int(right.sum()), len(right)),
        **class_metrics(confusion),
        classes=classes,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        calibration_error=calibration_error(bins),
        bins=bins,
        confusions=tuple(_confusions(confusion, class_names)),
        mistakes=tuple(
            Mistake(at, int(labels[at]), int(predicted[at]), float(confidence[at]), paths[at])
            for at in worst.tolist()
        ),
        warnings=tuple(_warnings(classes, trained)),
    )


def accuracy_interval(right: int, images: int) -> tuple[float, float]:
    """95 % interval of an accuracy."""
    # Source: Wilson, Journal of the American Statistical Association 22 (1927) 209.
    z2 = 1.959964**2
    middle = (right + z2 / 2) / (images + z2)
    half = math.sqrt(z2 * (right * (images - right) / images + z2 / 4)) / (images + z2)
    return max(0.0, middle - half), min(1.0, middle + half)


def _confusions(confusion: NDArray[np.int64], class_names: Sequence[str]) -> Iterator[Confusion]:
    wrong = confusion - np.diag(np.diag(confusion))
    for cell in np.argsort(-wrong, axis=None, kind="stable")[: np.count_nonzero(wrong)]:
        row, column = np.unravel_index(cell, wrong.shape)
        yield Confusion(class_names[row], class_names[column], int(wrong[row, column]))


def _warnings(classes: Sequence[ClassScore], trained: NDArray[np.int64]) -> Iterator[str]:
    """What a good accuracy may hide: classes that are rare or never found."""
    most = int(trained.argmax())
    for one, count in zip(classes, trained.tolist(), strict=True):
        if count < RARE * trained[most]:
            yield (
                f"class {one.class_name} has {count:,} training images, {classes[most].class_name} "
                f"has {trained[most]:,}: [train] balance = sample or loss may help"
            )
        if one.recall == 0:
            yield f"class {one.class_name}: none of its {one.images:,} test images is recognised"


def reliability(confidence: NDArray[np.floating[Any]], right: NDArray[np.bool_]) -> tuple[Bin, ...]:
    """Group answers by confidence, in (0, 1], into bins of equal width."""
    edges = np.linspace(0, 1, BINS + 1).tolist()
    where = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    members = [where == index for index in range(BINS)]
    return tuple(
        Bin(low, high, int(inside.sum()), _mean(confidence[inside]), _mean(right[inside]))
        for (low, high), inside in zip(pairwise(edges), members, strict=True)
    )


def _mean(values: NDArray[Any]) -> float | None:
    return float(values.mean()) if len(values) else None


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: the mean gap of the bins, weighted by their images."""
    # Guo et al., "On Calibration of Modern Neural Networks" (2017), equation 5.
    gaps = [one.images * abs((one.accuracy or 0) - (one.confidence or 0)) for one in bins]
    return sum(gaps) / sum(one.images for one in bins)


def _scores(confusion: NDArray[np.int64], class_names: Sequence[str]) -> Iterator[ClassScore]:
    counts = zip(np.diag(confusion), confusion.sum(0), confusion.sum(1), strict=True)
    for name, (right, called, real) in zip(class_names, counts, strict=True):
        yield ClassScore(
            class_name=name,
            images=int(real),
            precision=float(right / called) if called else None,
            recall=float(right / real) if real else None,
            f1=float(2 * right / (called + real)) if real else None,
        )
