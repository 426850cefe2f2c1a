"""Room data: the bytes of records come in, arrays in memory or in a folder's files go out.

A file is written, not mapped, while it grows: a full disk is an error then, and not the
end of the process.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray


@dataclass(frozen=True)
class Column:
    """Where one field of all records goes.

    Attributes:
        step: bytes a record.
        put: `put(start, data)` keeps the bytes of the records from number `start` on.
    """

    step: int
    put: Callable[[int, bytes], None]


class Shelf(Protocol):
    """Keeps arrays by name."""

    def column(self, name: str, shape: tuple[int, ...]) -> Column:
        """Make room for an array of uint8, its first axis the records."""
        ...

    def array(self, name: str) -> NDArray[np.uint8]:
        """The array, as far as it was put."""
        ...


class MemoryShelf:
    """A shelf in memory."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[np.uint8]] = {}

    def column(self, name: str, shape: tuple[int, ...]) -> Column:
        """See `Shelf`."""
        self._arrays[name] = np.empty(shape, np.uint8)
        return in_memory(self._arrays[name])

    def array(self, name: str) -> NDArray[np.uint8]:
        """See `Shelf`."""
        return self._arrays[name]


class FileShelf:
    """A shelf that is a folder of .npy files; what is read is mapped, and stays on the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def column(self, name: str, shape: tuple[int, ...]) -> Column:
        """See `Shelf`."""
        return in_file(self.folder / f"{name}.npy", shape, np.uint8)

    def array(self, name: str) -> NDArray[np.uint8]:
        """See `Shelf`; read-only."""
        found: NDArray[np.uint8] = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        return found


def in_memory(array: NDArray[Any]) -> Column:
    """A column of records that are the rows of `array`, which is contiguous."""
    flat = array.reshape(-1).view(np.uint8)
    step = _step(array.shape, array.dtype)

    def put(start: int, data: bytes) -> None:
        flat[start * step : start * step + len(data)] = np.frombuffer(data, np.uint8)

    return Column(step, put)


def in_file(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> Column:
    """A column of records in a new .npy file.

    Args:
        path: the file.
        shape: of the array; the first axis is the records.
        dtype: of the array.

    Returns:
        The column; the file has its whole size already.

    Raises:
        OSError: the disk has no room for it.
    """
    kind = np.dtype(dtype)
    step = _step(shape, kind)
    header = {
        "descr": np.lib.format.dtype_to_descr(kind),
        "fortran_order": False,
        "shape": shape,
    }
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        offset = file.tell()
        size = offset + shape[0] * step
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)

    def put(start: int, data: bytes) -> None:
        with path.open("r+b") as file:
            file.seek(offset + start * step)
            file.write(data)

    return Column(step, put)


def _step(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return math.prod(shape[1:]) * dtype.itemsize
