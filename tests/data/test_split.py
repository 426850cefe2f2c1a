from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mindtrace.data.split import count_of, divide, draw, seeded
from mindtrace.errors import UsageError

LABELS = st.lists(st.integers(0, 5), min_size=2, max_size=120).map(torch.tensor)
SEEDS = st.integers(0, 2**63 - 1)


@given(LABELS, SEEDS, st.data())
def test_a_draw_is_disjoint_complete_and_repeatable(
    labels: torch.Tensor, seed: int, data: st.DataObject
) -> None:
    amount = data.draw(st.integers(1, len(labels) - 1))
    drawn, rest = draw(labels, amount, seeded(seed))
    assert sorted([*drawn.tolist(), *rest.tolist()]) == list(range(len(labels)))
    assert drawn.tolist() == sorted(drawn.tolist())
    again, _ = draw(labels, amount, seeded(seed))
    assert torch.equal(drawn, again)


@given(LABELS, SEEDS, st.data())
def test_a_draw_takes_its_amount_and_each_class_keeps_an_image(
    labels: torch.Tensor, seed: int, data: st.DataObject
) -> None:
    amount = data.draw(st.integers(1, len(labels) - 1))
    drawn, rest = draw(labels, amount, seeded(seed))
    counts = torch.bincount(labels)
    spare = int((counts - 1).clamp(min=0).sum())
    assert len(drawn) == min(amount, spare)
    assert set(labels[rest].tolist()) == set(labels.tolist())
    if amount >= int((counts > 1).sum()):
        assert set(labels[drawn].tolist()) == set((counts > 1).nonzero().flatten().tolist())


def test_each_class_gives_its_share() -> None:
    labels = torch.tensor([0] * 800 + [1] * 150 + [2] * 50)
    drawn, _ = draw(labels, 100, seeded(0))
    assert torch.bincount(labels[drawn]).tolist() == [80, 15, 5]


def test_small_classes_give_an_image_before_large_ones_give_more() -> None:
    labels = torch.tensor([0] * 100 + [1, 2, 3, 4, 5] * 2)
    drawn, _ = draw(labels, 8, seeded(0))
    assert torch.bincount(labels[drawn]).tolist() == [3, 1, 1, 1, 1, 1]


def test_seeds_differ() -> None:
    labels = torch.arange(200) % 4
    assert not torch.equal(draw(labels, 50, seeded(0))[0], draw(labels, 50, seeded(1))[0])


def test_what_a_source_splits_is_kept_and_the_rest_is_drawn_from_train() -> None:
    labels = torch.arange(100) % 2
    found = divide(labels, {"train": 60, "test": 40}, split_seed=0, test_fraction=0.5, num_val=0.25)
    assert found["test"].tolist() == list(range(60, 100))
    assert len(found["val"]) == 15
    assert sorted([*found["val"].tolist(), *found["train"].tolist()]) == list(range(60))
    fewer = divide(
        labels,
        {"train": 60, "test": 40},
        split_seed=0,
        test_fraction=0.5,
        num_val=0.25,
        num_train=20,
    )
    assert torch.equal(fewer["val"], found["val"]) and len(fewer["train"]) == 20
    assert set(fewer["train"].tolist()) < set(found["train"].tolist())


@pytest.mark.parametrize(
    ("amount", "total", "count"),
    [(5, 10, 5), (0.1, 10, 1), (0.25, 10, 2), (0.01, 10, 1), (3.0, 9, 3)],
)
def test_amounts_are_counts_or_fractions(amount: float, total: int, count: int) -> None:
    assert count_of(amount, total, "num_val") == count


@pytest.mark.parametrize("amount", [0, 10, 11, -1, 0.0, 0.99])
def test_an_amount_leaves_some_and_takes_some(amount: float) -> None:
    with pytest.raises(UsageError, match=r"\[data\] num_val"):
        count_of(amount, 10, "num_val")
