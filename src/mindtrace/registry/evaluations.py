"""Answers to other test sets: what `registry evaluate` kept with a version's run.

In: two versions. Out: their answers to one test set, where one of them was evaluated on
the test set of the other. A kept ledger is believed only as far as it says itself: the
digest of its images must be the one that was asked for.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from mindtrace.bundle.predictions import TestPredictions
from mindtrace.config.urls import file_path
from mindtrace.errors import BundleError, StoreError
from mindtrace.registry.compare import Side, ordered, read_side
from mindtrace.registry.reader import Reader
from mindtrace.registry.reference import Located

EVALUATIONS = "evaluations"


def read_sides(reader: Reader | None, a: Located, b: Located) -> tuple[Side, Side]:
    """Both versions' answers, to one test set where that can be had.

    Args:
        reader: of the store; None where both are folders.
        a: the first; its own test set is tried first.
        b: the second.

    Raises:
        BundleError: a bundle is not what was registered, or a kept ledger is damaged.
    """
    first, second = read_side(a), read_side(b)
    if first.test_digest == second.test_digest or reader is None:
        return first, second
    moved = _evaluated(reader, b, second, first.test_digest)
    if moved is not None:
        return first, moved
    return _evaluated(reader, a, first, second.test_digest) or first, second


def _evaluated(reader: Reader, located: Located, side: Side, test_digest: str) -> Side | None:
    """A version's answers to another test set; None if it was never asked."""
    content = _kept(reader, located, f"{test_digest}.npz")
    if content is None:
        return None
    try:
        ledger = TestPredictions.parse(content)
    except ValueError as error:
        raise BundleError(side.name, f"its evaluation: {error}") from error
    shape = (len(ledger.labels), len(side.class_names))
    if ledger.test_digest != test_digest or ledger.probabilities.shape != shape:
        raise BundleError(side.name, f"its evaluation on {test_digest[:12]} is about other images")
    return dataclasses.replace(side, test_digest=test_digest, ledger=ordered(ledger))


def _kept(reader: Reader, located: Located, name: str) -> bytes | None:
    """A file of the folder that stands beside the bundle in the version's run."""
    if located.row is None or located.row.location is None:
        return None
    beside = f"{located.row.location.rstrip('/').rpartition('/')[0]}/{EVALUATIONS}"
    local = file_path(beside)
    try:
        if local is not None:
            return (local / name).read_bytes()
        with tempfile.TemporaryDirectory(prefix="mindtrace-") as folder:
            reader.fetch(beside, Path(folder) / EVALUATIONS)
            return (Path(folder) / EVALUATIONS / name).read_bytes()
    except (FileNotFoundError, StoreError):
        return None
