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
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mindtrace.data.similar import HASHES, difference_hashes
from mindtrace.errors import DataError, ImageError
from mindtrace.preprocess import (
    DAMAGE,
    Accepted,
    ImageSpec,
    Mode,
    image_digest,
    open_pixels,
    opened,
    resized,
)
from mindtrace.progress import Progress
from mindtrace.system import file_lock, sync

_GREY = {"1", "L", "LA", "La", "F", "I", "I;16", "I;16L", "I;16B", "I;16N"}
_WITH_ALPHA = {"LA", "La", "PA", "RGBA", "RGBa"}
_ORIENTATION, _ROTATED, _SIDEWAYS = 0x0112, {2, 3, 4, 5, 6, 7, 8}, {5, 6, 7, 8}
_BAD_HEADER = (*DAMAGE, Image.DecompressionBombError, Image.DecompressionBombWarning)

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

_ACCEPTED = Accepted()
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


def examine_files(
    paths: Sequence[str],
    workers: int,
    report: Report,
    *,
    accepted: Accepted = _ACCEPTED,
    headers_only: bool = False,
) -> NDArray[Any]:
    """The `FACTS` of image files, each decoded; what is wrong with a file is in `error`.

    With `headers_only` there are no digests, and a file that cannot be read raises ImageError.
    """
    facts = np.zeros(len(paths), FACTS)
    work = functools.partial(_examined, accepted=accepted, headers_only=headers_only)
    for part, block in _in_workers(work, paths, FACTS.itemsize, workers, report):
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
    *,
    accepted: Accepted = _ACCEPTED,
) -> None:
    """Fill `images`, (n, channels, height, width), and `digests`, (n, 32): of the originals."""
    tasks = list(zip(paths, ["L" if one else "RGB" for one in grey], strict=True))
    work = functools.partial(_decoded, spec=spec, accepted=accepted)
    for part, block in _in_workers(work, tasks, images[:1].nbytes + 32, workers, report):
        images[part], digests[part] = block


