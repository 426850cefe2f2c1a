"""May the challenger become champion? Numbers come in, a verdict with its reasons goes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PROMOTE, REJECT, HOLD = "PROMOTE", "REJECT", "HOLD"
MARGIN = 0.01
CLASS_MARGIN = 0.05
# Shares of whole images that are equal on paper must be equal here.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class ClassChange:
    """What changed in one class.

    Attributes:
        label: index of the class.
        class_name: its name.
        n: test images of it.
        acc_a: share of them that the first version gets right; None without images.
        acc_b: the second's.
        diff: `acc_b - acc_a`.
    """

    label: int
    class_name: str
    n: int
    acc_a: float | None
    acc_b: float | None
    diff: float | None


def decide(
    interval: tuple[float, float], classes: Sequence[ClassChange], margin: float = MARGIN
) -> tuple[str, tuple[str, ...]]:
    """The gate.

    REJECT if a class falls by more than 0.05, or the challenger is worse by more than the
    margin even at the upper end of the interval; PROMOTE if it is not worse by more than the
    margin even at the lower end; else HOLD, for this test set cannot tell.

    Args:
        interval: of the difference of accuracies, challenger minus champion.
        classes: what changed in each.
        margin: how much worse is still as good.

    Returns:
        `PROMOTE`, `REJECT` or `HOLD`, and the reasons, one line each.
    """
    low, high = interval
    fallen = tuple(
        f"class {one.class_name} falls from {one.acc_a:.4f} to {one.acc_b:.4f}, "
        f"more than {CLASS_MARGIN} ({one.n} images)"
        for one in classes
        if one.diff is not None and one.diff < -CLASS_MARGIN - _ROUNDING
    )
    found = f"the difference lies between {low:+.4f} and {high:+.4f}"
    if high < -margin - _ROUNDING:
        return REJECT, (f"{found}, below -{margin}", *fallen)
    if fallen:
        return REJECT, fallen
    if low >= -margin - _ROUNDING:
        return PROMOTE, (f"{found}, not below -{margin}",)
    return HOLD, (f"{found}: this test set cannot tell whether it is below -{margin}",)
