"""From the bytes of an image file to a network's input: the only path there is."""

# Of an animation, or of several pages, the first frame. The rotation that EXIF asks for is
# carried out. A transparent pixel becomes black. 16 bits a channel are scaled to 8, not clipped.

import contextlib
import ctypes
import functools
import hashlib
import io
import logging
import re
import struct
import warnings
import zlib
from dataclasses import asdict, dataclass
from typing import IO, Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError, _imaging
from pydantic import Field, FiniteFloat, PositiveInt

from mindtrace.config.formats import FORMATS, SERVED, reads_heic
from mindtrace.errors import ImageError

MAX_PIXELS = 100_000_000
# As JPEG has it. Weights for scaling a longer side would take more memory than the image.
MAX_SIDE = 65_535

Mode = Literal["L", "RGB"]
Resize = Literal["stretch", "crop", "pad"]
Interpolation = Literal["bilinear", "bicubic"]

# Pixels that scaling for a crop may make of a long and thin image.
_LARGEST_SCALED = 25_000_000
# Pixels converted at a time: bounds the memory, and the time the interpreter lock is held.
_STRIP = 1 << 19
_TOO_LARGE = "scale it down, or raise max_pixels"
# What Pillow's decoders raise on damaged files, found by feeding them such files.
DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error),
    # A missing palette, and whatever else the decoders assume to be there.
    *(AssertionError, AttributeError, KeyError, TypeError, OverflowError),
    # What libavif and libheif cannot decode, or have no memory for.
    *(RuntimeError, MemoryError),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
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

