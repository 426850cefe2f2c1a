"""`golden.json`: a few test images and the answers the trained network gave.

In: a function from an image file's bytes to probabilities. Out: the largest
difference to what the network said when it was trained. A version whose answers have
moved by more than `TOLERANCE` is refused by whoever loads it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GOLDEN_COUNT = 16
# float32 sums in another order move a probability by about 1e-6; a wrong
# preprocessing or a damaged weight moves it by far more.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class GoldenCase:
    """One image and its answer.

    Attributes:
        image: an encoded image file.
        probabilities: float32, (classes,), by the network's own float32 weights.
    """

    image: bytes
    probabilities: NDArray[np.float32]


def to_json(cases: Sequence[GoldenCase]) -> str:
    """The text of `golden.json`."""
    rows = [
        {
            "image": base64.b64encode(case.image).decode("ascii"),
            "probabilities": [float(value) for value in case.probabilities],
        }
        for case in cases
    ]
    return json.dumps({"cases": rows}) + "\n"


def from_json(text: str) -> tuple[GoldenCase, ...]:
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
