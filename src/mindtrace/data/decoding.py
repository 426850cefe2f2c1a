"""Room data: image files come in, their pixels in one array go out, decoded on all cores.

Many files are shared out to child processes that run this module: Pillow holds the
interpreter for most of a small image, so threads do not help. The children are started
afresh and import no torch; unlike multiprocessing's they need no guard around the
caller's main module. A child reads its list from stdin as JSON and writes records of a
fixed size to stdout; where a file cannot be read it stops and says why on stderr.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mindtrace.errors import DataError, ImageError
from mindtrace.preprocess import ImageSpec, Mode, image_digest, open_pixels, resized

_GREY = {"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"}
_ORIENTATION, _ON_ITS_SIDE = 0x0112, {5, 6, 7, 8}
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

_BLOCK = 256  # records written and read at once
_FAILED = 3  # the exit status of a child that could not read a file
# Seconds, roughly: what a file, a pixel and the start of the children cost.
_FILE_S, _PIXEL_S, _START_S = 6e-5, 1e-8, 0.4

Task = tuple[str, Mode | None]  # a file and its own mode; None to find that out
Fields = tuple[NDArray[Any], ...]  # of a record, or of all records, one array a field


@dataclass(frozen=True)
class Facts:
    """What the headers of the files say.

    Attributes:
        grey: bool, (n,).
        sizes: int64, (n, 2): height and width, upright.
    """

    grey: NDArray[np.bool_]
    sizes: NDArray[np.int64]


@dataclass(frozen=True)
class Decoded:
    """The images of the files.

    Attributes:
        pixels: uint8, (n, height, width) or (n, height, width, 3), as the spec asks.
        digests: of each image in its own size, grey or colour as it came.
    """

    pixels: NDArray[np.uint8]
    digests: list[bytes]


def processes_worth(files: int, pixels: int, limit: int) -> int:
    """How many processes, up to `limit`, so much work is worth; 1 is the caller's own."""
    worth = files * _FILE_S + pixels * _PIXEL_S > 2 * _START_S
    return min(limit, files) if worth and sys.executable else 1


def inspect_files(paths: Sequence[Path], workers: int) -> Facts:
    """Read the headers of image files.

    Args:
        paths: n files.
        workers: processes that read; 1 for this one.

    Returns:
        What the headers say, in the order of `paths`.

    Raises:
        ImageError: a file that is not an image or cannot be read; names it.
    """
    facts = np.empty((len(paths), 3), np.int64)
    tasks: list[Task] = [(str(path), None) for path in paths]
    _run(tasks, None, (facts,), workers)
    return Facts(facts[:, 0].astype(bool), facts[:, 1:])


def decode_files(paths: Sequence[Path], facts: Facts, spec: ImageSpec, workers: int) -> Decoded:
    """Decode image files to the size and mode of `spec`.

    Args:
        paths: n files.
        facts: of these files.
        spec: its mean and deviation are not used.
        workers: processes that decode; 1 for this one.

    Returns:
        Pixels and digests in the order of `paths`.

    Raises:
        ImageError: a file that is damaged or too large; names it.
    """
    shape = (spec.height, spec.width) if spec.mode == "L" else (spec.height, spec.width, 3)
    pixels = np.empty((len(paths), *shape), np.uint8)
    digests = np.empty((len(paths), 32), np.uint8)
    tasks: list[Task] = [
        (str(path), "L" if grey else "RGB") for path, grey in zip(paths, facts.grey, strict=True)
    ]
    _run(tasks, spec, (pixels, digests), workers)
    return Decoded(pixels, [row.tobytes() for row in digests])


def _run(tasks: list[Task], spec: ImageSpec | None, sinks: Fields, workers: int) -> None:
    """Do each task and put its record into `sinks`, whose first axis is the tasks."""
    workers = min(workers, len(tasks))
    if workers > 1:
        _run_in_children(tasks, spec, sinks, workers)
        return
    for position, task in enumerate(tasks):
        for sink, value in zip(sinks, _record(task, spec), strict=True):
            sink[position] = value


