"""Room data: image files come in, their pixels in one array go out, or what is wrong with them.

Run as a module this is a child of `workers`; it imports no torch.
"""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mindtrace.data.columns import Column, in_memory
from mindtrace.data.workers import Job, Task, Told, Work, serve, share_out
from mindtrace.errors import ImageError
from mindtrace.preprocess import ImageSpec, Mode, image_digest, open_pixels, resized

_FORMATS = ("PNG", "JPEG", "WEBP")
_GREY = {"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"}
_WITH_ALPHA = {"LA", "La", "PA", "RGBA", "RGBa"}
_ORIENTATION, _TURNED, _ON_ITS_SIDE = 0x0112, {2, 3, 4, 5, 6, 7, 8}, {5, 6, 7, 8}
# What Pillow raises on headers that it cannot make sense of.
_NO_HEADER = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)

# What `examine_files` finds of a file: texts in UTF-8, sizes upright, in pixels; `digest`
# is all zeros where `error` says why there is none.
EXAMINED = np.dtype(
    [
        ("mode", "S8"),
        ("format", "S8"),
        ("height", "<i4"),
        ("width", "<i4"),
        ("animated", "?"),
        ("rotated", "?"),
        ("transparent", "?"),
        ("digest", "u1", (32,)),
        ("error", "S256"),
    ]
)


@dataclass(frozen=True)
class Facts:
    """What the headers of the files say.

    Attributes:
        grey: bool, (n,).
        sizes: int64, (n, 2): height and width, upright.
    """

    grey: NDArray[np.bool_]
    sizes: NDArray[np.int64]


def inspect_files(paths: Sequence[str], workers: int, told: Told) -> Facts:
    """Read the headers of image files.

    Args:
        paths: n files.
        workers: processes that read; 1 for this one.
        told: hears how many are done.

    Returns:
        What the headers say, in the order of `paths`.

    Raises:
        ImageError: a file that is not an image or cannot be read; names it.
    """
    facts = np.empty((len(paths), 3), np.int64)
    job = Job("inspect", WORKS["inspect"], [(path, None) for path in paths])
    share_out(job, [in_memory(facts)], workers, told)
    return Facts(facts[:, 0].astype(bool), facts[:, 1:])


def decode_files(
    paths: Sequence[str],
    facts: Facts,
    spec: ImageSpec,
    columns: tuple[Column, Column],
    workers: int,
    told: Told,
) -> None:
    """Decode image files to the size and mode of `spec`.

    Args:
        paths: n files.
        facts: of these files.
        spec: its mean and deviation are not used.
        columns: receive the images, uint8, (n, channels, height, width), and their
            digests, (n, 32): of each image in its own size, grey or colour as it came.
        workers: processes that decode; 1 for this one.
        told: hears how many are done.

    Raises:
        ImageError: a file that is damaged or too large; names it.
        OSError: the columns could not keep it.
    """
    tasks: list[Task] = [
        (path, "L" if grey else "RGB") for path, grey in zip(paths, facts.grey, strict=True)
    ]
    share_out(Job("decode", WORKS["decode"], tasks, spec), columns, workers, told)


def examine_files(paths: Sequence[str], workers: int, told: Told) -> NDArray[Any]:
    """Decode image files and keep what there is to know of them; a bad one stops nobody.

    Args:
        paths: n files.
        workers: processes that decode; 1 for this one.
        told: hears how many are done.

    Returns:
        Of the type `EXAMINED`, (n,).
    """
    found = np.zeros(len(paths), EXAMINED)
    job = Job("examine", WORKS["examine"], [(path, None) for path in paths])
    share_out(job, [in_memory(found)], workers, told)
    return found


def _inspect(tasks: Sequence[Task], _: ImageSpec | None) -> list[bytes]:
    return [b"".join(_facts(path) for path, _ in tasks)]


def _decode(tasks: Sequence[Task], spec: ImageSpec | None) -> list[bytes]:
    assert spec is not None
    records = [_decoded(path, own_mode or "RGB", spec) for path, own_mode in tasks]
    return [b"".join(field) for field in zip(*records, strict=True)]


def _examine(tasks: Sequence[Task], _: ImageSpec | None) -> list[bytes]:
    return [b"".join(_examined(path) for path, _ in tasks)]


WORKS: dict[str, Work] = {"inspect": _inspect, "decode": _decode, "examine": _examine}


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from error


@dataclass(frozen=True)
class _Header:
    """What Pillow knows of a file before it decodes; the size upright."""

    mode: str
    format: str
    height: int
    width: int
    animated: bool
    rotated: bool
    transparent: bool

    @property
    def own_mode(self) -> Mode:
        # A grey level that stands for transparency is blackened on the way to RGB.
        keyed = self.transparent and self.mode not in _WITH_ALPHA
        return "L" if self.mode in _GREY and not keyed else "RGB"


def _header(path: str, file: str | io.BytesIO) -> _Header:
    try:
        return _read_header(file)
    except _NO_HEADER as error:
        # Decoding says what is wrong in the words of every door.
        _open(_read(path), "RGB", path)
        raise ImageError(f"{path}: damaged header: {error}") from error


def _read_header(file: str | io.BytesIO) -> _Header:
    with Image.open(file, formats=_FORMATS) as image:
        width, height = image.size
        # Asking a PNG for its EXIF decodes it whole; cameras write none into PNGs.
        tagged = image.format != "PNG" or "exif" in image.info
        turn = image.getexif().get(_ORIENTATION) if tagged else None
        if turn in _ON_ITS_SIDE:
            width, height = height, width
        return _Header(
            mode=image.mode,
            format=image.format or "",
            height=height,
            width=width,
            animated=getattr(image, "n_frames", 1) > 1,
            rotated=turn in _TURNED,
            transparent=image.mode in _WITH_ALPHA or "transparency" in image.info,
        )


def _facts(path: str) -> bytes:
    header = _header(path, path)
    return np.array([header.own_mode == "L", header.height, header.width], np.int64).tobytes()


def _open(data: bytes, mode: Mode, path: str) -> Image.Image:
    try:
        return open_pixels(data, mode)
    except ImageError as error:
        raise ImageError(f"{path}: {error.message}", hint=error.hint) from error


def _decoded(path: str, own_mode: Mode, spec: ImageSpec) -> tuple[bytes, bytes]:
    """The pixels, channel by channel, and the digest."""
    data = _read(path)
    image = _open(data, own_mode, path)
    digest = image_digest(np.asarray(image))
    if spec.mode != own_mode:
        image = _open(data, spec.mode, path)
    try:
        pixels = np.asarray(resized(image, spec))
    except ImageError as error:
        raise ImageError(f"{path}: {error.message}", hint=error.hint) from error
    return (pixels if spec.mode == "L" else pixels.transpose(2, 0, 1)).tobytes(), digest


def _examined(path: str) -> bytes:
    found = np.zeros((), EXAMINED)
    try:
        data = _read(path)
        header = _header(path, io.BytesIO(data))
        for name, value in vars(header).items():
            found[name] = value
        pixels = np.asarray(_open(data, header.own_mode, path))
        found["digest"] = np.frombuffer(image_digest(pixels), np.uint8)
    except ImageError as error:
        found["error"] = error.message.removeprefix(f"{path}: ").encode(errors="replace")[:256]
    return found.tobytes()


if __name__ == "__main__":
    sys.exit(serve(WORKS))
