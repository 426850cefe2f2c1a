"""`predictions.npz`: what a version said of each image of the frozen test set.

Two versions with one test digest can be compared image by image from their ledgers
alone, without the images and without running a model again.
"""

from __future__ import annotations

import hashlib
import io
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
class Ledger:
    """The test set in its own order.

    Attributes:
        digests: uint8, (images, 32), the SHA-256 of each image.
        labels: int64, (images,), the true classes.
        probabilities: float32, (images, classes).
    """

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
    def parse(cls, content: bytes) -> Ledger:
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
