"""Room data: decoded images and labels come in; splits with their digests go out."""

from __future__ import annotations

import functools
import hashlib
import struct
from collections.abc import Iterable, Mapping
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
        known_digests: the image digests where they are known already: of the images in
            their own size and mode, so that networks of different input sizes still
            share a test set. None where `images` are as they came.
    """

    images: Tensor
    labels: Tensor
    known_digests: tuple[bytes, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def digests(self) -> list[bytes]:
        """The digest of each image, 32 bytes, in order."""
        return list(self._digests)

    @functools.cached_property
    def _digests(self) -> tuple[bytes, ...]:
        if self.known_digests is not None:
            return self.known_digests
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


def pairs_digest(pairs: Iterable[tuple[bytes, int]]) -> str:
    """SHA-256 over the sorted (image digest, label) pairs; a label is 8 bytes, little-endian."""
    words = sorted(digest + struct.pack("<q", label) for digest, label in pairs)
    return hashlib.sha256(b"".join(words)).hexdigest()


def to_pixels(images: Tensor) -> NDArray[np.uint8]:
    """(n, 1, h, w) to (n, h, w), (n, 3, h, w) to (n, h, w, 3): preprocess's order."""
    if images.shape[1] == 1:
        return images[:, 0].numpy()
    return images.permute(0, 2, 3, 1).numpy()


def to_images(pixels: NDArray[np.uint8]) -> Tensor:
    """(n, h, w) to (n, 1, h, w), (n, h, w, 3) to a contiguous (n, 3, h, w)."""
    images = torch.from_numpy(pixels)
    return images[:, None] if pixels.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()


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
    known = None if as_they_came else tuple(image_digests(pixels))
    if pixels.shape[1:] != (spec.height, spec.width):
        pixels = _scaled(pixels, spec)
    images = to_images(pixels).expand(-1, spec.channels, -1, -1)
    return ImageSplit(images, torch.from_numpy(labels), known)


def _scaled(pixels: NDArray[np.uint8], spec: ImageSpec) -> NDArray[np.uint8]:
    """With the resize that predict and serve use; 16 us an image of 28 x 28."""
    scaled = np.empty((len(pixels), spec.height, spec.width), np.uint8)
    for position, image in enumerate(pixels):
        scaled[position] = np.asarray(resized(Image.fromarray(image), spec))
    return scaled
