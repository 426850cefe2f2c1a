"""Floor 2: from the bytes of an image file to the numbers a network reads.

This is the only path. Training decodes its folders with it, the golden check,
`predict` and `serve` run through it, so a model sees in production what it saw in
training. Pillow decodes and resizes, NumPy normalises.

What is decided here, once, for every door:

* PNG, JPEG and WebP; of an animation the first frame.
* The rotation that EXIF asks for is carried out.
* A transparent pixel is a black one: it sends no light.
* 16 bits a channel are scaled to 8, not clipped.
"""

from __future__ import annotations

import functools
import hashlib
import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from mindtrace.errors import ImageError
from mindtrace.utils import image_files

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_PIXELS = 25_000_000
# As JPEG has it. Weights for scaling a longer side would take more memory than the image.
MAX_SIDE = 65_535

Mode = Literal["L", "RGB"]
Resize = Literal["stretch", "crop"]

_FORMATS = ("PNG", "JPEG", "WEBP")
# Pixels that are converted at a time: bounds the memory it takes, and the time for which
# no other thread can run.
_STRIP = 1 << 19
# What Pillow's decoders raise on damaged files, found by feeding them such files.
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error),
    # A palette that is not there, and whatever else it takes for granted.
    *(AssertionError, AttributeError, KeyError, TypeError, OverflowError),
)
# By the value of EXIF's tag; 1 is upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow remarks on damaged metadata, which would stand on stderr between our own
# lines. What keeps an image from being read is an error, and that is told.
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True)
class ImageSpec:
    """What a network wants to see.

    Attributes:
        mode: `L` for one grey channel, `RGB` for three.
        height: pixels.
        width: pixels.
        mean: one a channel, on the scale of [0, 1]; subtracted.
        std: one a channel, on the scale of [0, 1]; divided by.
        resize: `stretch` to height and width; `crop` scales the shorter side to
            `short_side` and cuts height x width out of the centre.
        short_side: pixels; only for `crop`.
    """

    mode: Mode
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: Resize = "stretch"
    short_side: int | None = None

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return 1 if self.mode == "L" else 3


@dataclass(frozen=True)
class InputRequirements:
    """What a network insists on; None leaves it to the images.

    Attributes:
        mode: `L` or `RGB`.
        height: pixels.
        width: pixels.
        mean: one a channel, on the scale of [0, 1].
        std: one a channel, on the scale of [0, 1].
        resize: see `ImageSpec`.
        short_side: pixels; only for `crop`.
        min_side: pixels; smaller images are scaled up to it.
    """

    mode: Mode | None = None
    height: int | None = None
    width: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: Resize | None = None
    short_side: int | None = None
    min_side: int | None = None


def open_pixels(data: bytes, mode: Mode, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image file to 8 bits a channel, in its own size.

    Args:
        data: the whole file.
        mode: the mode to convert to.
        max_pixels: refuse an image of more, before any pixel is decoded.

    Returns:
        A loaded image of `mode`, upright.

    Raises:
        ImageError: not an image of a known format, damaged, or too large.
    """
    excess = image_files.excess(data)
    if excess is not None:
        raise ImageError(f"damaged image: far too many {excess}")
    stowaway = image_files.stowaway(data)
    if stowaway is not None:
        raise ImageError(f"not an image alone: the file is {stowaway} as well")
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        width, height = image.size
        if width * height > max_pixels:
            raise ImageError(
                f"image of {width} x {height} pixels: more than {max_pixels:,}",
                hint="scale it down first",
            )
        if max(width, height) > MAX_SIDE:
            raise ImageError(f"image of {width} x {height} pixels: too long and thin")
        image.load()
        return adapted(image, mode)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"image of more than {max_pixels:,} pixels") from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"not an image: {_kind(data)}", hint="PNG, JPEG and WebP are read"
        ) from error
    except _DAMAGE as error:
        reason = str(error) or "its parts do not fit together"
        raise ImageError(f"damaged image: {reason}") from error


def count_pixels(data: bytes) -> int:
    """How many pixels an image file has, as its header says.

    Raises:
        ImageError: not an image of a known format, or damaged.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            return image.width * image.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, *_DAMAGE) as error:
        raise ImageError("not an image, or a damaged one") from error


