"""The one-cycle schedule is torch's, step by step."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import OneCycleLR

from mindtrace.models.classifier import one_cycle


def of_torch(peak: float, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = OneCycleLR(optimizer, max_lr=peak, total_steps=steps, cycle_momentum=False)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no optimizer steps here
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            if len(rates) < steps:
                scheduler.step()
    return rates


@pytest.mark.parametrize("steps", [7, 10, 33, 1000])
@pytest.mark.parametrize("peak", [1e-3, 0.1])
def test_every_step_has_torchs_rate(steps: int, peak: float) -> None:
    rate = one_cycle(peak, steps)

    assert [rate(step) for step in range(steps)] == pytest.approx(of_torch(peak, steps), rel=1e-9)


@given(st.integers(1, 500), st.floats(1e-6, 10))
def test_a_rate_never_leaves_its_bounds_however_few_the_steps(steps: int, peak: float) -> None:
    rates = [one_cycle(peak, steps)(step) for step in range(steps + 3)]

    assert all(0 < rate <= peak * (1 + 1e-12) for rate in rates)
    assert rates[0] == pytest.approx(peak / 25)
    assert rates[-1] == rates[-2], "beyond the last step the rate stays"


def test_the_last_step_has_almost_no_rate() -> None:
    assert one_cycle(1.0, 100)(99) == pytest.approx(1 / 25 / 1e4)
