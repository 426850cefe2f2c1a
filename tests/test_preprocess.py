"""One path from a file's bytes to the network's input, for every kind of file."""

from __future__ import annotations

import hashlib
import io
import struct
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray
from PIL import Image
from tests.endurance.images import SIGNATURE, chunk, header
from torchvision.transforms import CenterCrop, Compose, Resize

from mindtrace import preprocess
from mindtrace.errors import ImageError
from mindtrace.preprocess import (
    DAMAGE,
    MAX_PIXELS,
    Accepted,
    ImageSpec,
    decode,
    encode_png,
    image_digest,
    normalise,
    open_pixels,
    opened,
    resized,
)

GREY = ImageSpec("L", 28, 28, (0.1307,), (0.3081,))
COLOUR = ImageSpec("RGB", 32, 24, (0.4, 0.5, 0.6), (0.1, 0.2, 0.3))
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
PICTURE = Image.fromarray(PIXELS)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def pixels(data: bytes, mode: Any = "RGB") -> NDArray[np.uint8]:
    return np.asarray(open_pixels(data, mode))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""
    return SIGNATURE + header(width, height) + chunk(b"IDAT") + chunk(b"IEND")


CHECKS = (np.indices((8, 8)).sum(0) % 2 * 255).astype(np.uint8)
DEEP = np.array([[0, 128, 257, 32896, 65535]], np.uint16)
PALETTE = PICTURE.quantize(16)


