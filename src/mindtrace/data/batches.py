"""Images of a split in memory, as a data set of single images and as batches, augmented or not."""

import functools
import hashlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample
from torch.utils.data import Dataset

from mindtrace.preprocess import ImageSpec, image_digest

Batch = tuple[Tensor, Tensor]

# Normalised floats gathered at once; large images come in smaller batches.
_GATHERED_BYTES = 64 * 2**20
# What `light` does: a fraction of the side, and radians.
LARGEST_SHIFT = 1 / 14
LARGEST_TURN = math.radians(10)


@dataclass(frozen=True, eq=False)
class ImageSplit(Dataset[tuple[Tensor, int]]):
    """The images of one stage: `split[i]` is (float32 (channels, height, width), label).

    Attributes:
        images: uint8, (n, channels, height, width), in the size that the network reads.
        labels: int64, (n,), indices into the module's `class_names`.
        spec: mean and deviation to normalise with.
        known_digests: uint8, (n, 32), of the images in their own size and mode, so that networks
            of different input sizes share a test set. None where `images` are the originals.
        files: the path of each in its folder or table; None where the source has no files.
        groups: the group of each; None for one without, or where the source has no files.
        weights: float32, (n,), how often an epoch draws each; None for each once.
    """

    images: Tensor
    labels: Tensor
    spec: ImageSpec
    known_digests: NDArray[np.uint8] | None = None
    files: Sequence[str] | None = None
    groups: Sequence[str | None] | None = None
    weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.normalise(self.images[index]), int(self.labels[index])

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int]]:
        """Several images, gathered at once: a DataLoader calls this for a batch."""
        chosen = torch.as_tensor(indices)
        x = self.normalise(self.images.index_select(0, chosen))
        return list(zip(x, self.labels[chosen].tolist(), strict=True))

    def normalise(self, images: Tensor) -> Tensor:
        """Levels of 0 to 255 to float32, same shape, with the spec's mean and deviation."""
        scale, shift = self._affine
        return images.to(torch.float32, copy=True).mul_(scale).add_(shift)

    @functools.cached_property
    def _affine(self) -> tuple[Tensor, Tensor]:
        """(level / 255 - mean) / std as a factor and a summand, each float32 (channels, 1, 1)."""
        mean, std = (torch.tensor(v, dtype=torch.float64) for v in (self.spec.mean, self.spec.std))
        return (1 / (255 * std)).float().view(-1, 1, 1), (-mean / std).float().view(-1, 1, 1)

    def digests(self) -> list[bytes]:
        """The digest of each image, 32 bytes, in order."""
        if self.known_digests is None:
            return [image_digest(one) for one in to_pixels(self.images)]
        return [digest.tobytes() for digest in np.asarray(self.known_digests)]


@dataclass(frozen=True)
class DataDigests:
    """The images of a training: hexadecimal digests of all and of the test split, and counts."""

    data_digest: str
    test_digest: str
    counts: Mapping[str, int]


def to_pixels(images: Tensor) -> NDArray[np.uint8]:
    """(n, 1, h, w) to (n, h, w), (n, 3, h, w) to (n, h, w, 3): preprocess's order."""
    if images.shape[1] == 1:
        return images[:, 0].numpy()
    return images.permute(0, 2, 3, 1).numpy()


