"""Learning rates by optimizer step."""

from __future__ import annotations

import math
from collections.abc import Callable

WARM_UP = 0.3
START_DIVISOR = 25.0
END_DIVISOR = 1e4


def one_cycle(peak: float, total_steps: int) -> Callable[[int], float]:
    """Up to `peak` over the first 30 % of the steps, then down to almost nothing.

    Both flanks are half cosines. A step beyond the last keeps the last rate.

    Source: Smith and Topin, "Super-Convergence: Very Fast Training of Neural Networks
    Using Large Learning Rates" (2018), with the constants of torch's OneCycleLR.
    """
    rise = max(1.0, WARM_UP * total_steps - 1)
    fall = max(1.0, total_steps - 1 - rise)
    start, end = peak / START_DIVISOR, peak / START_DIVISOR / END_DIVISOR

    def rate(step: int) -> float:
        if step <= rise:
            return _cosine(start, peak, step / rise)
        return _cosine(peak, end, min(1.0, (step - rise) / fall))

    return rate


def _cosine(begin: float, end: float, fraction: float) -> float:
    return end + (begin - end) / 2 * (1 + math.cos(math.pi * fraction))
