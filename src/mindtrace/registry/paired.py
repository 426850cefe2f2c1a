"""Statistics of two classifiers on the same images.

In: how many images only one of the two gets right. Out: an interval of the difference of
their accuracies, a p value, and the smallest difference that so many images could show.
"""

from __future__ import annotations

import math

import numpy as np

_RESAMPLES = 10_000
_SEED = 0
# Quantiles of the normal distribution at 0.975 and 0.8.
_TWO_SIDED_5_PERCENT = 1.959963984540054
_POWER_80_PERCENT = 0.8416212335729143
# 2 * 0.5**6 < 0.05 < 2 * 0.5**5: fewer changed images prove nothing, whichever way.
_FEWEST = 6


def bootstrap_interval(images: int, gained: int, lost: int) -> tuple[float, float]:
    """95 % interval of the difference of accuracies, by a paired bootstrap.

    An image adds 1, -1 or 0 to the difference, and drawing images with replacement draws
    how many of each there are from a multinomial distribution: the same bootstrap, without
    touching an image.

    Args:
        images: of the test set, 1 or more.
        gained: only the second classifier is right.
        lost: only the first is right.

    Returns:
        The quantiles 0.025 and 0.975.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    shares = np.array([gained, lost, images - gained - lost]) / images
    drawn = np.random.default_rng(_SEED).multinomial(images, shares, size=_RESAMPLES)
    differences = (drawn[:, 0] - drawn[:, 1]) / images
    low, high = np.quantile(differences, [0.025, 0.975])
    return float(low), float(high)


def mcnemar_p(gained: int, lost: int) -> float:
    """Two-sided exact p value: would a fair coin share the changed images like this?

    Args:
        gained: only the second classifier is right.
        lost: only the first is right.

    Returns:
        1.0 where nothing changed.

    Source: McNemar, Psychometrika 12 (1947) 153; its exact form is the binomial test.
    """
    changed = gained + lost
    term = total = 1  # comb(changed, 0)
    for count in range(1, min(gained, lost) + 1):
        term = term * (changed - count + 1) // count
        total += term
    return float(min(1.0, 2 * total / 2**changed))


def minimum_detectable(images: int, gained: int, lost: int) -> float:
    """The smallest difference of accuracies that this test set shows four times in five.

    At 5 % two-sided, taking the share of changed images as it is here. With n images and a
    share s, the difference d solves `sqrt(n) d = z1 sqrt(s) + z2 sqrt(s - d**2)`, z1 = 1.96,
    z2 = 0.84; but fewer than 6 changed images never reach 5 %, so it is at least 6 / n.

    Args:
        images: of the test set, 1 or more.
        gained: only the second classifier is right.
        lost: only the first is right.

    Returns:
        A difference between 0 and 1.

    Source: Connor, Biometrics 43 (1987) 207, solved for the difference.
    """
    share = (gained + lost) / images
    first, second = _TWO_SIDED_5_PERCENT, _POWER_80_PERCENT
    half = first * math.sqrt(share * images)
    whole = images + second**2
    root = math.sqrt(max(0.0, half**2 - whole * share * (first**2 - second**2)))
    return min(1.0, max((half + root) / whole, _FEWEST / images))
