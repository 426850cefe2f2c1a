"""Decodes image files on all cores and keeps the result. Worker processes import this: no torch."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import math
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mindtrace.errors import DataError, ImageError
from mindtrace.preprocess import ImageSpec, Mode, image_digest, open_pixels, resized
from mindtrace.progress import Progress
from mindtrace.system import file_lock, sync

_FORMATS = ("PNG", "JPEG", "WEBP")
_GREY = {"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"}
_WITH_ALPHA = {"LA", "La", "PA", "RGBA", "RGBa"}
_ORIENTATION, _ROTATED, _SIDEWAYS = 0x0112, {2, 3, 4, 5, 6, 7, 8}, {5, 6, 7, 8}
# What Pillow raises on headers that it cannot parse.
_BAD_HEADER = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)

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
        ("error", "S256"),
    ]
)

_NO_DIGEST = np.zeros(32, np.uint8)

# A worker decodes so many files, or so many bytes, at a time.
_BLOCK, _BLOCK_BYTES = 256, 4 * 2**20
# Seconds, roughly: what a file, a pixel and the start of the workers cost.
_FILE_S, _PIXEL_S, _START_S = 6e-5, 1e-8, 0.4

Report = Callable[[int], None]  # receives how many files are done
_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


def workers_for(files: int, pixels: int, limit: int) -> int:
    """How many processes, up to `limit`, so much work is worth; 1 is the caller's own."""
    return min(limit, files) if files * _FILE_S + pixels * _PIXEL_S > 2 * _START_S else 1


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


def read_headers(paths: Sequence[str], workers: int, report: Report) -> NDArray[Any]:
    """The `FACTS` of image files without digests; an unreadable file raises ImageError."""
    facts = np.zeros(len(paths), FACTS)
    for part, block in _in_workers(_headers, paths, FACTS.itemsize, workers, report):
        facts[part] = block
    return facts


def examine_files(paths: Sequence[str], workers: int, report: Report) -> NDArray[Any]:
    """The `FACTS` of image files, each decoded; what is wrong with a file is in `error`."""
    facts = np.zeros(len(paths), FACTS)
    for part, block in _in_workers(_examined, paths, FACTS.itemsize, workers, report):
        facts[part] = block
    return facts


def decode_files(
    paths: Sequence[str],
    grey: Sequence[bool],
    spec: ImageSpec,
    images: NDArray[np.uint8],
    digests: NDArray[np.uint8],
    workers: int,
    report: Report,
) -> None:
    """Fill `images`, (n, channels, height, width), and `digests`, (n, 32): of the originals."""
    tasks = list(zip(paths, ["L" if one else "RGB" for one in grey], strict=True))
    work = functools.partial(_decoded, spec=spec)
    for part, block in _in_workers(work, tasks, images[:1].nbytes + 32, workers, report):
        images[part], digests[part] = block


