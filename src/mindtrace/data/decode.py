"""Decodes image files, several at a time, and keeps the result on disk. No torch."""

import contextlib
import errno
import io
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mindtrace import preprocess
from mindtrace.errors import DataError, ImageError
from mindtrace.progress import Progress
from mindtrace.system import file_lock, sync
from mindtrace.utils.system import available_cores

_GREY = {"1", "L", "LA", "La", "F", "I", "I;16", "I;16L", "I;16B", "I;16N"}
_WITH_ALPHA = {"LA", "La", "PA", "RGBA", "RGBa"}
_ORIENTATION, _ROTATED, _SIDEWAYS = 0x0112, {2, 3, 4, 5, 6, 7, 8}, {5, 6, 7, 8}

#: Hashes of a photo's looks: of itself, then of it without a margin on one side or two.
HASHES = 9
_MARGIN = 0.025
# Smaller pictures, such as digits, are alike without being copies.
_SMALLEST_SIDE = 48

# One file: its header, height and width upright, and the digest of its pixels. `error` says
# why there is none.
FACTS = np.dtype(
    [
        ("mode", "S8"),
        ("format", "S8"),
        ("height", "<i4"),
        ("width", "<i4"),
        ("animated", "?"),
        ("rotated", "?"),
        ("transparent", "?"),
        ("grey", "?"),
        ("digest", "u1", (32,)),
        ("hashes", "<u8", (HASHES,)),
        ("error", "S256"),
    ]
)
_NO_DIGEST = (np.zeros(32, np.uint8), np.zeros(HASHES, np.uint64))

# Files that a thread decodes before it takes others.
_BLOCK = 4
_SMALL = 128 * 128  # pixels

Report = Callable[[int], None]  # receives how many files are done


def reporter(progress: Progress, text: str, total: int) -> Report:
    """Announce a stage; the result reports its percentage once a second; `total` 0 is unknown."""
    progress.stage(text)
    last = time.monotonic()

    def report(done: int) -> None:
        nonlocal last
        if total and time.monotonic() - last >= 1:
            last = time.monotonic()
            progress.stage(f"{text}: {100 * done // total} %")

    return report


def examine_files(
    paths: Sequence[str], report: Report, accepted: preprocess.Accepted, threads: int | None = None
) -> NDArray[Any]:
    """The `FACTS` of image files, each decoded; what is wrong with a file is in `error`."""
    facts = np.zeros(len(paths), FACTS)

    def examine(place: int) -> None:
        try:
            data = Path(paths[place]).read_bytes()
            header = _header(io.BytesIO(data), accepted)
            image = preprocess.open_pixels(data, "L" if header[-1] else "RGB", *accepted)
            digest = np.frombuffer(preprocess.image_digest(np.asarray(image)), np.uint8)
            facts[place] = (*header, digest, difference_hashes(image), b"")
        except (OSError, ImageError) as error:
            facts[place]["error"] = _reason(error).encode(errors="replace")[:256]

    _for_each(examine, paths, report, threads)
    return facts


def headers_of(paths: Sequence[str], report: Report, accepted: preprocess.Accepted) -> NDArray[Any]:
    """The `FACTS` of image files without digests; ImageError for one that cannot be read."""
    facts, known = np.zeros(len(paths), FACTS), dict[bytes, tuple[Any, ...]]()

    def read(place: int) -> None:
        with open(paths[place], "rb") as file:  # noqa: PTH123 - 70,000 times
            start = file.read(41)
        # With nothing before a PNG's pixels, its header is its first chunk and nothing else.
        key = start[:33] + start[37:]
        header = known.get(key) if key[12:16] + key[33:] == b"IHDRIDAT" else None
        if header is None:
            header = known[key] = _header(paths[place], accepted)
        facts[place] = (*header, *_NO_DIGEST, b"")

    _for_each(read, paths, report, threads=1)  # Python's own work, almost all of it
    return facts


