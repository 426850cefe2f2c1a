"""Room data: decoded images and labels come in; splits with their digests go out."""

from __future__ import annotations

import functools
import hashlib
import struct
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mindtrace.preprocess import ImageSpec, resized

Stage = Literal["train", "val", "test"]
STAGES: tuple[Stage, ...] = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """The images of one stage.

    Attributes:
        images: uint8, (n, channels, height, width), in the size the network reads.
        labels: int64, (n,), indices into the module's `class_names`.
        known_digests: uint8, (n, 32), the image digests where they are known already:
            of the images in their own size and mode, so that networks of different
            input sizes still share a test set. None where `images` are as they came.
    """

    images: Tensor
    labels: Tensor
    known_digests: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def digests(self) -> list[bytes]:
        """The digest of each image, 32 bytes, in order."""
        return list(self._digests)

    @functools.cached_property
    def _digests(self) -> tuple[bytes, ...]:
        if self.known_digests is not None:
            return tuple(digest.tobytes() for digest in self.known_digests)
        return tuple(image_digests(to_pixels(self.images)))


@dataclass(frozen=True)
class DataDigests:
    """What the images of a training were.

    Attributes:
        data_digest: hexadecimal, over all images and labels of all stages.
        test_digest: hexadecimal, over those of the test split.
        counts: images a stage.
    """

    data_digest: str
    test_digest: str
    counts: Mapping[str, int]


def image_digests(pixels: NDArray[np.uint8]) -> list[bytes]:
    """`preprocess.image_digest` of many images of one size.

    Args:
        pixels: uint8, (n, height, width) or (n, height, width, 3).

    Returns:
        32 bytes an image.
    """
    shape = pixels.shape[1:]
    # The definition is preprocess's; the loop is here because a call an image costs more
    # than the hash. A test holds the two together.
    prefix = struct.pack(f"<{len(shape)}q", *shape)
    step = int(np.prod(shape))
    flat = np.ascontiguousarray(pixels).reshape(-1).data
    sha256 = hashlib.sha256
    return [sha256(prefix + flat[i : i + step]).digest() for i in range(0, len(flat), step)]


def to_pixels(images: Tensor) -> NDArray[np.uint8]:
    """(n, 1, h, w) to (n, h, w), (n, 3, h, w) to (n, h, w, 3): preprocess's order."""
    if images.shape[1] == 1:
        return images[:, 0].numpy()
    return images.permute(0, 2, 3, 1).numpy()


def to_images(pixels: NDArray[np.uint8]) -> Tensor:
    """A tensor over the same memory, which may be a file that is mapped to be read only."""
    with warnings.catch_warnings():
        # torch knows no read-only tensors; nobody writes into these.
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(pixels)


def digest_rows(digests: Sequence[bytes]) -> NDArray[np.uint8]:
    """Digests as uint8, (n, 32)."""
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def grey_split(pixels: NDArray[np.uint8], labels: NDArray[np.int64], spec: ImageSpec) -> ImageSplit:
    """Grey images as `spec` wants them.

    Three equal channels are one channel seen three times: no memory is spent on them.

    Args:
        pixels: uint8, (n, height, width), writable.
        labels: int64, (n,).
        spec: the size and the mode to bring them to.

    Returns:
        The split, with the digests of the images as they came.
    """
    as_they_came = spec.mode == "L" and pixels.shape[1:] == (spec.height, spec.width)
    known = None if as_they_came else digest_rows(image_digests(pixels))
    if pixels.shape[1:] != (spec.height, spec.width):
        pixels = _scaled(pixels, spec)
    images = to_images(pixels)[:, None].expand(-1, spec.channels, -1, -1)
    return ImageSplit(images, torch.from_numpy(labels), known)


def _scaled(pixels: NDArray[np.uint8], spec: ImageSpec) -> NDArray[np.uint8]:
    """With the resize that predict and serve use; 16 us an image of 28 x 28."""
    scaled = np.empty((len(pixels), spec.height, spec.width), np.uint8)
    for position, image in enumerate(pixels):
        scaled[position] = np.asarray(resized(Image.fromarray(image), spec))
    return scaled


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation a channel, on the scale of [0, 1], rounded to six digits.

    From counts of the 256 levels, so that they do not depend on threads or order. The
    deviation of images that are all of one level is given as 1.

    Args:
        images: uint8, (n, channels, height, width).

    Returns:
        Means and deviations.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(images.shape[1]):
        counts = torch.zeros(256, dtype=torch.int64)
        for part in torch.split(images[:, channel], 1024):
            counts += torch.bincount(part.flatten(), minlength=256)
        share = counts / counts.sum()
        mean = (share * levels).sum()
        means.append(round(mean.item(), 6))
        stds.append(round((share * (levels - mean) ** 2).sum().sqrt().item(), 6) or 1.0)
    return tuple(means), tuple(stds)