@pytest.mark.parametrize(
    ("image", "mode", "expected", "tolerance"),
    [
        (Image.fromarray(PIXELS[..., 0]), "L", PIXELS[..., 0], 0),
        (Image.fromarray(PIXELS[..., 0]), "RGB", PIXELS[..., :1], 0),
        (PICTURE, "RGB", PIXELS, 0),
        (PICTURE, "L", PIXELS @ np.array([0.299, 0.587, 0.114]), 1),
        (PALETTE, "RGB", np.asarray(PALETTE.convert("RGB")), 0),
        (Image.fromarray(CHECKS).convert("1"), "L", CHECKS, 0),
        (Image.fromarray(DEEP), "L", [[0, 0, 1, 128, 255]], 0),  # scaled and not clipped
        (Image.new("RGBA", (2, 2), (200, 100, 50, 128)), "RGB", [100, 50, 25], 1),
    ],
)
def test_every_kind_of_pixel_becomes_grey_or_colour(
    image: Image.Image, mode: str, expected: Any, tolerance: float
) -> None:
    assert np.abs(pixels(encoded(image), mode).astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_transparent_pixel_is_black_whatever_colour_it_hides(mode: str) -> None:
    rgba = np.dstack([PIXELS, np.full((20, 24), 255, np.uint8)])
    rgba[:5, :, 3] = 0
    found = pixels(encoded(Image.fromarray(rgba)), mode)
    assert (found[:5] == 0).all()
    assert (found[5:] == pixels(encoded(PICTURE), mode)[5:]).all()
    grey_alpha = np.dstack([PIXELS[..., 0], np.zeros((20, 24), np.uint8)])
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([255] * 6)
    assert (pixels(encoded(Image.fromarray(grey_alpha, "LA")), mode) == 0).all()
    assert (pixels(encoded(palette, transparency=1), mode) == 0).all()
    assert (pixels(encoded(palette), mode) == 255).all()
    clear = Image.new("RGBA", (4, 4), (255, 255, 255, 0))
    assert (pixels(encoded(clear, "WEBP", lossless=True, exact=True), mode) == 0).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_the_rotation_in_exif_is_carried_out(format: str, orientation: int) -> None:
    upright = np.zeros((8, 16), np.uint8)
    upright[:4, :8] = 255
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, -1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation

    data = encoded(Image.fromarray(upright), format, exif=exif)
    found = np.asarray(open_pixels(data, "L", *Accepted()))
    assert found.shape == turned.shape
    assert (found.astype(int) // 128 == turned // 128).all()


def test_cmyk_and_progressive_jpegs_are_read() -> None:
    smooth = PICTURE.resize((4, 4)).resize((64, 64), Image.Resampling.BICUBIC)
    expected = pixels(encoded(smooth, "JPEG", quality=95)).astype(int)

    for data in (
        encoded(smooth, "JPEG", quality=95, progressive=True),
        encoded(smooth.convert("CMYK"), "JPEG", quality=95),
    ):
        assert np.abs(pixels(data) - expected).mean() < 3


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_image_is_damaged_and_not_half_an_image(format: str) -> None:
    data = encoded(PICTURE.resize((200, 200)), format)

    for length in (len(data) // 2, len(data) * 9 // 10):
        with pytest.raises(ImageError):
            open_pixels(data[:length], "L")


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "empty"),
        (b"a letter to grandmother", "a letter"),
        (encoded(PICTURE, "GIF"), "GIF8"),
        (encoded(PICTURE, "BMP"), "BM"),
        (encoded(PICTURE, "TIFF"), "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
    ],
)
def test_what_is_no_png_jpeg_or_webp_is_said_to_be_none(data: bytes, word: str) -> None:
    with pytest.raises(ImageError) as caught:
        open_pixels(data, "L")

    assert word in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint == "PNG, JPEG and WebP are read"


@pytest.mark.parametrize(
    ("size", "limit", "words"),
    [
        ((10_001, 10_000), MAX_PIXELS, f"{MAX_PIXELS:,}"),
        ((65_535, 65_535), MAX_PIXELS, f"{MAX_PIXELS:,}"),
        ((24, 20), 479, "24 x 20"),
        ((65_536, 1), MAX_PIXELS, "too long and thin"),
        ((1, 25_000_000), MAX_PIXELS, "too long and thin"),
    ],
)
def test_a_bomb_is_refused_before_it_is_unpacked(
    size: tuple[int, int], limit: int, words: str
) -> None:
    with pytest.raises(ImageError) as caught:
        open_pixels(png_header(*size), "L", max_pixels=limit)
    assert words in caught.value.message
    for within in ((24, 20), (65_535, 1)):
        image = encoded(Image.new("L", within))
        assert open_pixels(image, "L", max_pixels=within[0] * within[1]).size == within


@pytest.mark.filterwarnings("ignore:::PIL")
@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.data())
def test_damage_is_an_image_error_or_an_image(format: str, draw: st.DataObject) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 72.5
    data = bytearray(encoded(PICTURE, format, exif=exif))
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        assert decode(bytes(data), GREY).shape == (28, 28)
    except ImageError as error:
        assert "\n" not in error.message


def test_damaged_metadata_leaves_stderr_clean() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "x" * 50
    data = encoded(PICTURE, "JPEG", exif=exif).replace(b"\x00\x00\x003", b"\x00\x00\xff3", 1)
    script = (
        "import sys; from mindtrace.preprocess import open_pixels;"
        "open_pixels(sys.stdin.buffer.read(), 'L')"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], input=data, capture_output=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, b"")


