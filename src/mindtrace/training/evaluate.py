"""What a network says of a whole split, in float32, however it was trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from mindtrace.data.base import ImageDataModule
from mindtrace.data.images import Stage
from mindtrace.models import ImageClassifier

BATCH = 512


@dataclass(frozen=True)
class Evaluation:
    """Answers to one split.

    Attributes:
        probabilities: float32, (images, classes).
        labels: int64, (images,), the true classes.
        loss: mean cross entropy, in nats.
        accuracy: fraction of right answers.
    """

    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    loss: float
    accuracy: float


@torch.inference_mode()
def evaluate(model: ImageClassifier, data: ImageDataModule, stage: Stage) -> Evaluation:
    """Run a split through the network, in evaluation mode, without autocast."""
    was_training = model.training
    model.eval()
    split = data.split(stage)
    logits = torch.cat(
        [
            model(data.normalise(split.images[start : start + BATCH]).to(model.device)).cpu()
            for start in range(0, len(split.labels), BATCH)
        ]
    )
    model.train(was_training)
    return Evaluation(
        probabilities=logits.softmax(1).numpy(),
        labels=split.labels.numpy(),
        loss=float(functional.cross_entropy(logits, split.labels)),
        accuracy=float((logits.argmax(1) == split.labels).float().mean()),
    )