def _record(task: Task, spec: ImageSpec | None) -> Fields:
    """The facts of a file, or its pixels and its digest."""
    path, own_mode = task
    try:
        if own_mode is None or spec is None:
            return (_facts(path),)
        return _decoded(Path(path).read_bytes(), own_mode, spec)
    except ImageError as error:
        raise ImageError(f"{path}: {error.message}", hint=error.hint) from error
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from error


def _facts(path: str) -> NDArray[np.int64]:
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
            width, height = image.size
            # Asking a PNG for its EXIF decodes it whole; cameras write none into PNGs.
            if image.format != "PNG" and image.getexif().get(_ORIENTATION) in _ON_ITS_SIDE:
                width, height = height, width
            return np.array([image.mode in _GREY, height, width], np.int64)
    except _NO_HEADER as error:
        # Decoding says what is wrong in the words of every door.
        open_pixels(Path(path).read_bytes(), "RGB")
        raise ImageError(f"damaged header: {error}") from error


def _decoded(data: bytes, own_mode: Mode, spec: ImageSpec) -> Fields:
    image = open_pixels(data, own_mode)
    digest = image_digest(np.asarray(image))
    if spec.mode != own_mode:
        image = open_pixels(data, spec.mode)
    return np.asarray(resized(image, spec)), np.frombuffer(digest, np.uint8)


def _run_in_children(
    tasks: list[Task], spec: ImageSpec | None, sinks: Fields, workers: int
) -> None:
    bounds = [len(tasks) * worker // workers for worker in range(workers + 1)]
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        futures = []
        for start, end in itertools.pairwise(bounds):
            child = stack.enter_context(_Child())
            fields = tuple(sink[start:end] for sink in sinks)
            futures.append(pool.submit(child.run, tasks[start:end], spec, fields))
        wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            if future.done():
                future.result()


class _Child:
    """A process that runs this module for a part of the tasks; gone at the end of `with`."""

    def __init__(self) -> None:
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            # -P: a file of the working directory must not stand in for a library.
            [sys.executable, "-P", "-m", "mindtrace.data.decoding"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)},
        )

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def run(self, tasks: list[Task], spec: ImageSpec | None, fields: Fields) -> None:
        """Have the tasks done.

        Args:
            tasks: n files.
            spec: what to decode to; None to read the headers.
            fields: receive the records; the first axis of each is n.

        Raises:
            ImageError: a file could not be read.
            DataError: the process ended otherwise.
        """
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and isinstance(stdout, io.BufferedReader)
        with self.log, stdout:
            with contextlib.suppress(BrokenPipeError), stdin:
                stdin.write(json.dumps([tasks, spec and asdict(spec)]).encode())
            for start in range(0, len(tasks), _BLOCK):
                for field in fields:
                    stdout.readinto(field[start : start + _BLOCK].data.cast("B"))
            status = self.process.wait()
            self.log.seek(0)
            lines = self.log.read().decode(errors="replace").splitlines()
        if status == _FAILED:
            raise ImageError(**json.loads(lines[-1]))
        if status:
            raise DataError(
                f"a decoding process ended with status {status}: {lines[-1] if lines else ''}",
                hint="decode in this process: --set data.num_workers=1",
            )


def _main() -> int:
    """The child's side of `_Child.run`."""
    tasks, values = json.load(sys.stdin.buffer)
    spec = values and ImageSpec(**values)
    try:
        for start in range(0, len(tasks), _BLOCK):
            records = [_record(task, spec) for task in tasks[start : start + _BLOCK]]
            for field in zip(*records, strict=True):
                sys.stdout.buffer.write(b"".join(value.tobytes() for value in field))
    except ImageError as error:
        print(json.dumps({"message": error.message, "hint": error.hint}), file=sys.stderr)  # noqa: T201
        return _FAILED
    return 0


if __name__ == "__main__":
    sys.exit(_main())
