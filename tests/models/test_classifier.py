"""However its batches come, a classifier makes the same steps, and counts them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import pytorch_lightning as pl
import torch
from torch.nn import functional

from mindtrace.config.settings import load_settings
from mindtrace.data import Digits, build_data
from mindtrace.models import ImageClassifier, build_model

Train = Callable[..., tuple[ImageClassifier, pl.Trainer]]


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
        data.set_epoch(epoch)
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


@pytest.mark.parametrize("chunk", [1, 3, 32])
def test_trained_in_chunks_or_not_the_weights_are_those_of_a_plain_loop(
    train: Train, chunk: int
) -> None:
    expected = plain_loop(*CONSTANT, epochs=2)

    model, trainer = train(*CONSTANT, chunk=chunk)

    assert same(model.network, expected)
    assert trainer.global_step == 2 * 21


def test_the_schedule_moves_with_every_step_in_chunks_too(train: Train) -> None:
    one, _ = train(*ONE_CYCLE)
    chunked, _ = train(*ONE_CYCLE, chunk=8)

    network = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.01, total_steps=42, cycle_momentum=False
    )
    rates = []
    for _ in range(42):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) < 42:
            scheduler.step()
    expected = plain_loop(*ONE_CYCLE, epochs=2, rates=rates)

    for model in (one, chunked):
        for name, weight in expected.state_dict().items():
            torch.testing.assert_close(model.network.state_dict()[name], weight, atol=1e-5, rtol=0)


def test_an_epoch_logs_the_mean_over_its_images(train: Train) -> None:
    """Of all images, though the last batch of the validation is smaller than the others."""
    model, trainer = train(*CONSTANT, "data.num_val=700", chunk=32, max_epochs=1)
    data = Digits(num_val=700)
    val = data.split("val")
    with torch.inference_mode():
        logits = model.eval()(data.normalise(val.images))

    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert set(logged) == {"train_loss", "val_loss", "val_acc"}
    assert logged["val_loss"] == pytest.approx(
        float(functional.cross_entropy(logits, val.labels)), rel=1e-4
    )
    assert logged["val_acc"] == pytest.approx(
        float((logits.argmax(1) == val.labels).float().mean()), abs=1e-6
    )


@pytest.mark.parametrize("chunk", [1, 32])
def test_the_training_loss_is_that_of_the_batches_seen(train: Train, chunk: int) -> None:
    """With a learning rate of almost nothing every batch is seen by the same weights."""
    model, trainer = train("train.lr=1e-12", chunk=chunk, max_epochs=1)
    data = Digits()
    train = data.split("train")
    with torch.inference_mode():
        logits = model.eval()(data.normalise(train.images))

    expected = float(functional.cross_entropy(logits, train.labels))
    assert float(trainer.callback_metrics["train_loss"]) == pytest.approx(expected, rel=1e-4)


def test_test_metrics_are_logged_for_trainer_test(train: Train) -> None:
    model, trainer = train(*CONSTANT, max_epochs=1)

    (found,) = trainer.test(model, Digits(), verbose=False)

    assert set(found) == {"test_loss", "test_acc"}
    assert 0 <= found["test_acc"] <= 1
    assert math.isfinite(found["test_loss"])


def test_weights_are_views_on_the_networks_tensors_by_name() -> None:
    settings = load_settings(sets=["data.source=digits", "model.name=cnn"])
    data = Digits()
    model = build_model(settings.model, settings.train, data.spec, data.class_names)

    weights = model.weights()

    assert set(weights) == set(model.network.state_dict())
    with torch.no_grad():
        next(model.network.parameters()).fill_(7)
    assert (weights["0.weight"] == 7).all()
