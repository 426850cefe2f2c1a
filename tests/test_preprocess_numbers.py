"""From a decoded image to the network's input: size, crop, numbers, digest."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Resize

from mindtrace.errors import ImageError
from mindtrace.preprocess import (
    ImageSpec,
    decode,
    encode_png,
    image_digest,
    normalise,
    open_pixels,
    resized,
)

GREY = ImageSpec("L", 28, 28, (0.1307,), (0.3081,))
COLOUR = ImageSpec("RGB", 32, 24, (0.4, 0.5, 0.6), (0.1, 0.2, 0.3))
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
PICTURE = Image.fromarray(PIXELS)


@pytest.mark.parametrize("spec", [GREY, COLOUR])
def test_decode_gives_the_size_and_the_channels_of_the_spec(spec: ImageSpec) -> None:
    found = decode(encode_png(PIXELS), spec)

    assert found.dtype == np.uint8
    assert found.shape == ((28, 28) if spec is GREY else (32, 24, 3))


def test_a_png_made_here_is_read_back_the_same() -> None:
    for spec, image in ((GREY, PIXELS[..., 0]), (COLOUR, PIXELS)):
        assert (np.asarray(open_pixels(encode_png(image), spec.mode)) == image).all()


@pytest.mark.parametrize(
    "size", [(300, 200), (201, 317), (256, 256), (223, 999), (50, 60), (640, 481)]
)
def test_the_crop_is_torchvisions_to_the_pixel(size: tuple[int, int]) -> None:
    image = PICTURE.resize(size, Image.Resampling.NEAREST)
    spec = ImageSpec("RGB", 224, 224, (0.0,) * 3, (1.0,) * 3, "crop", short_side=232)

    expected = Compose([Resize(232), CenterCrop(224)])(image)

    assert (np.asarray(resized(image, spec)) == np.asarray(expected)).all()


def test_an_image_that_fits_is_left_alone() -> None:
    image = PICTURE.resize((224, 224))

    assert resized(image, ImageSpec("RGB", 224, 224, (0.0,) * 3, (1.0,) * 3, "crop", 256)) is image


def test_a_thread_of_an_image_is_refused_and_not_blown_up() -> None:
    spec = ImageSpec("L", 224, 224, (0.0,), (1.0,), "crop", short_side=256)

    with pytest.raises(ImageError) as caught:
        resized(Image.new("L", (1_000_000, 2)), spec)

    assert "1000000 x 2" in caught.value.message


@pytest.mark.parametrize("spec", [GREY, COLOUR])
def test_normalise_is_the_plain_formula(spec: ImageSpec) -> None:
    shape = (3, spec.height, spec.width) + ((3,) if spec.mode == "RGB" else ())
    images = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    planes = images[..., None] if spec.mode == "L" else images

    expected = (planes / 255 - np.array(spec.mean)) / np.array(spec.std)

    found = normalise(images, spec)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, expected.transpose(0, 3, 1, 2), atol=1e-6)


def test_the_digest_is_sha256_of_shape_and_pixels() -> None:
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    words = struct.pack("<2q", 2, 3) + bytes(range(6))

    assert image_digest(image) == hashlib.sha256(words).digest()
    assert image_digest(image) != image_digest(image.reshape(3, 2))
    assert image_digest(image[:, ::-1]) == image_digest(image[:, ::-1].copy())