def decode_files(
    paths: Sequence[str],
    facts: NDArray[Any],
    spec: preprocess.ImageSpec,
    images: NDArray[np.uint8],
    digests: NDArray[np.uint8],
    report: Report,
    accepted: preprocess.Accepted,
    *,
    threads: int | None = None,
) -> None:
    """Fill `images`, (n, channels, height, width), and `digests`, (n, 32): of the originals."""

    same_size = (facts["height"] == spec.height) & (facts["width"] == spec.width)
    fits = same_size & (facts["grey"] == (spec.mode == "L"))

    def decode(place: int) -> None:
        data = Path(paths[place]).read_bytes()
        if fits[place]:
            pixels = own = preprocess.decode(data, spec, *accepted)
        else:
            own_mode: preprocess.Mode = "L" if facts["grey"][place] else "RGB"
            image = preprocess.open_pixels(data, own_mode, *accepted)
            own = np.asarray(image)
            if spec.mode != own_mode:
                image = preprocess.open_pixels(data, spec.mode, *accepted)
            pixels = np.asarray(preprocess.resized(image, spec))
        digests[place] = np.frombuffer(preprocess.image_digest(own), np.uint8)
        images[place] = pixels if spec.mode == "L" else pixels.transpose(2, 0, 1)

    # Of small images most is Python's own work, which two threads do more slowly than one.
    if (facts["height"] * facts["width"].astype(float)).mean() < _SMALL:
        threads = threads or 1
    _for_each(decode, paths, report, threads)


def _for_each(
    work: Callable[[int], None], paths: Sequence[str], report: Report, threads: int | None
) -> None:
    """Call `work` with the number of each path, in `threads`; None or 0 for all cores."""
    # Threads do: Pillow and hashlib leave the interpreter lock while they work on pixels.
    size = 16 * _BLOCK if threads == 1 else _BLOCK
    parts = [range(at, min(at + size, len(paths))) for at in range(0, len(paths), size)]

    def some(part: range) -> range:
        for place in part:
            try:
                work(place)
            except (OSError, ImageError) as error:
                hint, message = getattr(error, "hint", None), f"{paths[place]}: {_reason(error)}"
                raise ImageError(message, hint=hint) from error
        return part

    with ThreadPoolExecutor(threads or available_cores()) as pool:
        # At a fault or a signal it cancels the parts that are waiting.
        for part in pool.map(some, parts):
            report(part.stop)


def difference_hashes(image: Image.Image) -> NDArray[np.uint64]:
    """Whether each part of a picture is lighter than the one to its left; zeros for a small one."""
    hashes = np.zeros(HASHES, np.uint64)
    if min(image.size) < _SMALLEST_SIDE:
        return hashes
    small = image.convert("L").resize((72, 64), Image.Resampling.BOX)
    for place, (across, down) in enumerate(
        (x, y) for x in (0, -_MARGIN, _MARGIN) for y in (0, -_MARGIN, _MARGIN)
    ):
        right, bottom = 72 * (1 + min(0, across)), 64 * (1 + min(0, down))
        box = (max(0, 72 * across), max(0, 64 * down), right, bottom)
        levels = np.asarray(small.resize((9, 8), Image.Resampling.BILINEAR, box=box))
        hashes[place] = np.packbits(levels[:, 1:] > levels[:, :-1]).view(np.uint64)[0]
    return hashes


def _header(file: str | io.BytesIO, accepted: preprocess.Accepted) -> tuple[Any, ...]:
    """The fields of `FACTS` that Pillow knows before it decodes."""
    try:
        with preprocess.opened(file, *accepted) as image:
            width, height = image.size
            # Asking a PNG for its EXIF decodes it whole; cameras write none into PNGs.
            tagged = image.format != "PNG" or "exif" in image.info
            turn = image.getexif().get(_ORIENTATION) if tagged else None
            if turn in _SIDEWAYS and image.format != "TIFF":  # whose size Pillow turns
                width, height = height, width
            transparent = image.mode in _WITH_ALPHA or "transparency" in image.info
            # A grey level that stands for transparency becomes black on the way to RGB.
            keyed = transparent and image.mode not in _WITH_ALPHA
            animated, rotated = getattr(image, "is_animated", False), turn in _ROTATED
            grey = image.mode in _GREY and not keyed
            return image.mode, image.format, height, width, animated, rotated, transparent, grey
    except preprocess.DAMAGE as error:
        # Decoding reports what is wrong in the usual words.
        data = Path(file).read_bytes() if isinstance(file, str) else file.getvalue()
        preprocess.open_pixels(data, "RGB", *accepted)
        raise ImageError(f"damaged header: {error}") from error


