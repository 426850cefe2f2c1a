"""A version's answers: to its golden images, and to every test image, without pickle."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from mindtrace.bundle.predictions import (
    GoldenCase,
    TestPredictions,
    golden_json,
    largest_difference,
    read_golden,
)

RANDOM = np.random.default_rng(0)
ARRAYS: dict[str, Any] = {
    "digests": RANDOM.integers(0, 256, (5, 32), np.uint8),
    "labels": RANDOM.integers(0, 3, 5),
    "probabilities": RANDOM.random((5, 3), np.float32),
}
OBJECTS = np.array([{"run": "me"}] * 5, object)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("predictions") / "p.npz"
    TestPredictions(**ARRAYS).write(path)
    return path.read_bytes()


def test_predictions_come_back_as_they_went(written: bytes) -> None:
    found = TestPredictions.parse(written)
    for name, expected in ARRAYS.items():
        assert getattr(found, name).dtype == expected.dtype
        np.testing.assert_array_equal(getattr(found, name), expected)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({**ARRAYS, "digests": OBJECTS, "probabilities": OBJECTS}, "pickle"),
        ({name: ARRAYS[name] for name in ("digests", "labels")}, "probabilities"),
        ({**ARRAYS, "labels": ARRAYS["labels"][:4]}, "length"),
    ],
    ids=["pickled", "missing", "length"],
)
def test_other_arrays_are_refused(tmp_path: Path, arrays: dict[str, Any], says: str) -> None:
    np.savez(tmp_path / "p.npz", **arrays)
    with pytest.raises(ValueError, match=says):
        TestPredictions.parse((tmp_path / "p.npz").read_bytes())


def test_damaged_predictions_are_refused(written: bytes) -> None:
    half = len(written) // 2
    for damage in (b"", b"PK", written[:50], written[:half], written[:60] + written[90:]):
        with pytest.raises(ValueError):
            TestPredictions.parse(damage)


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=3))
def test_flipped_bytes_are_refused_or_change_nothing(
    written: bytes, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(written)
    for at, value in changes:
        content[at % len(content)] = value
    with contextlib.suppress(ValueError):
        found = TestPredictions.parse(bytes(content))
        np.testing.assert_array_equal(found.probabilities, ARRAYS["probabilities"])


CASES = tuple(GoldenCase(bytes([n]), np.array([n / 4, 1 - n / 4], np.float32)) for n in range(4))


def answer(shift: float, to: int = 2) -> Callable[[bytes], np.ndarray]:
    return lambda image: CASES[image[0]].probabilities + np.float32(shift if image[0] == to else 0)


def test_golden_cases_come_back_bit_for_bit() -> None:
    exact = GoldenCase(bytes(range(256)), np.array([1 / 3, 2e-38], np.float32))
    (found,) = read_golden(golden_json([exact]))
    assert found.image == exact.image
    assert found.probabilities.tobytes() == exact.probabilities.tobytes()


def test_the_difference_is_the_largest_of_all_images() -> None:
    assert largest_difference(CASES, answer(0)) == 0
    assert largest_difference(CASES, answer(-0.25)) == 0.25
    assert largest_difference(CASES, answer(1e-3, to=3)) == pytest.approx(1e-3, rel=1e-3)


def test_what_cannot_be_compared_is_infinitely_wrong() -> None:
    nonsense = (*CASES[:3], GoldenCase(b"\3", np.array([math.nan, 1], np.float32)))
    for cases, predict in (
        *((CASES, answer(value, to=0)) for value in (math.nan, math.inf, -math.inf)),
        (nonsense, answer(0)),
        (CASES, lambda image: np.zeros(3, np.float32)),
        (CASES, lambda image: np.zeros((1, 2), np.float32)),
    ):
        assert largest_difference(cases, predict) == math.inf


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"cases": [3]}',
        '{"cases": [{"image": "?", "probabilities": [1]}]}',
        '{"cases": [{"image": "", "probabilities": ["a"]}]}',
        '{"cases": [{"image": 3, "probabilities": [1]}]}',
        '{"cases": [{"image": ""}]}',
    ],
)
def test_a_strange_golden_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_golden(text)
