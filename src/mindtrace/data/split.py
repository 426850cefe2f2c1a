"""Which images train, validate and test: each drawn by itself, or so many of all."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor

from mindtrace.bundle.bundle import EARLIER_RULE
from mindtrace.data.listing import STAGES, Stage
from mindtrace.errors import UsageError, listed

# How a split is drawn, as bundles and checkpoints name it.
BY_IMAGE, BY_COUNT = "image", EARLIER_RULE  # which the MNIST kinds and digits keep
#: The keys of `[data]` that say how much to draw, by stage; test is drawn first.
KEYS: Mapping[Stage, str] = {"test": "test_fraction", "val": "num_val"}


@dataclass(frozen=True)
class Division:
    """The indices of each stage, ascending; those in `moved` gave a stage a class it lacked."""

    parts: Mapping[Stage, Tensor]
    moved: Sequence[tuple[Stage, int]] = ()

    def notes(self, name: Callable[[int], str]) -> tuple[str, ...]:
        """One line on what was moved, with the names of the images."""
        moved = listed([f"{name(index)} to {stage}" for stage, index in self.moved])
        return (f"moved, as its class had no image there: {moved}",) if self.moved else ()


def made_by(given: Collection[Stage], who: str) -> dict[Stage, str]:
    """Who made each split: `who` those that were given, else `mindtrace`."""
    # Of train alone, everything is drawn.
    return {one: who if one in given and len(given) > 1 else "mindtrace" for one in STAGES}


@dataclass(eq=False)
class _Unit:
    """Images that never part: identical ones, or a group."""

    number: float  # [0, 1), from the key and split_seed alone
    stage: Stage
    members: dict[int, list[int]] = field(default_factory=dict)  # indices by label


def divide_by_image(
    labels: Tensor,
    counts: Mapping[Stage, int],
    keys: Sequence[bytes],
    *,
    shares: Mapping[Stage, float],
    split_seed: int,
    num_train: int | None = None,
) -> Division:
    """Keep the parts that the source has, draw the others: images of equal `keys` stay together."""
    parts = _given_parts(counts)
    stages = [stage for stage in STAGES if stage == "train" or stage in shares]
    ends = dict(zip(shares, accumulate(shares.values()), strict=True))
    units: dict[bytes, _Unit] = {}
    for index, label in zip(parts["train"].tolist(), labels[parts["train"]].tolist(), strict=True):
        key = keys[index]
        if key not in units:
            digest = hashlib.sha256(b"%d:%b" % (split_seed, key)).digest()
            number = int.from_bytes(digest[:6], "big") / 2**48
            own: Stage = next((one for one, end in ends.items() if number < end), "train")
            units[key] = _Unit(number, own)
        units[key].members.setdefault(label, []).append(index)
    ordered = [units[key] for key in sorted(units, key=lambda key: (units[key].number, key))]
    moved = _fill(ordered, stages)
    for stage in stages:
        drawn = [unit.members.values() for unit in ordered if unit.stage == stage]
        parts[stage] = torch.tensor(sorted(i for own in drawn for some in own for i in some)).long()
    generator = torch.Generator().manual_seed(split_seed)
    return Division(_limited(parts, labels, num_train, generator), moved)


def _given_parts(counts: Mapping[Stage, int]) -> dict[Stage, Tensor]:
    ends = torch.arange(sum(counts.values()))
    return dict(zip(counts, torch.split(ends, list(counts.values())), strict=True))


def _fill(units: Sequence[_Unit], stages: Sequence[Stage]) -> list[tuple[Stage, int]]:
    """Give each stage, as far as there are enough, an image of each class that it lacks."""
    by_class: defaultdict[int, list[_Unit]] = defaultdict(list)
    held: Counter[tuple[int, Stage]] = Counter()
    for unit in units:
        for label, indices in unit.members.items():
            by_class[label].append(unit)
            held[label, unit.stage] += len(indices)
    moved: list[tuple[Stage, int]] = []
    for stage, label in ((stage, label) for stage in stages for label in sorted(by_class)):
        if held[label, stage]:
            continue
        # The last image of a class leaves its part only to train.
        donors = [
            unit
            for unit in by_class[label]
            if stage == "train"
            or all(held[one, unit.stage] > len(own) for one, own in unit.members.items())
        ]
        if donors:
            unit = max(donors, key=lambda unit: held[label, unit.stage])
            for one, own in unit.members.items():
                held[one, unit.stage] -= len(own)
                held[one, stage] += len(own)
            unit.stage = stage
            moved.append((stage, unit.members[label][0]))
    return moved


def divide_by_count(
    labels: Tensor,
    counts: Mapping[Stage, int],
    *,
    split_seed: int,
    test_fraction: float,
    num_val: int | float,
    num_train: int | None = None,
) -> Division:
    """Keep the parts that the source has, draw the others from labels, with the classes' shares."""
    # Test images are drawn first, then validation images, then `num_train` of the rest.
    generator = torch.Generator().manual_seed(split_seed)
    division = _given_parts(counts)
    amounts: dict[Stage, int | float] = {"test": test_fraction, "val": num_val}
    for stage, amount in amounts.items():
        if stage not in division:
            pool = division["train"]
            drawn, rest = draw(labels[pool], count_of(amount, len(pool), KEYS[stage]), generator)
            division[stage], division["train"] = pool[drawn], pool[rest]
    return Division(_limited(division, labels, num_train, generator))


def _limited(
    parts: dict[Stage, Tensor], labels: Tensor, num_train: int | None, generator: torch.Generator
) -> dict[Stage, Tensor]:
    """`num_train` of the training images, or all."""
    pool = parts["train"]
    if num_train is None:
        return parts
    if not 1 <= num_train <= len(pool):
        there = f"there are {len(pool) + len(parts['val']):,} training images"
        raise UsageError(f"num_train = {num_train:,} and num_val = {len(parts['val']):,}: {there}")
    _, rest = draw(labels[pool], len(pool) - num_train, generator)
    return {**parts, "train": pool[rest]}


def count_of(amount: int | float, total: int, key: str) -> int:
    """How many of `total` images an `amount` is: a number of them, or a fraction below 1."""
    if isinstance(amount, float) and amount < 1:
        count = max(1, round(amount * total)) if amount > 0 else 0
    else:
        count = int(amount)
    if not 0 < count < total:
        message = f"[data] {key} = {amount}: of {total:,} images it must leave some and take some"
        hint = f"give a number from 1 to {total - 1}, or a fraction such as 0.1"
        raise UsageError(message, hint=hint)
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
