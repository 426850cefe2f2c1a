"""Room data: what all sources share, from images in memory to Lightning's loaders.

A source implements `read`; the base keeps the three splits as uint8 tensors, hands out
whole batches and digests.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import get_args

import pytorch_lightning as pl
import torch
from torch import Tensor

from mindtrace.bundle.predictions import pairs_digest
from mindtrace.data.batches import EvalBatches, TrainBatches, TrainChunks, TrainOrder, fitting
from mindtrace.data.images import STAGES, DataDigests, ImageSplit, Stage
from mindtrace.preprocess import ImageSpec, InputRequirements
from mindtrace.progress import Progress

__all__ = ["DataDigests", "ImageDataModule", "ImageSplit", "InputRequirements", "SourceImages"]

EVAL_BATCH_SIZE = 512


@dataclass(frozen=True)
class SourceImages:
    """What a source hands over.

    Attributes:
        train: to learn from.
        val: to choose the best weights by.
        test: touched once, at the end.
        spec: what the network will read.
        class_names: by label.
        notes: what a person should know about these images, one line each.
    """

    train: ImageSplit
    val: ImageSplit
    test: ImageSplit
    spec: ImageSpec
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()


class ImageDataModule(pl.LightningDataModule, ABC):
    """Images of one source in memory, for Lightning's Trainer and for a loop of one's own.

    Its arguments are attributes too.

    Args:
        batch_size: training images a step.
        num_workers: processes that decode; None or 0 for all cores we may use.
        pin_memory: page-locked batches where a CUDA device is.
        split_seed: decides the splits, and nothing else does.
        image_size: pixels a side to scale to; None for what the images or the network have.
        demand: what a network insists on.

    Attributes:
        source: the name that `[data] source` knows it by.
        augment: `light` shifts and turns the images that train; `none` does not.
        chunk: 1 for loaders that yield (x, y); more, and the training loader yields
            lists of up to that many (x, y).
        progress: hears of work that takes long.
    """

    source: str = ""

    def __init__(
        self,
        *,
        batch_size: int = 64,
        num_workers: int | None = None,
        pin_memory: bool = False,
        split_seed: int = 0,
        image_size: int | None = None,
        demand: InputRequirements | None = None,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.split_seed = split_seed
        self.image_size = image_size
        self.demand = demand or InputRequirements()
        self.augment = "none"
        self.chunk = 1
        self.progress = Progress()
        self.order = TrainOrder()
        self._images: SourceImages | None = None
        self._digests: DataDigests | None = None

    @abstractmethod
    def read(self) -> SourceImages:
        """Read and split the source's images; called once.

        Returns:
            The three splits and what belongs to them.

        Raises:
            DataError: they cannot be used; each source says why.
        """

    def setup(self, stage: str | None = None) -> None:
        """Read and split, whatever the stage; the second time there is nothing to do."""
        if self._images is None:
            self._images = self.read()

    def _ready(self) -> SourceImages:
        if self._images is None:
            self.prepare_data()
            self.setup()
        assert self._images is not None
        return self._images

    @property
    def seed(self) -> int:
        """Decides the order of the training images, together with the epoch."""
        return self.order.seed

    @seed.setter
    def seed(self, value: int) -> None:
        self.order.seed = value

    @property
    def spec(self) -> ImageSpec:
        """What the network reads."""
        return self._ready().spec

    @property
    def class_names(self) -> tuple[str, ...]:
        """By label."""
        return self._ready().class_names

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about these images, one line each."""
        return self._ready().notes

    def split(self, stage: str) -> ImageSplit:
        """The images of one stage.

        Args:
            stage: `train`, `val` or `test`.

        Returns:
            The images and their labels, in memory.

        Raises:
            ValueError: another stage.
        """
        if stage not in STAGES:
            raise ValueError(f"stage = {stage!r}: one of {', '.join(get_args(Stage))}")
        found: ImageSplit = getattr(self._ready(), stage)
        return found

    def sample(self, stage: str = "train", idx: int = 0) -> tuple[Tensor, int]:
        """One image as the network reads it, and its label.

        Args:
            stage: `train`, `val` or `test`.
            idx: position in the split.

        Returns:
            float32, (channels, height, width), normalised; and the label.

        Raises:
            ValueError: `stage` is not train, val or test.
            IndexError: there is no such image.
        """
        split = self.split(stage)
        return self.normalise(split.images[idx].unsqueeze(0))[0], int(split.labels[idx])

    def normalise(self, images: Tensor) -> Tensor:
        """Subtract the spec's mean, divide by its deviation.

        Args:
            images: uint8 or float32, 0 to 255, (n, channels, height, width).

        Returns:
            float32 of the same shape.
        """
        scale, shift = self._affine
        return images.to(torch.float32, copy=True).mul_(scale).add_(shift)

    @functools.cached_property
    def _affine(self) -> tuple[Tensor, Tensor]:
        """(level / 255 - mean) / std as a factor and a summand, each float32 (channels, 1, 1)."""
        mean, std = (torch.tensor(v, dtype=torch.float64) for v in (self.spec.mean, self.spec.std))
        return (1 / (255 * std)).float().view(-1, 1, 1), (-mean / std).float().view(-1, 1, 1)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the training images; epoch 0 is the first."""
        self.order.set_epoch(epoch)

    def train_dataloader(self) -> TrainBatches | TrainChunks:
        """Shuffled training batches, nothing dropped, augmented as `augment` says.

        Raises:
            ValueError: `augment` is neither none nor light.
        """
        if self.augment not in ("none", "light"):
            raise ValueError(f"augment = {self.augment!r}: none or light")
        shared = (
            self.split("train"),
            self.normalise,
            self.batch_size,
            self._pins(),
            self.order,
            self.augment,
        )
        return TrainBatches(*shared) if self.chunk == 1 else TrainChunks(*shared, self.chunk)

    def val_dataloader(self) -> EvalBatches:
        """Validation batches of 512 (fewer where images are large), in order."""
        return self._eval_batches("val")

    def test_dataloader(self) -> EvalBatches:
        """Test batches of 512 (fewer where images are large), in order."""
        return self._eval_batches("test")

    @property
    def train(self) -> TrainBatches | TrainChunks:
        """`train_dataloader()`; fetches and reads the images if that was not done yet."""
        return self.train_dataloader()

    @property
    def val(self) -> EvalBatches:
        """`val_dataloader()`; fetches and reads the images if that was not done yet."""
        return self.val_dataloader()

    @property
    def test(self) -> EvalBatches:
        """`test_dataloader()`; fetches and reads the images if that was not done yet."""
        return self.test_dataloader()

    def digests(self) -> DataDigests:
        """Digests over all images and over the test images; computed once."""
        if self._digests is None:
            pairs = {
                stage: list(
                    zip(self.split(stage).digests(), self.split(stage).labels.tolist(), strict=True)
                )
                for stage in STAGES
            }
            self._digests = DataDigests(
                data_digest=pairs_digest(pair for stage in STAGES for pair in pairs[stage]),
                test_digest=pairs_digest(pairs["test"]),
                counts={stage: len(pairs[stage]) for stage in STAGES},
            )
        return self._digests

    def _eval_batches(self, stage: Stage) -> EvalBatches:
        split = self.split(stage)
        size = fitting(split, EVAL_BATCH_SIZE)
        return EvalBatches(split, self.normalise, size, self._pins())

    def _pins(self) -> bool:
        return self.pin_memory and torch.cuda.is_available()
