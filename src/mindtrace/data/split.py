"""Draws validation and test images from labels and `split_seed` alone, keeping class shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from mindtrace.errors import UsageError

Stage = Literal["train", "val", "test"]
STAGES: tuple[Stage, ...] = ("train", "val", "test")


def divide(
    labels: Tensor,
    counts: Mapping[Stage, int],
    *,
    split_seed: int,
    test_fraction: float,
    num_val: int | float,
    num_train: int | None = None,
) -> dict[Stage, Tensor]:
    """The indices of each stage: parts that the source has are kept, the others are drawn."""
    # Test images are drawn first, then validation images, then `num_train` of the rest.
    generator = seeded(split_seed)
    parts = torch.split(torch.arange(len(labels)), list(counts.values()))
    division = dict(zip(counts, parts, strict=True))
    amounts: list[tuple[Stage, int | float, str]] = [
        ("test", test_fraction, "test_fraction"),
        ("val", num_val, "num_val"),
    ]
    for stage, amount, key in amounts:
        if stage not in division:
            pool = division["train"]
            drawn, rest = draw(labels[pool], count_of(amount, len(pool), key), generator)
            division[stage], division["train"] = pool[drawn], pool[rest]
    if num_train is not None:
        pool = division["train"]
        if not 1 <= num_train <= len(pool):
            raise UsageError(
                f"num_train = {num_train:,} and num_val = {len(division['val']):,}: "
                f"there are {counts['train']:,} training images"
            )
        _, rest = draw(labels[pool], len(pool) - num_train, generator)
        division["train"] = pool[rest]
    return division


def seeded(split_seed: int) -> torch.Generator:
    """The generator of all draws of one split."""
    return torch.Generator().manual_seed(split_seed)


def count_of(amount: int | float, total: int, key: str) -> int:
    """How many of `total` images an `amount` is: a number of them, or a fraction below 1."""
    if isinstance(amount, float) and amount < 1:
        count = max(1, round(amount * total)) if amount > 0 else 0
    else:
        count = int(amount)
    if not 0 < count < total:
        raise UsageError(
            f"[data] {key} = {amount}: of {total:,} images it must leave some and take some",
            hint=f"give a number from 1 to {total - 1}, or a fraction such as 0.1",
        )
    return count


def draw(labels: Tensor, amount: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw `amount` images, from each class its share: their indices and the rest, ascending."""
    # A class keeps its last image: only a network that has seen the class can judge it.
    shuffled = torch.randperm(len(labels), generator=generator)
    counts = torch.bincount(labels).tolist()
    by_class = shuffled[torch.argsort(labels[shuffled], stable=True)]
    taken = torch.zeros(len(labels), dtype=torch.bool)
    shares = _shares(counts, amount)
    for members, share in zip(torch.split(by_class, counts), shares, strict=True):
        taken[members[:share]] = True
    return taken.nonzero().flatten(), (~taken).nonzero().flatten()


def _shares(counts: list[int], amount: int) -> list[int]:
    """How many to draw of each class: the quotas, rounded so that they add up to `amount`."""
    total = sum(counts)
    quotas = [amount * count / total for count in counts]
    maxima = [max(count - 1, 0) for count in counts]
    enough = amount >= sum(maximum > 0 for maximum in maxima)
    minima = [min(int(enough), maximum) for maximum in maxima]
    shares = [
        min(max(int(quota), minimum), maximum)
        for quota, minimum, maximum in zip(quotas, minima, maxima, strict=True)
    ]
    classes = range(len(counts))
    amount = min(amount, sum(maxima))
    while sum(shares) < amount:
        open_ = [c for c in classes if shares[c] < maxima[c]]
        shares[max(open_, key=lambda c: quotas[c] - shares[c])] += 1
    while sum(shares) > amount:
        open_ = [c for c in classes if shares[c] > minima[c]]
        shares[min(open_, key=lambda c: quotas[c] - shares[c])] -= 1
    return shares
