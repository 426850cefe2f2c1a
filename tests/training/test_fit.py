"""A training gives its best weights, the same ones every time, and tells how it went."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import pytest
import pytorch_lightning as pl
import torch

from mindtrace.bundle.bundle import weights_digest
from mindtrace.config.settings import Settings, load_settings
from mindtrace.data.datamodule import build_data
from mindtrace.errors import InterruptedByUser, TrainingError
from mindtrace.service.train import _with_compute_of
from mindtrace.training.callbacks import StopOnRequest
from mindtrace.training.checkpoint import Identity
from mindtrace.training.fit import TrainResult, fit, resolve_compute
from mindtrace.training.report import evaluate

Fit = Callable[..., TrainResult]
STEPS = 21  # of 1,294 training digits in batches of 64


def digest(result: TrainResult) -> str:
    return weights_digest(result.model.weights())


def test_the_best_weights_are_kept_and_not_the_last(fitted: Fit, spoil: type[pl.Callback]) -> None:
    result = fitted("train.max_epochs=4", callbacks=[spoil(3)])
    undisturbed = fitted("train.max_epochs=2")

    assert result.best_epoch == 2
    assert result.epochs == 4
    assert digest(result) == digest(undisturbed)
    assert result.metrics == undisturbed.metrics
    assert result.metrics["test_acc"] > 0.7


@pytest.mark.parametrize("monitor", ["val_acc", "val_loss"])
def test_metrics_are_those_of_the_weights_that_come_back(fitted: Fit, monitor: str) -> None:
    result = fitted(f"train.monitor={monitor}", "train.max_epochs=4")

    for stage in ("val", "test"):
        found = evaluate(result.model, result.data, stage)
        assert result.metrics[f"{stage}_acc"] == pytest.approx(found.accuracy, abs=1e-6)
        assert result.metrics[f"{stage}_loss"] == pytest.approx(found.loss, rel=1e-4)
    assert set(result.metrics) == {"train_loss", "val_loss", "val_acc", "test_loss", "test_acc"}
    best = (max if monitor == "val_acc" else min)(
        report.metrics[monitor] for report in result.course
    )
    assert result.course[result.best_epoch - 1].metrics[monitor] == best


def test_of_equal_epochs_the_first_is_the_best(fitted: Fit, spoil: type[pl.Callback]) -> None:
    result = fitted("train.max_epochs=3", callbacks=[spoil(1)])

    assert len({report.metrics["val_acc"] for report in result.course}) == 1
    assert result.best_epoch == 1


@pytest.mark.parametrize(("batch_size", "steps"), [(64, 21), (1294, 1), (1000, 2), (1, 1294)])
def test_every_optimizer_step_is_counted(fitted: Fit, batch_size: int, steps: int) -> None:
    result = fitted(f"data.batch_size={batch_size}", "train.max_epochs=2")

    assert result.steps == 2 * steps
    assert result.epochs == 2


def test_the_same_settings_give_the_same_weights(fitted: Fit) -> None:
    torch.manual_seed(123)
    one = fitted("train.seed=7")
    torch.rand(1000)
    other = fitted("train.seed=7")

    assert digest(one) == digest(other)
    assert one.metrics == other.metrics


def test_another_seed_gives_other_weights_and_the_same_images(fitted: Fit) -> None:
    one, other = fitted("train.seed=0"), fitted("train.seed=1")

    assert digest(one) != digest(other)
    assert one.data.digests() == other.data.digests()


def test_the_largest_seed_is_a_seed(fitted: Fit) -> None:
    assert fitted("train.seed=4294967295", "train.max_epochs=1").epochs == 1


@pytest.mark.parametrize("more", ["train.seed=0", "train.patience=1", "train.monitor=val_loss"])
def test_a_loss_that_is_no_number_ends_the_training(fitted: Fit, more: str) -> None:
    with pytest.raises(TrainingError) as caught:
        fitted("train.lr=1e30", more)

    assert "epoch 1" in caught.value.message
    assert "[train] lr" in str(caught.value.hint)


def test_a_validation_loss_alone_that_is_no_number_ends_it_too(
    fitted: Fit, spoil: type[pl.Callback]
) -> None:
    with pytest.raises(TrainingError, match=r"val_loss = nan in epoch 2"):
        fitted(callbacks=[spoil(2, math.nan)])


def test_patience_ends_a_training_that_gets_no_better(
    fitted: Fit, spoil: type[pl.Callback]
) -> None:
    result = fitted("train.max_epochs=50", "train.patience=3", callbacks=[spoil(3)])

    assert result.best_epoch == 2
    assert result.epochs == 5


def test_without_patience_all_epochs_are_run(fitted: Fit, spoil: type[pl.Callback]) -> None:
    assert fitted("train.max_epochs=6", callbacks=[spoil(2)]).epochs == 6


def test_when_the_minutes_are_over_the_epoch_is_finished(fitted: Fit) -> None:
    result = fitted("train.max_epochs=1000", "train.max_minutes=0.00001")

    assert result.epochs == 1
    assert result.steps == STEPS


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_answers_are_float32_whatever_it_was_trained_in(fitted: Fit, precision: str) -> None:
    result = fitted(f"compute.precision={precision}")

    assert result.test.probabilities.dtype == "float32"
    assert {str(array.dtype) for array in result.model.weights().values()} == {"float32"}
    assert result.metrics["test_acc"] > 0.7
    again = evaluate(result.model, result.data, "test")
    assert (again.probabilities == result.test.probabilities).all()


def test_a_request_to_stop_is_heard_between_two_steps(
    settings_of: Callable[..., Settings],
) -> None:
    asked: list[int] = []

    def wanted() -> InterruptedByUser | None:
        asked.append(1)
        return InterruptedByUser(15) if len(asked) == 2 else None

    settings = settings_of()
    with pytest.raises(InterruptedByUser) as caught:
        fit(settings, build_data(settings), callbacks=[StopOnRequest(wanted)])

    assert caught.value.signum == 15
    assert len(asked) == 2


def test_threads_and_log_levels_are_given_back(fitted: Fit) -> None:
    before = torch.get_num_threads(), logging.getLogger("pytorch_lightning").level
    torch.set_num_threads(2)
    try:
        fitted("train.max_epochs=1")
        assert torch.get_num_threads() == 2
        with pytest.raises(TrainingError):
            fitted("train.lr=1e30")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before[0])
    assert logging.getLogger("pytorch_lightning").level == before[1]


def test_a_training_prints_nothing(fitted: Fit, capfd: pytest.CaptureFixture[str]) -> None:
    fitted("train.max_epochs=1")

    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("network", "bf16", "said", "threads", "precision"),
    [
        ("mlp", True, [], 1, "32"),
        ("cnn", True, [], 2, "bf16"),
        ("cnn", False, [], 2, "32"),
        ("cnn", True, ["compute.threads=1", "compute.precision=32"], 1, "32"),
    ],
)
def test_auto_follows_the_network_and_the_machine(
    monkeypatch: pytest.MonkeyPatch,
    network: str,
    bf16: bool,
    said: list[str],
    threads: int,
    precision: str,
) -> None:
    monkeypatch.setattr("mindtrace.training.fit.auto_device", lambda: "cpu")
    monkeypatch.setattr("mindtrace.training.fit.available_cores", lambda: 2)
    monkeypatch.setattr("mindtrace.training.fit.has_bf16", lambda: bf16)
    sets = ["data.source=digits", f"model.name={network}", *said]

    compute = resolve_compute(load_settings(sets=sets, environ={})).compute

    assert (compute.device, compute.threads, compute.precision) == ("cpu", threads, precision)


def test_a_resumed_training_keeps_the_compute_that_its_checkpoint_records() -> None:
    config = "[compute]\ndevice = cpu\nprecision = bf16\nthreads = 2\n"
    identity = Identity("run", "digits", config, "digest")

    kept = _with_compute_of(load_settings(environ={}), identity).compute
    said = _with_compute_of(load_settings(sets=["compute.threads=1"], environ={}), identity).compute

    assert (kept.device, kept.precision, kept.threads) == ("cpu", "bf16", 2)
    assert said.threads == 1
