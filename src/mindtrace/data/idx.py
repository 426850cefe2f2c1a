"""Room data: the bytes of an IDX file come in, a uint8 array goes out.

IDX is the format of MNIST: two zero bytes, the element type, the number of
dimensions, each dimension as a big-endian 32-bit word, then the elements.

Source: https://yann.lecun.com/exdb/mnist/, "The IDX file format".
"""

from __future__ import annotations

import math
import struct

import numpy as np
from numpy.typing import NDArray

from mindtrace.errors import DataError

_UINT8 = 0x08


def read_idx(data: bytes, name: str, ndim: int) -> NDArray[np.uint8]:
    """The array that an IDX file of unsigned bytes holds.

    Args:
        data: the whole file, not compressed.
        name: what to call the file in an error.
        ndim: how many dimensions it must have.

    Returns:
        uint8 of `ndim` dimensions; a read-only view of `data`.

    Raises:
        DataError: another format, type or number of dimensions, too short or too long.
    """
    start = 4 + 4 * ndim
    if len(data) < start or data[:2] != b"\0\0":
        raise DataError(f"{name}: not an IDX file")
    if (data[2], data[3]) != (_UINT8, ndim):
        raise DataError(
            f"{name}: elements of type 0x{data[2]:02x} in {data[3]} dimensions, "
            f"expected unsigned bytes (0x08) in {ndim}"
        )
    shape = struct.unpack_from(f">{ndim}I", data, 4)
    expected, found = math.prod(shape), len(data) - start
    if expected != found:
        dimensions = " x ".join(str(size) for size in shape)
        raise DataError(f"{name}: {dimensions} elements need {expected:,} bytes, found {found:,}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