def decode(data: bytes, spec: ImageSpec, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode and resize an image file to what `spec` asks for.

    Returns:
        uint8, (height, width) for `L`, (height, width, 3) for `RGB`.

    Raises:
        ImageError: see `open_pixels`.
    """
    if spec.height * spec.width <= max_pixels:
        plain = image_files.plain_pixels(data, spec.mode, spec.height, spec.width)
        if plain is not None:
            return plain
    return np.asarray(resized(open_pixels(data, spec.mode, max_pixels), spec))


def adapted(image: Image.Image, mode: Mode) -> Image.Image:
    """`image` upright, in `mode`, 8 bits a channel; as it is if it is so already."""
    # A PNG hardly ever has the tag, and asking takes a tenth of decoding a small one.
    if image.format != "PNG" or "exif" in image.info:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
        image = image if turn is None else image.transpose(turn)
    return _to_mode(image, mode)


def resized(image: Image.Image, spec: ImageSpec) -> Image.Image:
    """`image` in the size of `spec`, bilinear with antialiasing; as it is if it fits.

    The crop is, pixel for pixel, that of torchvision's `Resize` and `CenterCrop`.

    Raises:
        ImageError: so long and thin that it would take too many pixels to crop.
    """
    if image.size == (spec.width, spec.height):
        return image
    if spec.resize == "stretch":
        return image.resize((spec.width, spec.height), Image.Resampling.BILINEAR)
    short = spec.short_side or min(spec.height, spec.width)
    width = max(spec.width, short * image.width // min(image.size))
    height = max(spec.height, short * image.height // min(image.size))
    if width * height > max(MAX_PIXELS, image.width * image.height):
        raise ImageError(
            f"image of {image.width} x {image.height} pixels: too long and thin",
            hint="cut the part out of it that matters",
        )
    grown = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - spec.width) / 2), round((height - spec.height) / 2)
    return grown.crop((left, top, left + spec.width, top + spec.height))


def normalise(pixels: NDArray[np.uint8], spec: ImageSpec) -> NDArray[np.float32]:
    """Turn decoded images into the network's input.

    Args:
        pixels: uint8, (batch, height, width) for `L`, (batch, height, width, 3) for `RGB`.
        spec: whose mean and deviation are used.

    Returns:
        float32, (batch, channels, height, width), contiguous.
    """
    tables = _tables(spec.mean, spec.std)
    if spec.mode == "L":
        grey: NDArray[np.float32] = tables[0].take(pixels)[:, None]
        return grey
    out = np.empty((len(pixels), 3, *pixels.shape[1:3]), np.float32)
    for channel in range(3):
        tables[channel].take(pixels[..., channel], out=out[:, channel])
    return out


def image_digest(pixels: NDArray[np.uint8]) -> bytes:
    """SHA-256 over an image's shape (little-endian int64 words) and its pixels.

    Args:
        pixels: uint8, (height, width) or (height, width, 3).

    Returns:
        32 bytes.
    """
    digest = hashlib.sha256(struct.pack(f"<{pixels.ndim}q", *pixels.shape))
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """The PNG file of an image; decoding it gives the same pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@functools.lru_cache(maxsize=32)
def _tables(mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    """The normalised value of each of the 256 levels: float32, (channels, 256)."""
    levels = np.arange(256) / 255
    columns = [(levels - m) / s for m, s in zip(mean, std, strict=True)]
    return np.asarray(columns, np.float32)


def _to_mode(image: Image.Image, mode: Mode) -> Image.Image:
    if image.mode == mode and "transparency" not in image.info:
        return image
    rows = max(1, _STRIP // image.width)
    if rows >= image.height:
        return _converted(image, mode)
    out = Image.new(mode, image.size)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        out.paste(_converted(strip, mode), (0, top))
    return out


def _converted(image: Image.Image, mode: Mode) -> Image.Image:
    if image.mode.startswith("I"):
        image = _from_16_bits(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, rgba).convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _from_16_bits(image: Image.Image) -> Image.Image:
    levels = np.clip(np.asarray(image, np.int32), 0, 65535)
    return Image.fromarray(((levels + 128) // 257).astype(np.uint8))


def _kind(data: bytes) -> str:
    if not data:
        return "the file is empty"
    return f"{len(data):,} bytes that begin with {data[:8]!r}"
