from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindtrace.data.idx import read_idx
from mindtrace.errors import DataError


def encoded(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@given(st.lists(st.integers(0, 6), min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_what_was_written_is_read(shape: list[int], random: object) -> None:
    size = int(np.prod(shape))
    array = np.frombuffer(random.randbytes(size), np.uint8).reshape(shape)  # type: ignore[attr-defined]
    assert np.array_equal(read_idx(encoded(array), "x", array.ndim), array)


GOOD = encoded(np.arange(12, dtype=np.uint8).reshape(2, 3, 2))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not an IDX file"),
        (GOOD[:10], "not an IDX file"),
        (b"\x89PNG" + GOOD, "not an IDX file"),
        (b"\0\0\x0d\x03" + GOOD[4:], "type 0x0d in 3 dimensions"),
        (b"\0\0\x08\x01" + GOOD[4:], "in 1 dimensions, expected unsigned bytes (0x08) in 3"),
        (GOOD[:-1], "2 x 3 x 2 elements need 12 bytes, found 11"),
        (GOOD + b"x", "need 12 bytes, found 13"),
    ],
)
def test_anything_else_is_refused_by_name(data: bytes, says: str) -> None:
    with pytest.raises(DataError) as caught:
        read_idx(data, "train-images", 3)
    assert str(caught.value).startswith("train-images: ")
    assert says in str(caught.value)