def _in_workers(
    work: Callable[[Sequence[_Task]], _Result],
    tasks: Sequence[_Task],
    record_bytes: int,
    workers: int,
    report: Report,
) -> Iterator[tuple[slice, _Result]]:
    """Yield the results of blocks of tasks as they come; one worker is this process."""
    share = math.ceil(len(tasks) / (4 * workers)) if workers > 1 else len(tasks)
    step = max(1, min(_BLOCK, _BLOCK_BYTES // record_bytes, share))
    parts = [slice(at, min(at + step, len(tasks))) for at in range(0, len(tasks), step)]
    if workers < 2:
        for part in parts:
            yield part, work(tasks[part])
            report(part.stop)
        return
    waiting = iter(parts)
    busy: dict[_Worker, slice] = {}

    def start(worker: _Worker) -> None:
        if (part := next(waiting, None)) is not None:
            worker.send((work, tasks[part]))
            busy[worker] = part

    with contextlib.ExitStack() as stack:
        for _ in parts[:workers]:
            start(stack.enter_context(_Worker()))
        done = 0
        while busy:
            for worker in select.select(list(busy), [], [])[0]:
                part, result = busy.pop(worker), worker.receive()
                start(worker)
                yield part, result
                done += part.stop - part.start
                report(done)


class _Worker(subprocess.Popen[bytes]):
    """A child process that runs pickled calls, killed at the end of `with`."""

    def __init__(self) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        super().__init__(
            # -P: a file of the working directory must not stand in for a library.
            [sys.executable, "-P", "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)},
        )

    def __exit__(self, *error: Any) -> None:
        self.kill()
        with self._log, contextlib.suppress(OSError):
            super().__exit__(*error)

    def fileno(self) -> int:
        """What becomes readable with the result."""
        assert self.stdout is not None
        return self.stdout.fileno()

    def send(self, call: tuple[Callable[[Any], Any], Any]) -> None:
        """Have the child call a function with an argument."""
        assert self.stdin is not None
        with contextlib.suppress(OSError):  # `receive` reports a dead child
            pickle.dump(call, self.stdin)
            self.stdin.flush()

    def receive(self) -> Any:
        """The result of the call."""
        assert self.stdout is not None
        try:
            result = pickle.load(self.stdout)
        except (OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
            status = self.wait()
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


def _examined(paths: Sequence[str], accepted: Accepted, headers_only: bool) -> NDArray[Any]:
    facts = np.zeros(len(paths), FACTS)
    for place, path in enumerate(paths):
        try:
            with _named(path):
                if headers_only:
                    facts[place] = (*_header(path, accepted), *_NO_DIGEST, b"")
                    continue
                data = Path(path).read_bytes()
                header = _header(io.BytesIO(data), accepted)
                mode: Mode = "L" if header[-1] else "RGB"
                image = open_pixels(data, mode, *accepted)
            digest = np.frombuffer(image_digest(np.asarray(image)), np.uint8)
            facts[place] = (*header, digest, difference_hashes(image), b"")
        except ImageError as error:
            if headers_only:
                raise
            reason = error.message.removeprefix(f"{path}: ")
            facts[place]["error"] = reason.encode(errors="replace")[:256]
    return facts


def _header(file: str | io.BytesIO, accepted: Accepted) -> tuple[Any, ...]:
    """The fields of `FACTS` that Pillow knows before it decodes."""
    try:
        with opened(file, *accepted) as image:
            width, height = image.size
            # Asking a PNG for its EXIF decodes it whole; cameras write none into PNGs.
            tagged = image.format != "PNG" or "exif" in image.info
            turn = image.getexif().get(_ORIENTATION) if tagged else None
            if turn in _SIDEWAYS and image.format != "TIFF":  # whose size Pillow turns
                width, height = height, width
            transparent = image.mode in _WITH_ALPHA or "transparency" in image.info
            # A grey level that stands for transparency becomes black on the way to RGB.
            keyed = transparent and image.mode not in _WITH_ALPHA
            return (
                image.mode,
                image.format,
                height,
                width,
                getattr(image, "is_animated", False),
                turn in _ROTATED,
                transparent,
                image.mode in _GREY and not keyed,
            )
    except _BAD_HEADER as error:
        # Decoding reports what is wrong in the usual words.
        data = Path(file).read_bytes() if isinstance(file, str) else file.getvalue()
        open_pixels(data, "RGB", *accepted)
        raise ImageError(f"damaged header: {error}") from error


def _decoded(
    tasks: Sequence[tuple[str, Mode]], spec: ImageSpec, accepted: Accepted
) -> tuple[Any, Any]:
    images = np.empty((len(tasks), spec.channels, spec.height, spec.width), np.uint8)
    digests = np.empty((len(tasks), 32), np.uint8)
    for place, (path, own_mode) in enumerate(tasks):
        with _named(path):
            data = Path(path).read_bytes()
            image = open_pixels(data, own_mode, *accepted)
            digests[place] = np.frombuffer(image_digest(np.asarray(image)), np.uint8)
            if spec.mode != own_mode:
                image = open_pixels(data, spec.mode, *accepted)
            pixels = np.asarray(resized(image, spec))
        images[place] = pixels if spec.mode == "L" else pixels.transpose(2, 0, 1)
    return images, digests


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    """Errors begin with the file's path."""
    try:
        yield
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from error
    except ImageError as error:
        raise ImageError(f"{path}: {error.message}", hint=error.hint) from error


# Part of every key: another format or another way to decode makes other entries.
CACHE_FORMAT = 2
_MANIFEST, _LOCK, _NEW = "manifest.json", ".lock", ".new"
# The digest in the manifest is over so much of a file, from its beginning on.
_COMPARED_BYTES = 64 * 2**20


@dataclass(frozen=True)
class CacheKey:
    """An entry's name; entries of the same folder with another listing of files are stale."""

    name: str
    folder: str
    listing: str


def find_or_make(
    home: Path,
    key: CacheKey,
    fill: Callable[[Path], Mapping[str, Any]],
    on_wait: Callable[[], None],
) -> Mapping[str, Any] | None:
    """What `fill` returned when it wrote the arrays of `home / key.name`, now or earlier.

    Entries are written aside and renamed: whole or absent. None where none can be written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    entry, new = home / key.name, home / _NEW
    if (about := _found(entry)) is not None or not os.access(home, os.W_OK):
        return about
    try:
        with file_lock(home / _LOCK, on_wait=on_wait):
            if (about := _found(entry)) is not None:
                return about  # by another process in the meantime
            # Left by a process that was killed: a living one would hold the lock.
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            try:
                about = fill(new)
                _seal(new, key, about)
                shutil.rmtree(entry, ignore_errors=True)
                _remove_stale(home, key)
                new.rename(entry)
                sync(home)
            finally:
                shutil.rmtree(new, ignore_errors=True)
            return about
    except OSError as error:
        raise DataError(
            f"cannot keep decoded images in {home}: {error.strerror or error}",
            hint="free some space, or set [DIR_PATHS] DATA to another folder",
        ) from error


def _found(entry: Path) -> Mapping[str, Any] | None:
    """None if there is no entry or it is damaged."""
    try:
        manifest = json.loads((entry / _MANIFEST).read_text(encoding="utf-8"))
        files = manifest["files"]
        whole = all(_described(entry / name) == files[name] for name in files)
        about: Mapping[str, Any] = manifest["about"]
        return about if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _remove_stale(home: Path, key: CacheKey) -> None:
    for path in home.glob(f"*/{_MANIFEST}"):
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
