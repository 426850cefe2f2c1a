"""However its batches come, a classifier makes the same steps, and counts them."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, strategies as st
from tests.models.conftest import Train
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR

from mindtrace.config.settings import load_settings
from mindtrace.data import Digits, ImageSplit, build_data
from mindtrace.models import CNN, ImageClassifier, build_model
from mindtrace.models.classifier import one_cycle

# Lightning 2.6 calls torch 2.14 in a way that torch would like changed.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated")

CONSTANT = ("train.lr=0.003",)
ONE_CYCLE = ("train.lr=0.01", "train.schedule=one_cycle")


def plain_loop(*sets: str, epochs: int, rates: list[float] | None = None) -> torch.nn.Module:
    """What anybody would write without Lightning and without us."""
    settings = load_settings(sets=["data.source=digits", "model.dropout=0", *sets])
    data = build_data(settings)
    torch.manual_seed(settings.train.seed)
    model = build_model(settings.model, settings.train, data.spec, data.class_names)
    network = model.network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.train.lr, fused=True)
    steps = iter(rates) if rates is not None else None
    for epoch in range(epochs):
        data.order.set_epoch(epoch)
        for x, y in data.train_dataloader():
            if steps is not None:
                optimizer.param_groups[0]["lr"] = next(steps)
            optimizer.zero_grad()
            functional.cross_entropy(network(x), y).backward()
            optimizer.step()
    return network


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


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


@pytest.mark.parametrize(("chunk", "module"), [(1, True), (3, True), (32, True), (1, False)])
def test_trained_in_chunks_or_not_the_weights_are_those_of_a_plain_loop(
    train: Train, chunk: int, module: bool
) -> None:
    """Also from the loaders alone: Lightning tells the order which epoch it is."""
    model, trainer = train(*CONSTANT, chunk=chunk, module=module, max_epochs=3)
    assert same(model.network, plain_loop(*CONSTANT, epochs=3))
    assert trainer.global_step == 3 * 21


@pytest.mark.parametrize("chunk", [1, 8])
def test_the_schedule_moves_with_every_step_in_chunks_too(train: Train, chunk: int) -> None:
    model, _ = train(*ONE_CYCLE, chunk=chunk)
    expected = plain_loop(*ONE_CYCLE, epochs=2, rates=of_torch(0.01, 42))
    for name, weight in expected.state_dict().items():
        torch.testing.assert_close(model.network.state_dict()[name], weight, atol=1e-5, rtol=0)


def scores(model: ImageClassifier, split: ImageSplit) -> tuple[float, float]:
    """Loss and accuracy of a whole split."""
    with torch.inference_mode():
        logits = model.eval()(split.normalise(split.images))
    loss = float(functional.cross_entropy(logits, split.labels))
    return loss, float((logits.argmax(1) == split.labels).float().mean())


@pytest.mark.parametrize("chunk", [1, 32])
def test_metrics_are_means_over_images(train: Train, chunk: int) -> None:
    """Though the last batches are smaller; almost no lr: each is seen by the same weights."""
    model, trainer = train("train.lr=1e-12", "data.num_val=700", chunk=chunk, max_epochs=1)
    data = Digits(num_val=700)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    loss, accuracy = scores(model, data.val)
    classes = {"val_balanced_accuracy", "val_f1_macro"}
    assert set(logged) == {"train_loss", "val_loss", "val_acc", *classes}
    assert logged["val_loss"] == pytest.approx(loss, rel=1e-4)
    assert logged["val_acc"] == pytest.approx(accuracy, abs=1e-6)
    assert logged["train_loss"] == pytest.approx(scores(model, data.train)[0], rel=1e-4)
    (found,) = trainer.test(model, data, verbose=False)
    loss, accuracy = scores(model, data.test)
    assert found == pytest.approx({"test_loss": loss, "test_acc": accuracy}, rel=1e-4)


def test_weights_are_views_on_the_networks_tensors_by_name() -> None:
    model = CNN(side=8)
    weights = model.weights()
    assert set(weights) == set(model.network.state_dict())
    with torch.no_grad():
        next(model.network.parameters()).fill_(7)
    assert (weights["0.weight"] == 7).all()