def _of_every_mode() -> dict[str, bytes]:
    deep = np.random.default_rng(1).integers(0, 65536, (20, 24), np.uint16)
    rgba = np.dstack([PIXELS, PIXELS[..., 0]])
    return {
        "RGB": encoded(PICTURE),
        "RGBA": encoded(Image.fromarray(rgba)),
        "LA": encoded(Image.fromarray(rgba[..., 2:], "LA")),
        "P": encoded(PALETTE),
        "P transparent": encoded(PALETTE, transparency=3),
        "L transparent": encoded(Image.fromarray(PIXELS[..., 0]), transparency=9),
        "RGB transparent": encoded(PICTURE, transparency=tuple(PIXELS[0, 0].tolist())),
        "1": encoded(PICTURE.convert("1")),
        "16 bits": encoded(Image.fromarray(deep)),
        "CMYK": encoded(PICTURE.convert("CMYK"), "JPEG"),
        "WebP": encoded(Image.fromarray(rgba), "WEBP", lossless=True),
    }


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("name", _of_every_mode())
def test_in_strips_an_image_is_converted_to_the_same_pixels(
    name: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = _of_every_mode()[name]
    whole = pixels(data, mode)
    for strip in (1, 24 * 3, 24 * 19, 24 * 20 - 1):
        monkeypatch.setattr(preprocess, "_STRIP", strip)
        assert (pixels(data, mode) == whole).all()


def test_the_size_is_known_without_decoding() -> None:
    assert opened(io.BytesIO(png_header(5000, 4000))).size == (5000, 4000)
    for data in (b"", b"no image", encoded(PICTURE)[:20], png_header(65_535, 65_535)):
        with pytest.raises(DAMAGE):
            opened(io.BytesIO(data))


def test_a_palette_that_is_missing_is_damage() -> None:
    data = encoded(PICTURE.quantize(16))
    at = data.index(b"PLTE") - 4
    length = 12 + int.from_bytes(data[at : at + 4])

    with pytest.raises(ImageError) as caught:
        open_pixels(data[:at] + data[at + length :], "L")

    assert caught.value.message == "damaged image: its parts do not fit together"


@pytest.mark.parametrize("spec", [GREY, COLOUR])
def test_decode_gives_the_size_and_the_channels_of_the_spec(spec: ImageSpec) -> None:
    image = PIXELS[..., 0] if spec is GREY else PIXELS
    assert (pixels(encode_png(image), spec.mode) == image).all()
    found = decode(encode_png(PIXELS), spec)
    assert found.dtype == np.uint8
    assert found.shape == ((28, 28) if spec is GREY else (32, 24, 3))


@pytest.mark.parametrize(
    "size", [(300, 200), (201, 317), (256, 256), (223, 999), (50, 60), (640, 481)]
)
def test_the_crop_is_torchvisions_to_the_pixel(size: tuple[int, int]) -> None:
    image = PICTURE.resize(size, Image.Resampling.NEAREST)
    spec = ImageSpec("RGB", 224, 224, (0.0,) * 3, (1.0,) * 3, "crop", short_side=232)
    expected = Compose([Resize(232), CenterCrop(224)])(image)
    assert (np.asarray(resized(image, spec)) == np.asarray(expected)).all()


@pytest.mark.parametrize("size", [(300, 200), (201, 317), (10, 64), (64, 64), (999, 3)])
def test_pad_keeps_the_whole_image_between_black(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (250, 240, 230))
    found = np.asarray(resized(image, ImageSpec("RGB", 48, 64, (0.0,) * 3, (1.0,) * 3, "pad")))
    assert found.shape == (48, 64, 3)
    lit = found.any(axis=2)
    scale = min(64 / size[0], 48 / size[1])
    height, width = lit.any(axis=1).sum(), lit.any(axis=0).sum()
    assert (width, height) == (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    assert abs(int(lit[:24].sum()) - int(lit[24:].sum())) <= 64, "in the middle"


def test_an_image_that_fits_is_left_alone_and_a_thread_of_one_refused() -> None:
    image = PICTURE.resize((224, 224))
    assert resized(image, ImageSpec("RGB", 224, 224, (0.0,) * 3, (1.0,) * 3, "crop", 256)) is image
    spec = ImageSpec("L", 224, 224, (0.0,), (1.0,), "crop", short_side=256)
    with pytest.raises(ImageError) as caught:
        resized(Image.new("L", (1_000_000, 2)), spec)
    assert "1000000 x 2" in caught.value.message


@pytest.mark.parametrize("spec", [GREY, COLOUR])
def test_normalise_is_the_plain_formula(spec: ImageSpec) -> None:
    shape = (3, spec.height, spec.width, len(spec.mean))
    planes = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    images = planes[..., 0] if spec.mode == "L" else planes
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
