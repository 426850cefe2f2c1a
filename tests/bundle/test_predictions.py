"""The ledger keeps every answer to the test set, without pickle."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindtrace.bundle.predictions import TestPredictions

RANDOM = np.random.default_rng(0)
LEDGER = TestPredictions(
    RANDOM.integers(0, 256, (5, 32), np.uint8),
    RANDOM.integers(0, 3, 5),
    RANDOM.random((5, 3), np.float32),
)


def test_a_ledger_comes_back_as_it_went(tmp_path: Path) -> None:
    LEDGER.write(tmp_path / "l.npz")

    found = TestPredictions.parse((tmp_path / "l.npz").read_bytes())

    for name in ("digests", "labels", "probabilities"):
        expected, array = getattr(LEDGER, name), getattr(found, name)
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    objects = np.array([{"run": "me"}] * 5, object)
    np.savez(tmp_path / "l.npz", digests=objects, labels=LEDGER.labels, probabilities=objects)

    with pytest.raises(ValueError, match="pickle"):
        TestPredictions.parse((tmp_path / "l.npz").read_bytes())


def test_a_missing_array_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "l.npz", digests=LEDGER.digests, labels=LEDGER.labels)

    with pytest.raises(ValueError, match="probabilities"):
        TestPredictions.parse((tmp_path / "l.npz").read_bytes())


def test_arrays_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    TestPredictions(LEDGER.digests, LEDGER.labels[:4], LEDGER.probabilities).write(
        tmp_path / "l.npz"
    )

    with pytest.raises(ValueError, match="length"):
        TestPredictions.parse((tmp_path / "l.npz").read_bytes())


def test_a_damaged_ledger_is_refused(tmp_path: Path) -> None:
    LEDGER.write(tmp_path / "l.npz")
    whole = (tmp_path / "l.npz").read_bytes()

    for damage in (b"", b"PK", whole[:50], whole[: len(whole) // 2], whole[:60] + whole[90:]):
        (tmp_path / "l.npz").write_bytes(damage)
        with pytest.raises(ValueError):
            TestPredictions.parse((tmp_path / "l.npz").read_bytes())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ledger") / "l.npz"
    LEDGER.write(path)
    return path


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=3))
def test_flipped_bytes_are_refused_or_change_nothing(
    written: Path, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(written.read_bytes())
    for at, value in changes:
        content[at % len(content)] = value
    damaged = written.with_name("damaged.npz")
    damaged.write_bytes(content)

    with contextlib.suppress(ValueError):
        found = TestPredictions.parse(damaged.read_bytes())
        np.testing.assert_array_equal(found.probabilities, LEDGER.probabilities)
