"""Golden images: what a network said when it was trained, to be said again."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mindtrace.bundle.predictions import (
    GoldenCase,
    golden_from_json,
    golden_to_json,
    largest_difference,
)

CASES = tuple(GoldenCase(bytes([n]), np.array([n / 4, 1 - n / 4], np.float32)) for n in range(4))


def answer(shift: float, to: int = 2) -> object:
    def predict(image: bytes) -> np.ndarray:
        return CASES[image[0]].probabilities + np.float32(shift if image[0] == to else 0)

    return predict


def test_cases_come_back_bit_for_bit() -> None:
    exact = (GoldenCase(bytes(range(256)), np.array([1 / 3, 2e-38], np.float32)),)

    (found,) = golden_from_json(golden_to_json(exact))

    assert found.image == exact[0].image
    assert found.probabilities.tobytes() == exact[0].probabilities.tobytes()


def test_the_difference_is_the_largest_of_all_images() -> None:
    assert largest_difference(CASES, answer(0)) == 0
    assert largest_difference(CASES, answer(-0.25)) == 0.25
    assert largest_difference(CASES, answer(1e-3, to=3)) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_answer_that_is_no_number_is_infinitely_wrong(value: float) -> None:
    assert largest_difference(CASES, answer(value, to=0)) == math.inf


def test_a_record_that_is_no_number_is_infinitely_wrong() -> None:
    nonsense = (*CASES[:3], GoldenCase(b"\3", np.array([math.nan, 1], np.float32)))

    assert largest_difference(nonsense, answer(0)) == math.inf


def test_another_number_of_classes_is_infinitely_wrong() -> None:
    assert largest_difference(CASES, lambda image: np.zeros(3, np.float32)) == math.inf
    assert largest_difference(CASES, lambda image: np.zeros((1, 2), np.float32)) == math.inf


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
        golden_from_json(text)
