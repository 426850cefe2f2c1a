"""PROMOTE, REJECT or HOLD: what the numbers of a comparison mean."""

from __future__ import annotations

import pytest

from mindtrace.registry.comparison import ClassChange, decide


def change(n: int, right_a: int, right_b: int) -> ClassChange:
    return ClassChange(0, "cat", n, right_a / n, right_b / n, (right_b - right_a) / n)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.01, 0.02, "PROMOTE"),  # the edge belongs to the challenger
        (0.02, 0.05, "PROMOTE"),
        (-0.0101, 0.02, "HOLD"),
        (-0.03, -0.01, "HOLD"),
        (-0.03, -0.0101, "REJECT"),
        (-0.5, -0.4, "REJECT"),
    ],
)
def test_the_interval_decides(low: float, high: float, verdict: str) -> None:
    assert decide((low, high), [change(10, 5, 5)])[0] == verdict


def test_a_wider_margin_lets_more_pass() -> None:
    assert decide((-0.04, 0.02), (), 0.01)[0] == "HOLD"
    assert decide((-0.04, 0.02), (), 0.04)[0] == "PROMOTE"
    assert decide((-0.001, 0.02), (), 0.0)[0] == "HOLD"


@pytest.mark.parametrize(
    ("n", "right_a", "right_b", "verdict"),
    [
        (20, 20, 19, "PROMOTE"),  # 0.05 exactly, which floats do not say
        (40, 39, 37, "PROMOTE"),
        (100, 90, 84, "REJECT"),
        (19, 19, 18, "REJECT"),
    ],
)
def test_no_class_may_fall_by_more_than_a_twentieth(
    n: int, right_a: int, right_b: int, verdict: str
) -> None:
    found, reasons = decide((0.0, 0.1), [change(n, right_a, right_b), change(5, 1, 5)])
    assert found == verdict
    assert ("class cat falls" in reasons[0]) == (verdict == "REJECT")


def test_a_class_that_falls_rejects_what_would_be_held() -> None:
    assert decide((-0.1, 0.1), [change(10, 9, 7)])[0] == "REJECT"


def test_a_class_without_images_decides_nothing() -> None:
    assert decide((0.0, 0.1), [ClassChange(0, "cat", 0, None, None, None)])[0] == "PROMOTE"


def test_every_reason_is_told() -> None:
    verdict, reasons = decide((-0.3, -0.2), [change(10, 9, 7), change(10, 9, 1)])
    assert verdict == "REJECT"
    assert len(reasons) == 3