def _reason(error: OSError | ImageError) -> str:
    return str(error.strerror or error) if isinstance(error, OSError) else error.message


# Part of every key: another format or another way to decode makes other entries.
CACHE_FORMAT = 2
_MANIFEST, _LOCK, _NEW = "manifest.json", ".lock", ".new"
#: About all images; the images, their digests and their places in the listing.
Decoded = tuple[Mapping[str, Any], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]


def find_or_make(
    entry: Path,
    origin: tuple[str, str],
    fill: Callable[[Path], Mapping[str, Any]],
    on_wait: Callable[[], None],
) -> Decoded | None:
    """What `fill` wrote into `entry`, now or earlier; None where none can be written."""
    # `origin` is a folder and its listing of files: entries of another listing are stale.
    # `fill` returns what else there is to say. Entries are renamed at the end: whole or absent.
    home, new = entry.parent, entry.with_name(_NEW)
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if (found := _found(entry)) is not None or not os.access(home, os.W_OK):
        return found
    try:
        with file_lock(home / _LOCK, on_wait=on_wait):
            if (found := _found(entry)) is not None:
                return found  # by another process in the meantime
            # Left by a process that was killed: a living one would hold the lock.
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            try:
                manifest = {"about": fill(new), "origin": origin}
                (new / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
                for path in (*new.iterdir(), new):
                    sync(path)
                shutil.rmtree(entry, ignore_errors=True)
                _remove_stale(home, *origin)
                new.rename(entry)
                sync(home)
            finally:
                shutil.rmtree(new, ignore_errors=True)
            return _found(entry)
    except OSError as error:
        message = f"cannot keep decoded images in {home}: {error.strerror or error}"
        hint = "free some space, or set [DIR_PATHS] DATA to another folder"
        raise DataError(message, hint=hint) from error


def _found(entry: Path) -> Decoded | None:
    """None if there is no entry, or a part of one."""
    try:
        about = json.loads((entry / _MANIFEST).read_text(encoding="utf-8"))["about"]
        names = ("images.npy", "digests.npy", "order.npy")
        images, digests, order = (np.load(entry / name, mmap_mode="r") for name in names)
        return about, images, digests, order
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remove_stale(home: Path, own: str, current: str) -> None:
    for path in home.glob(f"*/{_MANIFEST}"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            folder, listing = json.loads(path.read_text(encoding="utf-8"))["origin"]
            if folder == own and listing != current:
                shutil.rmtree(path.parent)


def require_space(folder: Path, size: int) -> str:
    """A size in bytes in words; OSError if the disk of a folder has no space for it."""
    free = shutil.disk_usage(folder).free
    needed, there = (f"{math.ceil(number / 1e6):,} MB" for number in (size, free))
    if size > free:
        raise OSError(errno.ENOSPC, f"{needed} are needed, {there} are free")
    return needed


def new_array(path: Path | None, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """An array of uint8 to fill, in memory or mapped from a new .npy file."""
    if path is None:
        return np.empty(shape, np.uint8)
    array: NDArray[np.uint8] = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    with path.open("r+b") as file:
        # Reserve the blocks: a mapped file that outgrows the disk would kill the process.
        size = file.seek(0, os.SEEK_END)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
    return array


def reorder(array: NDArray[Any], order: NDArray[np.int64]) -> None:
    """`array[:] = array[order]`, row by row: the array may be larger than the memory."""
    sources = order.tolist()
    for start, source in enumerate(sources):
        if source < 0 or source == start:
            continue
        first, place = array[start].copy(), start
        while sources[place] != start:
            source, sources[place] = sources[place], -1
            array[place] = array[source]
            place = source
        array[place], sources[place] = first, -1
