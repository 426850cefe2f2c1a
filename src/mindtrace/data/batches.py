"""Room data: a split in memory comes in, normalised batches go out.

A DataLoader fetches one image at a time; these gather whole batches with one index
operation, which is what makes an epoch of small images a matter of the network alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mindtrace.data.augment import DRAWS, light
from mindtrace.data.images import ImageSplit

Batch = tuple[Tensor, Tensor]

# Of normalised floats that are gathered at once; large images come in smaller batches.
_GATHERED_BYTES = 64 * 2**20


class TrainOrder:
    """In which order the training images come, and how they are augmented.

    Both are functions of (seed, epoch) alone, augmentation of the image's place as well.

    Lightning finds it as the loader's `sampler` and sets the epoch before each one, so
    a resumed training goes on in the order that the uninterrupted one would have had.
    """

    def __init__(self) -> None:
        self.seed = 0
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Epoch 0 is the first."""
        self.epoch = epoch

    def indices(self, count: int) -> Tensor:
        """A permutation of `count` images: int64, (count,)."""
        return torch.randperm(count, generator=self._generator(""))

    def draws(self, count: int, columns: int) -> Tensor:
        """What augmentation does to each of `count` images: float32, (count, columns), [-1, 1)."""
        return torch.rand(count, columns, generator=self._generator(":augment")) * 2 - 1

    def _generator(self, purpose: str) -> torch.Generator:
        digest = hashlib.sha256(f"{self.seed}:{self.epoch}{purpose}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))


@dataclass(frozen=True, eq=False)
class Batches:
    """Gathers batches of one split; what the loaders share.

    Attributes:
        split: the images, in memory.
        normalise: levels of 0 to 255 to float32, same shape.
        batch_size: images a batch; the last one may be smaller.
        pin: put batches into page-locked memory, for a GPU to fetch.
    """

    split: ImageSplit
    normalise: Callable[[Tensor], Tensor]
    batch_size: int
    pin: bool

    def __len__(self) -> int:
        return math.ceil(len(self.split) / self.batch_size)

    def gather(self, indices: Tensor | slice, draws: Tensor | None = None) -> Batch:
        """Some of the images, ready for the network.

        Args:
            indices: which.
            draws: for all images of the split, how `light` changes them; None for not at all.

        Returns:
            Images float32, (b, channels, height, width), and labels int64, (b,).
        """
        if isinstance(indices, slice):
            x, y = self.split.images[indices], self.split.labels[indices]
        else:
            x, y = self.split.images.index_select(0, indices), self.split.labels[indices]
        if draws is not None:
            x = light(x, draws[indices])
        x = self.normalise(x)
        return (x.pin_memory(), y.pin_memory()) if self.pin else (x, y)


def fitting(split: ImageSplit, images: int) -> int:
    """`images`, or as many of this split as 64 MiB of floats hold, at least one."""
    image_bytes = 4 * math.prod(split.images.shape[1:])
    return max(1, min(images, _GATHERED_BYTES // image_bytes))


@dataclass(frozen=True, eq=False)
class EvalBatches(Batches):
    """Yields (x, y) in the split's own order."""

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.split), self.batch_size):
            yield self.gather(slice(start, start + self.batch_size))


@dataclass(frozen=True, eq=False)
class _Shuffled(Batches):
    """Gathers batches in the order of an epoch.

    A loop without Lightning sets no epoch: each whole pass moves on to the next one.

    Attributes:
        sampler: the order.
        augment: `none` or `light`.
    """

    sampler: TrainOrder
    augment: str

    def _pass(self, images_at_once: int) -> Iterator[Batch]:
        count = len(self.split)
        draws = self.sampler.draws(count, DRAWS) if self.augment == "light" else None
        for indices in torch.split(self.sampler.indices(count), images_at_once):
            yield self.gather(indices, draws)
        self.sampler.set_epoch(self.sampler.epoch + 1)


@dataclass(frozen=True, eq=False)
class TrainBatches(_Shuffled):
    """Yields (x, y)."""

    def __iter__(self) -> Iterator[Batch]:
        return self._pass(self.batch_size)


@dataclass(frozen=True, eq=False)
class TrainChunks(_Shuffled):
    """Yields lists of batches, gathered, augmented and normalised in one go.

    The batches are those of `TrainBatches`; only the overhead is another.

    Attributes:
        chunk: batches in a list, at most; fewer where they would not fit the memory
            that a chunk may take.
    """

    chunk: int

    def __len__(self) -> int:
        return math.ceil(super().__len__() / self.batches_at_once)

    @property
    def batches_at_once(self) -> int:
        """`chunk`, or as many batches as fit, at least one."""
        return max(1, fitting(self.split, self.chunk * self.batch_size) // self.batch_size)

    def __iter__(self) -> Iterator[list[Batch]]:
        for x, y in self._pass(self.batches_at_once * self.batch_size):
            xs, ys = torch.split(x, self.batch_size), torch.split(y, self.batch_size)
            yield list(zip(xs, ys, strict=True))
