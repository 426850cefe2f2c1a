"""A version's answers: to its golden images and to each image of its frozen test set."""

import hashlib
import io
import json
import math
import struct
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

GOLDEN_COUNT = 16
# float32 sums in another order move a probability by about 1e-6; a wrong
# preprocessing or a damaged weight moves it by far more.
GOLDEN_TOLERANCE = 1e-4


@dataclass(frozen=True)
class GoldenCase:
    """An encoded test image and its probabilities, float32 (classes,), by float32 weights."""

    image: bytes
    probabilities: NDArray[np.float32]


def golden_json(cases: Sequence[GoldenCase]) -> str:
    """The text of `golden.json`."""
    rows = [
        {"image": b64encode(one.image).decode(), "probabilities": one.probabilities.tolist()}
        for one in cases
    ]
    return json.dumps({"cases": rows}) + "\n"


def read_golden(text: str) -> tuple[GoldenCase, ...]:
    """Read `golden.json`; ValueError if it is not what `golden_json` writes."""
    try:
        rows = [(one["image"], one["probabilities"]) for one in json.loads(text)["cases"]]
        return tuple(
            GoldenCase(b64decode(image, validate=True), np.asarray(probabilities, np.float32))
            for image, probabilities in rows
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"golden.json cannot be read: {error!r}") from error


def largest_difference(
    cases: Sequence[GoldenCase], predict: Callable[[bytes], NDArray[np.float32]]
) -> float:
    """Largest difference of a probability; infinity if shapes differ or a value is NaN."""
    differences = [0.0]
    for case in cases:
        found = predict(case.image)
        fits = found.shape == case.probabilities.shape
        differences.append(float(np.abs(found - case.probabilities).max()) if fits else math.inf)
    return math.inf if any(map(math.isnan, differences)) else max(differences)


@dataclass(frozen=True)
class TestPredictions:
    """Answers to the test set: rows of image digest (SHA-256), true label, probabilities."""

    __test__: ClassVar[bool] = False  # pytest collects classes by this name

    digests: NDArray[np.uint8]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    # Of the training images, uint8 (n, 32); None in a bundle made before they were kept.
    train_digests: NDArray[np.uint8] | None = None

    @property
    def test_digest(self) -> str:
        """The digest of the test set that was answered, hexadecimal."""
        rows = zip(self.digests, self.labels.tolist(), strict=True)
        return pairs_digest((digest.tobytes(), label) for digest, label in rows)

    @property
    def keys(self) -> list[tuple[bytes, int, int]]:
        """Of each row the digest, the label, and how many equal rows come before it."""
        before: Counter[tuple[bytes, int]] = Counter()
        found = []
        for digest, label in zip(self.digests, self.labels.tolist(), strict=True):
            pair = (digest.tobytes(), label)
            found.append((*pair, before[pair]))
            before[pair] += 1
        return found

    def rows(self, chosen: Sequence[int] | NDArray[Any]) -> Self:
        """These rows alone, by index or mask."""
        kept = {name: getattr(self, name)[chosen] for name in ("digests", "labels")}
        return replace(self, **kept, probabilities=self.probabilities[chosen])

    def write(self, path: Path) -> None:
        """Write the arrays, compressed, without pickle."""
        arrays = {name: array for name, array in vars(self).items() if array is not None}
        np.savez_compressed(path, **arrays)

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read what `write` wrote; ValueError if it is damaged, pickled or inconsistent."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                train = arrays.get("train_digests")
                found = cls(arrays["digests"], arrays["labels"], arrays["probabilities"], train)
        except Exception as error:  # NumPy's reader raises many kinds on damaged files
            raise ValueError(f"predictions.npz cannot be read: {error!r}") from error
        if not len(found.digests) == len(found.labels) == len(found.probabilities):
            raise ValueError("predictions.npz: its arrays differ in length")
        if train is not None and (train.dtype, *train.shape[1:]) != (np.uint8, 32):
            raise ValueError("predictions.npz: its train_digests are no digests")
        return found


def class_metrics(confusion: NDArray[np.int64]) -> dict[str, float]:
    """`balanced_accuracy` and `f1_macro` of counts; rows are true classes, columns answers."""
    # Means of recall and of F1 over the classes that have images. Source: Sokolova and Lapalme,
    # Information Processing & Management 45 (2009) 427.
    right, called, real = np.diag(confusion), confusion.sum(0), confusion.sum(1)
    there = real > 0
    recall, f1 = right[there] / real[there], 2 * right[there] / (called + real)[there]
    return {"balanced_accuracy": float(recall.mean()), "f1_macro": float(f1.mean())}


def digest_rows(digests: Iterable[bytes]) -> NDArray[np.uint8]:
    """SHA-256 digests as an array, (n, 32)."""
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def pairs_digest(pairs: Iterable[tuple[bytes, int]]) -> str:
    """SHA-256 over the sorted (image digest, label) pairs; a label is 8 bytes, little-endian."""
    words = sorted(digest + struct.pack("<q", label) for digest, label in pairs)
    return hashlib.sha256(b"".join(words)).hexdigest()
