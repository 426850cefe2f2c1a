"""The gate: whether a version may replace another one, and every number that decides it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

PROMOTE, REJECT, HOLD = "PROMOTE", "REJECT", "HOLD"
CHAIN = 10  # champions that a challenger may not fall behind

# Shares of whole images that are equal on paper must be equal here.
_ROUNDING = 1e-9
_LEVEL = 0.05
_RESAMPLES = 10_000
_CHUNK = 4_000_000  # numbers that are drawn at once
_SEED = 0
# Quantiles of the normal distribution at 0.975 and 0.8.
_TWO_SIDED_5_PERCENT = 1.959963984540054
_POWER_80_PERCENT = 0.8416212335729143
# 2 * 0.5**6 < 0.05 < 2 * 0.5**5: fewer changed images are never significant.
_FEWEST = 6
_MOST_IMAGES = 100_000_000


@dataclass(frozen=True)
class Rule:
    """What counts as equal: a loss of `margin` in the metric, of `class_margin` in a class."""

    metric: str = "accuracy"
    margin: float = 0.01
    class_margin: float = 0.05


@dataclass(frozen=True)
class ClassChange:
    """Accuracies of both versions in one class; None without images of it."""

    label: int
    class_name: str
    n: int
    acc_a: float | None
    acc_b: float | None
    diff: float | None
    mcnemar_p: float = 1.0


class Answers:
    """Two versions' answers to one test set, counted by (label, answer of a, answer of b)."""

    def __init__(self, cells: NDArray[np.int64], counts: NDArray[np.float64], metric: str) -> None:
        self.cells, self.counts, self.metric = cells, counts, metric

    @classmethod
    def of(
        cls, labels: NDArray[np.int64], a: NDArray[np.int64], b: NDArray[np.int64], metric: str
    ) -> Self:
        """The answers that each version gave, by image."""
        rows = np.stack([labels, a, b], axis=1)
        if metric == "accuracy":  # right or wrong is all that counts
            rows = (rows != labels[:, None]).astype(np.int64)
        cells, counts = np.unique(rows, axis=0, return_counts=True)
        return cls(cells, counts.astype(float), metric)

    def scores(self) -> tuple[float, float]:
        """The metric of both versions."""
        counts = self.counts[None]
        return float(self._score(counts, 1)[0]), float(self._score(counts, 2)[0])

    def interval(self, resamples: int = _RESAMPLES) -> tuple[float, float]:
        """95 % interval of the difference of the metric by a paired bootstrap."""
        # Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
        # Drawing images with replacement draws how many of each cell there are from a multinomial
        # distribution: the same bootstrap, without the images.
        more = self._with_pairs()
        images, random = round(more.counts.sum()), np.random.default_rng(_SEED)
        shares, size = more.counts / more.counts.sum(), max(1, _CHUNK // len(more.counts))
        found = []
        for start in range(0, resamples, size):
            drawn = random.multinomial(images, shares, size=min(size, resamples - start))
            found.append(more._score(drawn, 2) - more._score(drawn, 1))
        low, high = np.quantile(np.concatenate(found), [0.025, 0.975])
        return float(low), float(high)

    def images_needed(self, margin: float) -> int | None:
        """From how many test images on equal models that change as much could be promoted."""
        cells = np.concatenate([self.cells, self.cells[:, [0, 2, 1]]])
        shares = np.concatenate([self.counts, self.counts]) / (2 * self.counts.sum())
        count = float(self.counts.sum())
        for _ in range(8):
            # The interval shrinks with the images, or with their root: it ends up near the margin.
            equal = Answers(cells, shares * count, self.metric)
            width = -equal.interval(_RESAMPLES // 5)[0]
            count = min(count * (width / max(margin, _ROUNDING)) ** (4 / 3), _MOST_IMAGES)
        return round(count) if count < _MOST_IMAGES else None

    def _with_pairs(self) -> Self:
        """One image more in each class that only a, and one that only b gets right."""
        # Without any change the interval would shrink to nothing.
        classes = max(2, int(self.cells.max()) + 1)
        there = np.unique(self.cells[:, 0])
        wrong = (there + 1) % classes
        cells = (self.cells, np.stack([there, wrong, there], 1), np.stack([there, there, wrong], 1))
        counts = np.concatenate([self.counts, np.ones(2 * len(there))])
        return type(self)(np.concatenate(cells), counts, self.metric)

    def _score(self, drawn: NDArray[np.floating | np.integer], side: int) -> NDArray[np.float64]:
        """The metric of one version (1 or 2) in each row of counts by cell."""
        labels, answers = self.cells[:, 0], self.cells[:, side]
        right = (labels == answers).astype(float)
        if self.metric == "accuracy":
            return np.asarray(drawn @ right / drawn.sum(axis=1))
        one = np.eye(int(self.cells.max()) + 1)
        real, hits = drawn @ one[labels], drawn @ (one[labels] * right[:, None])
        whole = real if self.metric == "balanced_accuracy" else (drawn @ one[answers] + real) / 2
        parts = np.divide(hits, whole, out=np.zeros_like(hits), where=real > 0)
        return np.asarray(parts.sum(axis=1) / (real > 0).sum(axis=1))


def decide(
    rule: Rule,
    interval: tuple[float, float],
    classes: Sequence[ClassChange] = (),
    answers: Answers | None = None,
) -> tuple[str, tuple[str, ...]]:
    """The verdict on b as challenger of a and its reasons, one line each."""
    low, high = interval
    what = "" if rule.metric == "accuracy" else f" of {rule.metric}"
    found = f"the difference{what} lies between {low:+.4f} and {high:+.4f}"
    fallen = fallen_classes(classes, rule.class_margin)
    if high < 0 or fallen:
        return REJECT, ((f"worse: {found}",) if high < 0 else ()) + fallen
    if low > 0:
        return PROMOTE, (f"better: {found}",)
    margin = points(rule.margin)
    if low >= -rule.margin - _ROUNDING:
        return PROMOTE, (f"not worse than {margin}: {found}",)
    reasons = [f"cannot tell whether it is worse than {margin}: {found}"]
    needed = None if answers is None else answers.images_needed(rule.margin)
    if needed is not None and answers is not None:
        many = f"from about {needed:,} test images on; these are {answers.counts.sum():,.0f}"
        reasons.append(f"equal models could be promoted at this margin {many}")
    return HOLD, tuple(reasons)


def fallen_classes(classes: Sequence[ClassChange], margin: float) -> tuple[str, ...]:
    """A line for each class that falls significantly by more than `margin`."""
    # Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65.
    tested = sorted((one for one in classes if one.n), key=lambda one: one.mcnemar_p)
    lines = []
    for rank, one in enumerate(tested):
        if one.mcnemar_p > _LEVEL / (len(tested) - rank):
            break
        if one.diff is not None and one.diff < -margin - _ROUNDING:
            fall = f"class {one.class_name} falls from {one.acc_a:.4f} to {one.acc_b:.4f}"
            tested_on = f"({one.n} images, p = {one.mcnemar_p:.2g})"
            lines.append(f"{fall}, more than {points(margin)} {tested_on}")
    return tuple(lines)


def falls_behind(interval: tuple[float, float], margin: float) -> bool:
    """Whether it is worse by more than the margin, which no chain of promotions may come to."""
    return interval[1] < -margin - _ROUNDING


def points(share: float) -> str:
    """A share in words: 0.01 is 1 point."""
    number = f"{100 * share:.4g}"
    return f"{number} point" if number == "1" else f"{number} points"


def mcnemar_p(gained: int, lost: int) -> float:
    """Two-sided exact p value that changed images are shared like this; 1.0 without changes."""
    # Source: McNemar, Psychometrika 12 (1947) 153; its exact form is the binomial test.
    changed = gained + lost
    term = total = 1  # comb(changed, 0)
    for count in range(1, min(gained, lost) + 1):
        term = term * (changed - count + 1) // count
        total += term
    return float(min(1.0, 2 * total / 2**changed))


def minimum_detectable(images: int, gained: int, lost: int) -> float:
    """The smallest difference of accuracies that this test set shows four times in five."""
    # At 5 % two-sided, with the share of changed images as it is here. With n images and a share s,
    # the difference d solves `sqrt(n) d = z1 sqrt(s) + z2 sqrt(s - d**2)`, z1 = 1.96, z2 = 0.84.
    # Source: Connor, Biometrics 43 (1987) 207, solved for the difference.
    share = (gained + lost) / images
    first, second = _TWO_SIDED_5_PERCENT, _POWER_80_PERCENT
    half = first * math.sqrt(share * images)
    whole = images + second**2
    root = math.sqrt(max(0.0, half**2 - whole * share * (first**2 - second**2)))
    return min(1.0, max((half + root) / whole, _FEWEST / images))
