"""Room data: the files of a folder come in, decoded images go out, cached ones if there are."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from torch import Tensor

from mindtrace.data.cache import FORMAT, ImageCache
from mindtrace.data.columns import MemoryShelf, Shelf
from mindtrace.data.decoding import Facts, decode_files, inspect_files
from mindtrace.data.images import Stage, channel_statistics, to_images
from mindtrace.data.spec import settle_spec
from mindtrace.data.workers import Told, processes_worth
from mindtrace.errors import ImageError
from mindtrace.preprocess import ImageSpec, InputRequirements, Mode
from mindtrace.progress import Progress

# Images of one size up to this many pixels a side keep it; others become DEFAULT_SIDE.
LARGEST_OWN_SIDE = 224
DEFAULT_SIDE = 64

_IMAGES, _DIGESTS = "images", "digests"


@dataclass(frozen=True)
class Rows:
    """The image files in the order train, val, test.

    Attributes:
        paths: of the files.
        labels: int64, of the same images.
        counts: images a stage, in the same order.
    """

    paths: list[str]
    labels: Tensor
    counts: dict[Stage, int]

    def parts(self) -> dict[Stage, slice]:
        """The places of each stage."""
        ends = list(itertools.accumulate(self.counts.values()))
        return {
            stage: slice(end - count, end)
            for (stage, count), end in zip(self.counts.items(), ends, strict=True)
        }


@dataclass(frozen=True)
class Nature:
    """What the images are by themselves, and the statistics of those that train.

    Attributes:
        mode: grey if all of them are.
        height: pixels, if nobody asks for another size.
        width: like `height`.
        mean: a channel, on the scale of [0, 1].
        std: like `mean`.
    """

    mode: Mode
    height: int
    width: int
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @staticmethod
    def parse(fields: Mapping[str, Any]) -> Nature:
        """From the values of `asdict`, after a way through JSON."""
        return Nature(**{**fields, "mean": tuple(fields["mean"]), "std": tuple(fields["std"])})


@dataclass(frozen=True)
class Loaded:
    """The images of a folder.

    Attributes:
        images: uint8, (n, channels, height, width), in memory or mapped from a file.
        digests: uint8, (n, 32): of the images in their own size and mode.
        spec: what the network will read.
        notes: what a person should know, one line each.
    """

    images: Tensor
    digests: NDArray[np.uint8]
    spec: ImageSpec
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Loading:
    """How the files of a folder become images.

    Attributes:
        folder: where the files are.
        demand: what the network insists on.
        image_size: pixels a side, or None.
        workers: processes that decode, at most.
        progress: hears of it.
    """

    folder: Path
    demand: InputRequirements
    image_size: int | None
    workers: int
    progress: Progress

    def load(self, rows: Rows, cache: ImageCache | None) -> Loaded:
        """Take the images from the cache, decode them into it, or decode them into memory.

        Raises:
            ImageError: a file that cannot be decoded.
            DataError: the images could not be kept.
        """
        shelf, nature, notes = self._found(rows, cache)
        spec = self._spec(nature)
        images = to_images(shelf.array(_IMAGES)).expand(-1, spec.channels, -1, -1)
        return Loaded(images, shelf.array(_DIGESTS), spec, notes)

    def _found(self, rows: Rows, cache: ImageCache | None) -> tuple[Shelf, Nature, tuple[str, ...]]:
        if cache is None:
            return self._in_memory(rows)
        key, listing = self._key(rows)
        entry = cache.find(key)
        if entry is None and not cache.writable():
            note = f"{cache.home} cannot be written: images are decoded anew each time"
            return self._in_memory(rows, note)
        if entry is None:
            entry = cache.make(
                key,
                (str(self.folder), listing),
                lambda shelf: asdict(self._decode(rows, shelf)),
                lambda: self.progress.stage("waiting for another process that decodes images"),
            )
        return entry.shelf, Nature.parse(entry.about), ()

    def _in_memory(self, rows: Rows, *notes: str) -> tuple[Shelf, Nature, tuple[str, ...]]:
        shelf = MemoryShelf()
        return shelf, self._decode(rows, shelf), notes

    def _decode(self, rows: Rows, shelf: Shelf) -> Nature:
        """Put images and digests on a shelf; what they are is seen on the way."""
        count = len(rows.paths)
        told = teller(self.progress, f"looking at {count:,} images", count)
        facts = inspect_files(rows.paths, processes_worth(count, 0, self.workers), told)
        nature = _nature_of(facts)
        spec = self._spec(nature)
        # Three equal channels need not be decoded or kept.
        stored = replace(spec, mode="L") if facts.grey.all() else spec
        columns = (
            shelf.column(_IMAGES, (count, stored.channels, spec.height, spec.width)),
            shelf.column(_DIGESTS, (count, 32)),
        )
        pixels = int(facts.sizes.prod(axis=1).sum())
        told = teller(self.progress, f"decoding {count:,} images", count)
        workers = processes_worth(count, pixels, self.workers)
        decode_files(rows.paths, facts, stored, columns, workers, told)
        mean, std = channel_statistics(to_images(shelf.array(_IMAGES)[: rows.counts["train"]]))
        return replace(nature, mean=mean, std=std)

    def _spec(self, nature: Nature) -> ImageSpec:
        return settle_spec(
            nature.mode,
            (nature.height, nature.width),
            nature.mean,
            nature.std,
            demand=self.demand,
            image_size=self.image_size,
        )

    def _key(self, rows: Rows) -> tuple[str, str]:
        """What the decoded images depend on, and what the files are, as digests.

        A file is its path in the folder, its size and the time of its last change.
        """
        top = str(self.folder)
        files = [f"{path.removeprefix(top)}\0{_state(path)}" for path in rows.paths]
        demand = {**asdict(self.demand), "mean": None, "std": None}
        rules = [FORMAT, PIL.__version__, LARGEST_OWN_SIDE, DEFAULT_SIDE]
        wanted = json.dumps([rules, self.image_size, demand, rows.counts])
        return _digest([wanted, *files]), _digest(sorted(files))


def teller(progress: Progress, text: str, total: int) -> Told:
    """What tells `progress` how far a piece of work is, at most every second."""
    progress.stage(text)
    said = time.monotonic()

    def told(done: int) -> None:
        nonlocal said
        if time.monotonic() - said >= 1:
            said = time.monotonic()
            progress.stage(f"{text}: {100 * done // total} %")

    return told


def _nature_of(facts: Facts) -> Nature:
    height, width = (int(side) for side in facts.sizes[0])
    alike = bool((facts.sizes == facts.sizes[0]).all())
    if not alike or max(height, width) > LARGEST_OWN_SIDE:
        height = width = DEFAULT_SIDE
    return Nature("L" if facts.grey.all() else "RGB", height, width)


def _state(path: str) -> str:
    try:
        found = os.stat(path)  # noqa: PTH116 - 70,000 times
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from error
    return f"{found.st_size}\0{found.st_mtime_ns}"


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