def _in_workers(
    work: Callable[[Sequence[_Task]], _Result],
    tasks: Sequence[_Task],
    record_bytes: int,
    workers: int,
    report: Report,
) -> Iterator[tuple[slice, _Result]]:
    """Yield the results of blocks of tasks, in order; one worker is this process."""
    share = math.ceil(len(tasks) / (4 * workers)) if workers > 1 else len(tasks)
    step = max(1, min(_BLOCK, _BLOCK_BYTES // record_bytes, share))
    parts = iter([slice(at, min(at + step, len(tasks))) for at in range(0, len(tasks), step)])
    if workers < 2:
        for part in parts:
            yield part, work(tasks[part])
            report(part.stop)
        return
    with contextlib.ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(workers))
        idle: SimpleQueue[_Worker] = SimpleQueue()
        for _ in range(min(workers, len(tasks))):
            idle.put(stack.enter_context(_Worker()))

        def call(part: slice) -> Any:
            worker = idle.get()
            try:
                return worker.call(work, tasks[part])
            finally:
                idle.put(worker)

        # Bounded: results must not pile up in memory while the disk is slow.
        pending = deque((part, threads.submit(call, part)) for part in islice(parts, 2 * workers))
        while pending:
            part, future = pending.popleft()
            yield part, future.result()
            report(part.stop)
            pending.extend((part, threads.submit(call, part)) for part in islice(parts, 1))


class _Worker:
    """A child process that runs pickled calls, killed at the end of `with`."""

    def __init__(self) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            # -P: a file of the working directory must not stand in for a library.
            [sys.executable, "-P", "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)},
        )

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._log):
            with contextlib.suppress(OSError):
                file.close()  # type: ignore[union-attr]

    def call(self, work: Callable[[Any], Any], tasks: Any) -> Any:
        """`work(tasks)`, done in the child."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            pickle.dump((work, tasks), stdin)
            stdin.flush()
            result = pickle.load(stdout)
        except (OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
            status = self._process.wait()
            self._log.seek(0)
            lines = self._log.read().decode(errors="replace").splitlines()
            raise DataError(
                f"a decoding process ended with status {status}: {lines[-1] if lines else ''}",
                hint="decode in this process: --set data.num_workers=1",
            ) from error
        if isinstance(result, ImageError):
            raise result
        return result


def serve() -> None:
    """The child's side of `_Worker`: runs until its parent closes the pipe or dies."""
    with contextlib.suppress(EOFError):
        while True:
            work, tasks = pickle.load(sys.stdin.buffer)
            try:
                result = work(tasks)
            except ImageError as error:
                result = error
            pickle.dump(result, sys.stdout.buffer, pickle.HIGHEST_PROTOCOL)
            sys.stdout.buffer.flush()


def _headers(paths: Sequence[str]) -> NDArray[Any]:
    facts = np.zeros(len(paths), FACTS)
    for place, path in enumerate(paths):
        facts[place] = (*_header(path, path), _NO_DIGEST, b"")
    return facts


def _header(path: str, file: str | io.BytesIO) -> tuple[Any, ...]:
    """The fields of `FACTS` that Pillow knows before it decodes."""
    try:
        return _read_header(file)
    except _BAD_HEADER as error:
        # Decoding reports what is wrong in the usual words.
        _open(_read(path), "RGB", path)
        raise ImageError(f"{path}: damaged header: {error}") from error


def _read_header(file: str | io.BytesIO) -> tuple[Any, ...]:
    with Image.open(file, formats=_FORMATS) as image:
        width, height = image.size
        # Asking a PNG for its EXIF decodes it whole; cameras write none into PNGs.
        tagged = image.format != "PNG" or "exif" in image.info
        turn = image.getexif().get(_ORIENTATION) if tagged else None
        if turn in _SIDEWAYS:
            width, height = height, width
        transparent = image.mode in _WITH_ALPHA or "transparency" in image.info
        # A grey level that stands for transparency becomes black on the way to RGB.
        keyed = transparent and image.mode not in _WITH_ALPHA
        return (
            image.mode,
            image.format,
            height,
            width,
            getattr(image, "n_frames", 1) > 1,
            turn in _ROTATED,
            transparent,
            image.mode in _GREY and not keyed,
        )


def _examined(paths: Sequence[str]) -> NDArray[Any]:
    facts = np.zeros(len(paths), FACTS)
    for place, path in enumerate(paths):
        try:
            data = _read(path)
            header = _header(path, io.BytesIO(data))
            pixels = np.asarray(_open(data, "L" if header[-1] else "RGB", path))
            facts[place] = (*header, np.frombuffer(image_digest(pixels), np.uint8), b"")
        except ImageError as error:
            reason = error.message.removeprefix(f"{path}: ")
            facts[place]["error"] = reason.encode(errors="replace")[:256]
    return facts


def _decoded(tasks: Sequence[tuple[str, Mode]], spec: ImageSpec) -> tuple[Any, Any]:
    images = np.empty((len(tasks), spec.channels, spec.height, spec.width), np.uint8)
    digests = np.empty((len(tasks), 32), np.uint8)
    for place, (path, own_mode) in enumerate(tasks):
        data = _read(path)
        image = _open(data, own_mode, path)
        digests[place] = np.frombuffer(image_digest(np.asarray(image)), np.uint8)
        if spec.mode != own_mode:
            image = _open(data, spec.mode, path)
        try:
            pixels = np.asarray(resized(image, spec))
        except ImageError as error:
            raise ImageError(f"{path}: {error.message}", hint=error.hint) from error
        images[place] = pixels if spec.mode == "L" else pixels.transpose(2, 0, 1)
    return images, digests


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from error


