"""The image formats that can be read: their names, Pillow's names, the suffixes of their files."""

import re
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import NamedTuple

from mindtrace.config.schema import Kind


class Format(NamedTuple):
    """One format; `words` is what people call it."""

    words: str
    pillow: str
    suffixes: tuple[str, ...]


FORMATS: Mapping[str, Format] = {
    "png": Format("PNG", "PNG", (".png",)),
    "jpeg": Format("JPEG", "JPEG", (".jpg", ".jpeg", ".jpe", ".jfif")),
    "webp": Format("WebP", "WEBP", (".webp",)),
    "avif": Format("AVIF", "AVIF", (".avif",)),
    "tiff": Format("TIFF", "TIFF", (".tif", ".tiff")),
    "bmp": Format("BMP", "BMP", (".bmp", ".dib")),
    "gif": Format("GIF", "GIF", (".gif",)),
    "heic": Format("HEIC", "HEIF", (".heic", ".heif", ".hif")),
}
#: What a server reads by default, and a Predictor.
SERVED = ("png", "jpeg", "webp")
_ALSO = {"jpg": "jpeg", "tif": "tiff", "heif": "heic"}


def _parse(text: str) -> tuple[str, ...] | None:
    names = [_ALSO.get(name, name) for name in re.split(r"[\s,]+", text.lower()) if name]
    return tuple(dict.fromkeys(names)) or None if FORMATS.keys() >= {*names} else None


FORMAT_NAMES = Kind(f"some of {', '.join(FORMATS)}, separated by commas", _parse, ", ".join)


def reads_heic() -> bool:
    """Whether the package of the extra `heif` is installed."""
    return find_spec("pillow_heif") is not None


def suffixes(formats: Iterable[str]) -> tuple[str, ...]:
    """How the names of files end that this installation can read."""
    known = [FORMATS[name].suffixes for name in formats if name != "heic" or reads_heic()]
    return tuple(suffix for some in known for suffix in some)
