"""What a version answered to its golden and its test images, kept in its bundle."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

GOLDEN_COUNT = 16
# float32 sums in another order move a probability by about 1e-6; a wrong
# preprocessing or a damaged weight moves it by far more.
GOLDEN_TOLERANCE = 1e-4


@dataclass(frozen=True)
class GoldenCase:
    """One image and its answer.

    Attributes:
        image: an encoded image file.
        probabilities: float32, (classes,), by the network's own float32 weights.
    """

    image: bytes
    probabilities: NDArray[np.float32]


def golden_to_json(cases: Sequence[GoldenCase]) -> str:
    """The text of `golden.json`."""
    rows = [
        {
            "image": base64.b64encode(case.image).decode("ascii"),
            "probabilities": [float(value) for value in case.probabilities],
        }
        for case in cases
    ]
    return json.dumps({"cases": rows}) + "\n"


def golden_from_json(text: str) -> tuple[GoldenCase, ...]:
    """Read `golden.json`.

    Raises:
        ValueError: not what `to_json` writes.
    """
    try:
        return tuple(
            GoldenCase(
                base64.b64decode(row["image"], validate=True),
                np.asarray(row["probabilities"], np.float32),
            )
            for row in json.loads(text)["cases"]
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"golden.json cannot be read: {error!r}") from error


def largest_difference(
    cases: Sequence[GoldenCase], predict: Callable[[bytes], NDArray[np.float32]]
) -> float:
    """How far `predict` is from the recorded answers, over all images and classes.

    Returns:
        A difference of probabilities; infinity if shapes differ or a value is no number.
    """
    worst = 0.0
    for case in cases:
        found = predict(case.image)
        if found.shape != case.probabilities.shape:
            return float("inf")
        difference = float(np.abs(found - case.probabilities).max())
        if not np.isfinite(difference):
            return float("inf")
        worst = max(worst, difference)
    return worst


# What NumPy's reader raises on damaged files, found by feeding it such files.
_DAMAGE = (
    KeyError,
    TypeError,
    EOFError,
    RuntimeError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class TestPredictions:
    """The test set in its own order.

    Attributes:
        digests: uint8, (images, 32), the SHA-256 of each image.
        labels: int64, (images,), the true classes.
        probabilities: float32, (images, classes).
    """

    __test__: ClassVar[bool] = False  # pytest collects classes by this name

    digests: NDArray[np.uint8]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @property
    def test_digest(self) -> str:
        """Of the test set that these answers are about; hexadecimal."""
        rows = zip(self.digests, self.labels.tolist(), strict=True)
        return pairs_digest((digest.tobytes(), label) for digest, label in rows)

    def write(self, path: Path) -> None:
        """Write the arrays, compressed, without pickle."""
        np.savez_compressed(
            path, digests=self.digests, labels=self.labels, probabilities=self.probabilities
        )

    @classmethod
    def parse(cls, content: bytes) -> TestPredictions:
        """Read the bytes of what `write` wrote.

        Raises:
            ValueError: damaged; an array is missing, pickled, or does not fit the others.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                ledger = cls(arrays["digests"], arrays["labels"], arrays["probabilities"])
        except _DAMAGE as error:
            raise ValueError(f"predictions.npz cannot be read: {error!r}") from error
        if not len(ledger.digests) == len(ledger.labels) == len(ledger.probabilities):
            raise ValueError("predictions.npz: its arrays differ in length")
        return ledger


def pairs_digest(pairs: Iterable[tuple[bytes, int]]) -> str:
    """SHA-256 over the sorted (image digest, label) pairs; a label is 8 bytes, little-endian."""
    words = sorted(digest + struct.pack("<q", label) for digest, label in pairs)
    return hashlib.sha256(b"".join(words)).hexdigest()