def _open(data: bytes, mode: Mode, path: str) -> Image.Image:
    try:
        return open_pixels(data, mode)
    except ImageError as error:
        raise ImageError(f"{path}: {error.message}", hint=error.hint) from error


# Part of every key: another format or another way to decode makes other entries.
CACHE_FORMAT = 1
_MANIFEST, _LOCK, _NEW = "manifest.json", ".lock", ".new"
# The digest in the manifest is over so much of a file, from its beginning on.
_COMPARED_BYTES = 64 * 2**20


@dataclass(frozen=True)
class CacheKey:
    """An entry's name; entries of the same folder with another listing of files are stale."""

    name: str
    folder: str
    listing: str


class ImageCache:
    """Decoded images, a folder a key; entries are written aside and renamed: whole or absent."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def usable(self, key: CacheKey) -> bool:
        """Whether the entry exists or could be made, as far as can be seen without trying."""
        try:
            self.home.mkdir(parents=True, exist_ok=True)
        except OSError:
            return False
        return os.access(self.home, os.W_OK) or self._found(key) is not None

    def find_or_make(
        self, key: CacheKey, fill: Callable[[Path], Mapping[str, Any]], on_wait: Callable[[], None]
    ) -> Mapping[str, Any]:
        """What `fill` returned when it wrote the arrays of this entry, now or earlier."""
        if (about := self._found(key)) is not None:
            return about
        new = self.home / _NEW
        try:
            with file_lock(self.home / _LOCK, on_wait=on_wait):
                if (about := self._found(key)) is not None:
                    return about  # by another process in the meantime
                # Left by a process that was killed: a living one would hold the lock.
                shutil.rmtree(new, ignore_errors=True)
                new.mkdir()
                try:
                    filled = fill(new)
                    _seal(new, key, filled)
                    shutil.rmtree(self.home / key.name, ignore_errors=True)
                    self._remove_stale(key)
                    new.rename(self.home / key.name)
                    sync(self.home)
                finally:
                    shutil.rmtree(new, ignore_errors=True)
                return filled
        except OSError as error:
            raise DataError(
                f"cannot keep decoded images in {self.home}: {error.strerror or error}",
                hint="free some space, or set [DIR_PATHS] DATA to another folder",
            ) from error

    def _found(self, key: CacheKey) -> Mapping[str, Any] | None:
        """None if there is no entry or it is damaged."""
        folder = self.home / key.name
        try:
            manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
            files = manifest["files"]
            whole = all(_described(folder / name) == files[name] for name in files)
            about: Mapping[str, Any] = manifest["about"]
            return about if whole else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _remove_stale(self, key: CacheKey) -> None:
        for path in self.home.glob(f"*/{_MANIFEST}"):
            try:
                folder, listing = json.loads(path.read_text(encoding="utf-8"))["origin"]
            except (OSError, ValueError, KeyError, TypeError):
                continue  # nothing says whose it is
            if folder == key.folder and listing != key.listing:
                shutil.rmtree(path.parent, ignore_errors=True)


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


def _seal(folder: Path, key: CacheKey, about: Mapping[str, Any]) -> None:
    """Write the manifest and flush everything to the disk."""
    files = {path.name: _described(path) for path in sorted(folder.iterdir())}
    origin = (key.folder, key.listing)
    manifest = {"format_version": CACHE_FORMAT, "origin": origin, "about": about, "files": files}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    for path in (*folder.iterdir(), folder):
        sync(path)


def _described(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        digest, left = hashlib.sha256(), _COMPARED_BYTES
        while left and (data := file.read(min(left, 2**20))):
            digest.update(data)
            left -= len(data)
    return {"size": size, "sha256": digest.hexdigest()}
