"""Room data: labels and a seed come in, which images are held out comes out.

A draw keeps the share of each class and depends on the labels and the generator
only, so the same `split_seed` gives the same validation and test images whatever
the training's own seed is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mindtrace.errors import UsageError


def seeded(split_seed: int) -> torch.Generator:
    """The generator of all draws of one split."""
    return torch.Generator().manual_seed(split_seed)


def count_of(amount: int | float, total: int, key: str) -> int:
    """How many of `total` images an `amount` is: a number of them, or a fraction.

    Args:
        amount: int for images; float in (0, 1) for a fraction, at least one image.
        total: how many there are.
        key: the configuration key to name in an error.

    Returns:
        From 1 to total - 1.

    Raises:
        UsageError: fewer than one image, or none left for training.
    """
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
    """Draw `amount` images, from each class its share.

    A class keeps its last image: what is drawn can be judged only by a network that
    has seen the class. Where that leaves too few, fewer are drawn.

    Args:
        labels: int64, (n,).
        amount: how many to draw.
        generator: moved on by one permutation of n.

    Returns:
        The drawn indices and the rest, each int64 and ascending.
    """
    shuffled = torch.randperm(len(labels), generator=generator)
    counts = torch.bincount(labels).tolist()
    by_class = shuffled[torch.argsort(labels[shuffled], stable=True)]
    taken = torch.zeros(len(labels), dtype=torch.bool)
    shares = _shares(counts, amount)
    for members, share in zip(torch.split(by_class, counts), shares, strict=True):
        taken[members[:share]] = True
    return taken.nonzero().flatten(), (~taken).nonzero().flatten()


def hold_out(
    labels: Tensor, pool: Tensor, amount: int | float, key: str, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw from a part of the images.

    Args:
        labels: int64, (n,), of all images.
        pool: int64, the indices to draw from.
        amount: see `count_of`.
        key: see `count_of`.
        generator: see `draw`.

    Returns:
        The indices held out and those that stay.
    """
    drawn, rest = draw(labels[pool], count_of(amount, len(pool), key), generator)
    return pool[drawn], pool[rest]


def _shares(counts: list[int], amount: int) -> list[int]:
    """How many to draw of each class: the quotas, rounded so that they add up to `amount`."""
    total = sum(counts)
    quotas = [amount * count / total for count in counts]
    ceilings = [max(count - 1, 0) for count in counts]
    enough = amount >= sum(ceiling > 0 for ceiling in ceilings)
    floors = [min(int(enough), ceiling) for ceiling in ceilings]
    shares = [
        min(max(int(quota), floor), ceiling)
        for quota, floor, ceiling in zip(quotas, floors, ceilings, strict=True)
    ]
    classes = range(len(counts))
    amount = min(amount, sum(ceilings))
    while sum(shares) < amount:
        open_ = [c for c in classes if shares[c] < ceilings[c]]
        shares[max(open_, key=lambda c: quotas[c] - shares[c])] += 1
    while sum(shares) > amount:
        open_ = [c for c in classes if shares[c] > floors[c]]
        shares[min(open_, key=lambda c: quotas[c] - shares[c])] -= 1
    return shares
