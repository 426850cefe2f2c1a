from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st

from mindtrace.data.split import count_of, divide_by_count, draw
from mindtrace.errors import UsageError

LABELS = st.lists(st.integers(0, 5), min_size=2, max_size=120).map(torch.tensor)


@given(LABELS, st.integers(0, 2**63 - 1), st.data())
def test_a_draw_is_complete_and_repeatable_and_each_class_keeps_an_image(
    labels: torch.Tensor, seed: int, data: st.DataObject
) -> None:
    amount = data.draw(st.integers(1, len(labels) - 1))
    drawn, rest = draw(labels, amount, torch.Generator().manual_seed(seed))
    assert sorted([*drawn.tolist(), *rest.tolist()]) == list(range(len(labels)))
    assert drawn.tolist() == sorted(drawn.tolist())
    assert torch.equal(draw(labels, amount, torch.Generator().manual_seed(seed))[0], drawn)
    counts = torch.bincount(labels)
    spare = int((counts - 1).clamp(min=0).sum())
    assert len(drawn) == min(amount, spare)
    assert set(labels[rest].tolist()) == set(labels.tolist())
    if amount >= int((counts > 1).sum()):
        assert set(labels[drawn].tolist()) == set((counts > 1).nonzero().flatten().tolist())


@pytest.mark.parametrize(
    ("labels", "amount", "shares"),
    [
        ([0] * 800 + [1] * 150 + [2] * 50, 100, [80, 15, 5]),
        ([0] * 100 + [1, 2, 3, 4, 5] * 2, 8, [3, 1, 1, 1, 1, 1]),  # small classes come first
    ],
)
def test_each_class_gives_its_share(labels: list[int], amount: int, shares: list[int]) -> None:
    whole = torch.tensor(labels)
    drawn, _ = draw(whole, amount, torch.Generator().manual_seed(0))
    assert torch.bincount(whole[drawn]).tolist() == shares
    assert not torch.equal(drawn, draw(whole, amount, torch.Generator().manual_seed(1))[0])


def test_what_a_source_splits_is_kept_and_the_rest_is_drawn_from_train() -> None:
    labels, counts = torch.arange(100) % 2, {"train": 60, "test": 40}
    options = {"split_seed": 0, "test_fraction": 0.5, "num_val": 0.25}
    found = divide_by_count(labels, counts, **options).parts  # type: ignore[arg-type]
    assert found["test"].tolist() == list(range(60, 100))
    assert len(found["val"]) == 15
    assert sorted([*found["val"].tolist(), *found["train"].tolist()]) == list(range(60))
    fewer = divide_by_count(labels, counts, **options, num_train=20).parts  # type: ignore[arg-type]
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