# Pillow reads so much of a PNG at once, and gives it to its decoder in one piece.
_ONE_PIECE = 65_536
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\0\0\0\0IEND\xaeB`\x82"
_COLOUR_TYPES = {"L": 0, "RGB": 2}
_CHUNK = struct.Struct(">I4s")
# Chunks that Pillow always inflates, to a megabyte each.
_PACKED = frozenset({b"zTXt", b"iTXt", b"iCCP"})
_MAX_CHUNKS, _MAX_PACKED = 16_384, 64

_TILES = frozenset({273, 324})  # the tags of TIFF with the places of strips and tiles

_MARKER = re.compile(rb"\xff([^\x00\xff])")
# Markers of JPEG that stand alone; a length follows all others.
_ALONE = frozenset([0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)])
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ONE_BY_ONE = frozenset({0xC0, 0xC1})
_SCAN = b"\xff\xda"
_MAX_SEGMENTS, _MAX_SCANS, _MAX_GAPS = 4096, 64, 65_536

# Pillow warns of damaged metadata, between our own lines on stderr. What keeps an image
# from being read is an error, and is reported.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())
with contextlib.suppress(AttributeError, OSError):  # libtiff, where Pillow has it beside itself
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


@dataclass(frozen=True)
class ImageSpec:
    """A network's input: mode, size in pixels, mean and std a channel on the scale of [0, 1].

    `stretch` scales both sides to `short_side`, `crop` the shorter one; height x width is cut
    out of the centre. `pad` scales the longer side to fit and adds black.
    """

    mode: Mode
    height: PositiveInt
    width: PositiveInt
    mean: tuple[FiniteFloat, ...]
    std: tuple[Annotated[FiniteFloat, Field(gt=0)], ...]
    resize: Resize = "stretch"
    short_side: PositiveInt | None = None  # None is the shorter one of height and width
    interpolation: Interpolation = "bilinear"

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return 1 if self.mode == "L" else 3

    def document(self) -> dict[str, Any]:
        """What a client must know who makes the network's input without us."""
        formula = {"scale": [0.0, 1.0], "formula": "(pixel / 255 - mean) / std", "layout": "NCHW"}
        return {**asdict(self), **formula}


@dataclass(frozen=True)
class InputRequirements:
    """What a network requires of an `ImageSpec`; None leaves it to the images."""

    mode: Mode | None = None
    height: int | None = None
    width: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: Resize | None = None
    short_side: int | None = None
    interpolation: Interpolation | None = None
    crop_pct: float | None = None  # size / short_side, where that is None
    min_side: int | None = None


class Accepted(NamedTuple):
    """Which image files are read: the largest in pixels, and names of `FORMATS`."""

    max_pixels: int = MAX_PIXELS
    formats: tuple[str, ...] = tuple(FORMATS)


def open_pixels(
    data: bytes, mode: Mode, max_pixels: int = MAX_PIXELS, formats: tuple[str, ...] = SERVED
) -> Image.Image:
    """Decode an image file to 8 bits a channel, upright, in its own size; or ImageError."""
    fault = decoding_cost_fault(data)
    if fault is not None:
        raise ImageError(f"damaged image: far too many {fault}")
    try:
        image = opened(io.BytesIO(data), max_pixels, formats)
        width, height = image.size
        if width * height > max_pixels:
            message = f"image of {width} x {height} pixels: more than {max_pixels:,}"
            raise ImageError(message, hint=_TOO_LARGE)
        if max(width, height) > MAX_SIDE:
            raise ImageError(f"image of {width} x {height} pixels: too long and thin")
        image.load()
        return adapted(image, mode)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"image: more than {max_pixels:,} pixels", hint=_TOO_LARGE) from error
    except UnidentifiedImageError as error:
        kind = f"{len(data):,} bytes that begin with {data[:8]!r}" if data else "the file is empty"
        known = [name for name in formats if name != "heic" or reads_heic()]
        *names, last = [FORMATS[name].words for name in known] or ["nothing"]
        hint = f"{', '.join(names)} and {last} are read" if names else f"{last} is read"
        if data[4:8] == b"ftyp" and not reads_heic() and "heic" in formats:
            hint = "it may be HEIC: pip install 'mindtrace[heif]'"
        raise ImageError(f"not an image: {kind}", hint=hint) from error
    except DAMAGE as error:
        reason = " ".join(str(error).split()) or "its parts do not fit together"
        raise ImageError(f"damaged image: {reason}") from error


def opened(
    file: str | IO[bytes], max_pixels: int = MAX_PIXELS, formats: tuple[str, ...] = SERVED
) -> Image.Image:
    """An image file with its header read; raises whatever Pillow raises."""
    # Its own limit would refuse, or warn of, what max_pixels allows.
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    try:
        names = [FORMATS[name].pillow for name in formats if name != "heic"]
        return Image.open(file, formats=names)
    except UnidentifiedImageError:
        if "heic" not in formats or not reads_heic():
            raise
        import pillow_heif

        pillow_heif.register_heif_opener()
        return Image.open(file, formats=["HEIF"])


def decode(
    data: bytes, spec: ImageSpec, max_pixels: int = MAX_PIXELS, formats: tuple[str, ...] = SERVED
) -> NDArray[np.uint8]:
    """Decode and resize an image file: uint8, (height, width) or (height, width, 3)."""
    if spec.height * spec.width <= max_pixels:
        plain = plain_pixels(data, spec.mode, spec.height, spec.width)
        if plain is not None:
            return plain
    return np.asarray(resized(open_pixels(data, spec.mode, max_pixels, formats), spec))


def decoded(image: Image.Image | NDArray[np.uint8], spec: ImageSpec) -> NDArray[np.uint8]:
    """An image in memory as `decode` gives that of its file; TypeError for no uint8 image."""
    if not isinstance(image, Image.Image):
        pixels = np.asarray(image)
        if pixels.dtype != np.uint8:
            raise TypeError(f"an array of {pixels.dtype}: wants uint8, from 0 to 255")
        try:
            image = Image.fromarray(pixels.squeeze())
        except (TypeError, ValueError):
            shape = f"an array of shape {pixels.shape}"
            raise TypeError(f"{shape}: wants (height, width[, 3]); of several a list") from None
    return np.asarray(resized(adapted(image, spec.mode), spec))


def adapted(image: Image.Image, mode: Mode) -> Image.Image:
    """`image` upright, in `mode`, 8 bits a channel; as it is if it is so already."""
    # A PNG hardly ever has the tag, and asking takes a tenth of decoding a small one.
    if image.format != "PNG" or "exif" in image.info:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
        image = image if turn is None else image.transpose(turn)
    return _to_mode(image, mode)


def resized(image: Image.Image, spec: ImageSpec) -> Image.Image:
    """`image` in the size of `spec`, with antialiasing; as it is if it fits."""
    # Pixel for pixel that of torchvision's `Resize` and `CenterCrop`, as timm uses them.
    if image.size == (spec.width, spec.height):
        return image
    width, height = _scaled_size(image, spec)
    if width * height > max(_LARGEST_SCALED, image.width * image.height):
        message = f"image of {image.width} x {image.height} pixels: too long and thin"
        raise ImageError(message, hint="cut out the part that matters")
    filter_ = Image.Resampling[spec.interpolation.upper()]
    grown = image.resize((width, height), filter_)
    if grown.size == (spec.width, spec.height):
        return grown
    left, top = round((width - spec.width) / 2), round((height - spec.height) / 2)
    return grown.crop((left, top, left + spec.width, top + spec.height))


def _scaled_size(image: Image.Image, spec: ImageSpec) -> tuple[int, int]:
    """Width and height before the centre is cut out, or black is added around it."""
    short = spec.short_side or min(spec.height, spec.width)
    if spec.resize == "stretch":
        least = min(spec.height, spec.width)
        return spec.width * short // least, spec.height * short // least
    if spec.resize == "pad":
        scale = min(spec.width / image.width, spec.height / image.height)
        return max(1, round(image.width * scale)), max(1, round(image.height * scale))
    width = max(spec.width, short * image.width // min(image.size))
    return width, max(spec.height, short * image.height // min(image.size))


def normalise(pixels: NDArray[np.uint8], spec: ImageSpec) -> NDArray[np.float32]:
    """Decoded images, uint8 (batch, height, width[, 3]), as float32 (batch, channels, h, w)."""
    tables = _tables(spec.mean, spec.std)
    if spec.mode == "L":
        grey: NDArray[np.float32] = tables[0].take(pixels)[:, None]
        return grey
    out = np.empty((len(pixels), 3, *pixels.shape[1:3]), np.float32)
    for channel in range(3):
        tables[channel].take(pixels[..., channel], out=out[:, channel])
    return out


def image_digest(pixels: NDArray[np.uint8]) -> bytes:
    """SHA-256 over an image's shape (little-endian int64 words) and its uint8 pixels."""
    digest = hashlib.sha256(struct.pack(f"<{pixels.ndim}q", *pixels.shape))
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """An image as a PNG file; decoding it gives the same pixels."""
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
    if image.mode == "F":
        image = _from_float(image)
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
        levels = np.clip(np.asarray(image, np.int32), 0, 65535)
        image = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, rgba).convert("RGB")
    if image.mode == "LAB":
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _from_float(image: Image.Image) -> Image.Image:
    """Of 0 to 1, 0 to 255 or 0 to 65535, whichever holds all values; what is no number is black."""
    levels = np.nan_to_num(np.asarray(image)).clip(0, 65535)
    high = levels.max()
    levels *= 255.0 if high <= 1 else 1.0 if high <= 255 else 1 / 257
    return Image.fromarray((levels + 0.5).astype(np.uint8))


def plain_pixels(data: bytes, mode: str, height: int, width: int) -> NDArray[np.uint8] | None:
    """The pixels of a small 8-bit PNG of this size, with one IDAT; None for any other file."""
    # Pillow's own decoder makes them, without the rest of Pillow. A PNG that is anything
    # else, or damaged, is left to Pillow as a whole, which decides what is refused.
    size = len(data) - 57  # of what is packed: signature, IHDR, the frame of IDAT, IEND are 57
    if not (data.startswith(_plain_head(mode, height, width)) and 0 < size <= _ONE_PIECE):
        return None
    if _CHUNK.unpack_from(data, 33) != (size, b"IDAT") or not data.endswith(_END):
        return None
    try:
        image = Image.frombytes(mode, (width, height), data[41:-16], "zip", mode)
    except ValueError:
        return None
    pixels = np.frombuffer(image.tobytes(), np.uint8)
    return pixels.reshape((height, width) if mode == "L" else (height, width, 3))


@functools.lru_cache(maxsize=32)
def _plain_head(mode: str, height: int, width: int) -> bytes:
    """The first 33 bytes of such a PNG: its signature and all of IHDR."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[mode], 0, 0, 0)
    return _SIGNATURE + b"\0\0\0\x0d" + header + struct.pack(">I", zlib.crc32(header))


def decoding_cost_fault(data: bytes) -> str | None:
    """What a file has so much of that decoding would take seconds, or None."""
    # A megabyte can hold a hundred thousand empty chunks, or scans of a JPEG that each go
    # over the whole image. No camera and no program writes such files.
    if data.startswith(_SIGNATURE):
        return _costly_png(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _costly_jpeg(data)
    return _costly_tiff(data) if data.startswith((b"II", b"MM")) else None


def _costly_png(data: bytes) -> str | None:
    at, chunks, packed = 8, 0, 0
    while at + 8 <= len(data):
        length, kind = _CHUNK.unpack_from(data, at)
        if kind == b"IEND":
            return None  # what follows is not read
        at += 12 + length
        chunks += 1
        packed += kind in _PACKED
        if chunks > _MAX_CHUNKS or packed > _MAX_PACKED:
            return "chunks"
    return None


def _costly_tiff(data: bytes) -> str | None:
    """Whether the first page has more tiles or strips than any program writes."""
    order, big = "<" if data.startswith(b"II") else ">", 43 in data[2:4]
    word, entry = ("Q", 20) if big else ("I", 12)
    try:
        (at,) = struct.unpack_from(order + word, data, 8 if big else 4)
        number = struct.Struct(order + ("Q" if big else "H"))
        (entries,) = number.unpack_from(data, at)
        for place in range(at + number.size, at + number.size + entries * entry, entry):
            tag, _, count = struct.unpack_from(f"{order}HH{word}", data, place)
            if tag in _TILES and count > _MAX_CHUNKS:
                return "tiles"
    except (struct.error, OverflowError):
        pass  # decoding says what is wrong
    return None


def _costly_jpeg(data: bytes) -> str | None:
    at, gaps, frame = 2, 0, b""
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, at, at + _MAX_GAPS)
        if found is None:
            # Pillow walks over what is no marker byte by byte.
            return "bytes between its segments" if len(data) - at >= _MAX_GAPS else None
        marker, gaps = found[1][0], gaps + found.end() - at - 2
        if gaps > _MAX_GAPS:
            return "bytes between its segments"
        at = found.end()
        if marker in _ALONE:
            continue
        if marker in _FRAMES:
            frame = bytes([marker]) + data[at + 7 : at + 8]  # kind, number of components
        if marker == _SCAN[1]:
            whole = gaps == 0 and len(frame) == 2 and data[at + 2 : at + 3] == frame[1:]
            if whole and frame[0] in _ONE_BY_ONE:
                return None  # one scan has all components, and what follows it is not read
            return "scans" if data.count(_SCAN, at) >= _MAX_SCANS else None
        at += max(2, int.from_bytes(data[at : at + 2]))
    return "segments"