def to_images(pixels: NDArray[np.uint8]) -> Tensor:
    """A tensor over the same memory, which may be a file that is mapped read-only."""
    with warnings.catch_warnings():
        # torch has no read-only tensors; nothing writes into these.
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(pixels)


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel of (n, c, h, w), in [0, 1], rounded to six digits."""
    # From counts of the 256 levels, so that they do not depend on threads or order.
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(images.shape[1]):
        counts = torch.zeros(256, dtype=torch.int64)
        for part in torch.split(images[:, channel], 1024):
            counts += torch.bincount(part.flatten(), minlength=256)
        share = counts / counts.sum()
        mean = (share * levels).sum()
        means.append(round(mean.item(), 6))
        # Images of one level have no deviation to divide by.
        stds.append(round((share * (levels - mean) ** 2).sum().sqrt().item(), 6) or 1.0)
    return tuple(means), tuple(stds)


class TrainOrder:
    """The order and augmentation of the training images: functions of (seed, epoch) alone."""

    # Lightning finds it as the loader's `sampler` and sets the epoch before each one.

    def __init__(self) -> None:
        self.seed = 0
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Epoch 0 is the first."""
        self.epoch = epoch

    def indices(self, count: int) -> Tensor:
        """A permutation of `count` images: int64, (count,)."""
        return torch.randperm(count, generator=self._generator(""))

    def sample(self, weights: Tensor) -> Tensor:
        """As many images as there are weights, drawn by them with replacement: int64, (n,)."""
        return torch.multinomial(weights, len(weights), True, generator=self._generator(":sample"))

    def draws(self, count: int, columns: int) -> Tensor:
        """What augmentation does to each of `count` images: float32, (count, columns), [-1, 1)."""
        return torch.rand(count, columns, generator=self._generator(":augment")) * 2 - 1

    def _generator(self, purpose: str) -> torch.Generator:
        digest = hashlib.sha256(f"{self.seed}:{self.epoch}{purpose}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))


def light(images: Tensor, draws: Tensor) -> Tensor:
    """Turn and shift each uint8 image, to float32 in [0, 255]; `draws`: turn, across, down."""
    height, width = images.shape[2:]
    turn = draws[:, :1] * LARGEST_TURN
    cos, sin = turn.cos(), turn.sin()
    # grid_sample counts from -1 to 1 on both axes: a side is 2, the centre 0.
    shift = draws[:, 1:] * (2 * LARGEST_SHIFT)
    across, down = _centres(width), _centres(height)
    # Where each pixel comes from is one term of its column and one of its row, which
    # costs a quarter of torch's affine_grid.
    grid = images.new_empty((len(images), 2, height, width), dtype=torch.float32)
    columns = cos * across, sin * (width / height) * across
    rows = shift[:, :1] - sin * (height / width) * down, shift[:, 1:] + cos * down
    for axis, (column, row) in enumerate(zip(columns, rows, strict=True)):
        torch.add(column[:, None, :], row[:, :, None], out=grid[:, axis])
    return grid_sample(images.float(), grid.permute(0, 2, 3, 1), align_corners=False)


def photo(images: Tensor, draws: Tensor) -> Tensor:
    """Crop at least 40 % of each image, mirror half of them, vary light and colour by 20 %."""
    return _each(images, draws, least=0.4, change=0.2)


def strong(images: Tensor, draws: Tensor) -> Tensor:
    """Like `photo` with at least 15 %, 40 %, turns of up to 15 degrees, and a rectangle erased."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as transforms

    turned = [
        transforms.rotate(image, 15 * float(draw), InterpolationMode.BILINEAR)
        for image, draw in zip(images, draws[:, 8], strict=True)
    ]
    changed = _each(torch.stack(turned), draws, least=0.15, change=0.4)
    height, width = images.shape[2:]
    grey = changed.float().mean((0, 2, 3)).to(torch.uint8)
    for image, (how, tall, wide, down, across) in zip(changed, _shares(draws[:, 9:]), strict=True):
        if how < 0.5:
            rows, columns = int(height * (0.1 + 0.3 * tall)), int(width * (0.1 + 0.3 * wide))
            top, left = int(down * (height - rows)), int(across * (width - columns))
            image[:, top : top + rows, left : left + columns] = grey[:, None, None]
    return changed


def _each(images: Tensor, draws: Tensor, *, least: float, change: float) -> Tensor:
    """Random resized crop, mirroring, brightness, contrast and saturation of each image."""
    from torchvision.transforms.v2 import functional as transforms

    # torchvision's transforms would draw once for the whole batch; its kernels draw nothing.
    height, width = images.shape[2:]
    out = torch.empty_like(images, memory_format=torch.contiguous_format)
    for index, draw in enumerate(_shares(draws[:, :8])):
        area, ratio, down, across, mirror, *levels = draw
        scale, stretch = least + (1 - least) * area, (4 / 3) ** (ratio - 0.5)
        rows = max(1, min(height, round(height * math.sqrt(scale) * stretch)))
        columns = max(1, min(width, round(width * math.sqrt(scale) / stretch)))
        top, left = int(down * (height - rows + 1)), int(across * (width - columns + 1))
        image = transforms.resized_crop(images[index], top, left, rows, columns, [height, width])
        if mirror < 0.5:
            image = transforms.horizontal_flip(image)
        bright, contrast, saturation = (1 + change * (2 * level - 1) for level in levels)
        image = transforms.adjust_brightness(image, bright)
        image = transforms.adjust_contrast(image, contrast)
        out[index] = transforms.adjust_saturation(image, saturation)
    return out


def _shares(draws: Tensor) -> list[list[float]]:
    """The same draws in [0, 1)."""
    return ((draws + 1) / 2).tolist()


# By their names in `[data] augment`, beside none, with how many numbers each draws for an image.
# Images are uint8, (n, channels, height, width), draws float32 in [-1, 1), (n, numbers).
AUGMENTATIONS: Mapping[str, tuple[Callable[[Tensor, Tensor], Tensor], int]] = {
    "light": (light, 3),
    "photo": (photo, 8),
    "strong": (strong, 14),
}


def _centres(side: int) -> Tensor:
    """The middle of each pixel along a side, from -1 to 1: float32, (side,)."""
    return (torch.arange(side) * 2 + 1) / side - 1


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Weights by which every class that has images counts the same; their mean over these is 1."""
    counts = torch.bincount(labels, minlength=classes).float()
    return torch.where(counts > 0, len(labels) / (counts.count_nonzero() * counts), 0.0)


def image_weights(split: ImageSplit, balanced: bool) -> Tensor | None:
    """How much each image counts, with `balanced` every class the same; None for all alike."""
    if not balanced:
        return split.weights
    weights = class_weights(split.labels, int(split.labels.max()) + 1)[split.labels]
    return weights if split.weights is None else weights * split.weights


def batch_sizes(images: int, size: int) -> list[int]:
    """Images in each training batch; a last batch of one is joined to the one before."""
    # A normalisation over the batch has no deviation of a single value.
    count = max(1, math.ceil((images - (size > 1)) / size))
    return [size] * (count - 1) + [images - size * (count - 1)]


def batch_limit(split: ImageSplit, images: int) -> int:
    """`images`, or as many of this split as 64 MiB of floats hold, at least one."""
    image_bytes = 4 * math.prod(split.images.shape[1:])
    return max(1, min(images, _GATHERED_BYTES // image_bytes))


@dataclass(frozen=True, eq=False)
class EvalBatches:
    """Yields (x, y) in the split's own order, gathered with one operation a batch."""

    split: ImageSplit
    batch_size: int
    pin: bool

    def __len__(self) -> int:
        return math.ceil(len(self.split) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.split), self.batch_size):
            part = slice(start, start + self.batch_size)
            yield self._ready(self.split.images[part], self.split.labels[part])

    def _ready(self, images: Tensor, y: Tensor) -> Batch:
        x = self.split.normalise(images)
        return (x.pin_memory(), y.pin_memory()) if self.pin else (x, y)


@dataclass(frozen=True, eq=False)
class TrainBatches(EvalBatches):
    """Yields (x, y) in an epoch's order, augmented; without Lightning a pass is an epoch."""

    sampler: TrainOrder
    augment: str
    chunk: int = 1  # more: it yields lists of up to so many (x, y), gathered in one operation
    balanced: bool = False  # as many images of each class, drawn with replacement

    def __len__(self) -> int:
        sizes = batch_sizes(len(self.split), self.batch_size)
        return math.ceil(len(sizes) / self._batches_at_once)

    @property
    def _batches_at_once(self) -> int:
        """`chunk`, or as many batches as fit into memory, at least one."""
        limit = batch_limit(self.split, self.chunk * self.batch_size)
        return max(1, limit // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        count, at_once = len(self.split), self._batches_at_once
        sizes = batch_sizes(count, self.batch_size)
        chunks = [sizes[first : first + at_once] for first in range(0, len(sizes), at_once)]
        augment, numbers = AUGMENTATIONS.get(self.augment, (None, 0))
        draws = self.sampler.draws(count, numbers) if augment else None
        order = rows = self.sampler.indices(count)
        weights = image_weights(self.split, self.balanced)
        if weights is not None:
            order = self.sampler.sample(weights)
            rows = torch.arange(count)  # an image that comes twice is augmented in two ways
        counts = [sum(chunk) for chunk in chunks]
        parts = zip(order.split(counts), rows.split(counts), chunks, strict=True)
        for indices, own, chunk in parts:
            images = self.split.images.index_select(0, indices)
            if augment and draws is not None:
                images = augment(images, draws[own])
            x, y = self._ready(images, self.split.labels[indices])
            if self.chunk == 1:
                yield x, y
            else:
                yield list(zip(torch.split(x, chunk), torch.split(y, chunk), strict=True))
        self.sampler.set_epoch(self.sampler.epoch + 1)
