"""A training gives its best weights, the same ones every time, and tells how it went."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from tests.training.conftest import Fit, SpoilFrom, digest

from mindtrace.config.settings import load_settings
from mindtrace.errors import InterruptedByUser, TrainingError
from mindtrace.progress import EpochReport, Progress
from mindtrace.service.train import begun
from mindtrace.training import checkpoint
from mindtrace.training.callbacks import StopOnRequest
from mindtrace.training.checkpoint import Identity
from mindtrace.training.fit import resolve_compute
from mindtrace.training.report import Evaluation, evaluate, report

STEPS = 21  # of 1,294 training digits in batches of 64


class Heard(Progress):
    def __init__(self) -> None:
        self.words: list[tuple[Any, ...]] = []

    def stage(self, text: str) -> None:
        self.words.append(("stage", text))

    def started(self, max_epochs: int, batches: int) -> None:
        self.words.append(("started", max_epochs, batches))

    def advanced(self, epoch: int, done: int) -> None:
        self.words.append(("advanced", epoch, done))

    def epoch(self, report: EpochReport) -> None:
        self.words.append(("epoch", report))

    def of(self, kind: str) -> list[Any]:
        return [word[1:] if len(word) > 2 else word[1] for word in self.words if word[0] == kind]


def test_the_best_weights_are_kept_and_not_the_last(fitted: Fit) -> None:
    heard = Heard()
    result = fitted("train.max_epochs=4", callbacks=[SpoilFrom(3)], progress=heard)
    undisturbed = fitted("train.max_epochs=2")
    assert (result.best_epoch, result.epochs, result.steps) == (2, 4, 4 * STEPS)
    assert digest(result) == digest(undisturbed)
    assert result.metrics == undisturbed.metrics
    assert result.metrics["test_acc"] > 0.7
    reports = heard.of("epoch")
    assert list(result.course) == reports
    assert [report.best for report in reports] == [True, True, False, False]


BASE = {"train_loss", "val_loss", "val_acc"}
CLASSES = {"balanced_accuracy", "f1_macro"}


@pytest.mark.parametrize(
    "monitor", ["val_acc", "val_loss", "val_balanced_accuracy", "val_f1_macro"]
)
def test_metrics_are_those_of_the_weights_that_come_back(fitted: Fit, monitor: str) -> None:
    heard = Heard()
    result = fitted(f"train.monitor={monitor}", "train.max_epochs=4", progress=heard)
    for stage in ("val", "test"):
        found = evaluate(result.model, result.data, stage)
        assert result.metrics[f"{stage}_acc"] == pytest.approx(found.accuracy, abs=1e-6)
        assert result.metrics[f"{stage}_loss"] == pytest.approx(found.loss, rel=1e-4)
        for name in CLASSES:
            expected = found.metrics[f"test_{name}"]
            assert result.metrics[f"{stage}_{name}"] == pytest.approx(expected, abs=1e-6)
    validated = BASE | {f"val_{name}" for name in CLASSES}
    tested = {"test_loss", "test_acc"} | {f"test_{name}" for name in CLASSES}
    assert set(result.metrics) == validated | tested
    reports = heard.of("epoch")
    assert [(report.epoch, report.max_epochs) for report in reports] == [
        (n, 4) for n in (1, 2, 3, 4)
    ]
    assert all(set(report.metrics) == validated for report in reports)
    assert {report.monitor for report in reports} == {monitor}
    assert all(report.seconds > 0 for report in reports)
    values = [report.metrics[monitor] for report in reports]
    best = reports[result.best_epoch - 1].metrics
    assert best[monitor] == (min if monitor == "val_loss" else max)(values)
    assert best.items() <= result.metrics.items()


def test_of_equal_epochs_the_first_is_the_best(fitted: Fit) -> None:
    result = fitted("train.max_epochs=3", callbacks=[SpoilFrom(1)])
    assert len({report.metrics["val_acc"] for report in result.course}) == 1
    assert result.best_epoch == 1


@pytest.mark.parametrize(
    ("batch_size", "test_fraction", "steps"),
    [(64, 0.2, 21), (1294, 0.2, 1), (1000, 0.2, 2), (1, 0.9, 162)],
)
def test_every_optimizer_step_is_counted_and_reported(
    fitted: Fit, batch_size: int, test_fraction: float, steps: int
) -> None:
    sets = (f"data.batch_size={batch_size}", f"data.test_fraction={test_fraction}")
    heard = Heard()
    result = fitted(*sets, "train.max_epochs=2", progress=heard)
    assert (result.steps, result.epochs) == (2 * steps, 2)
    assert heard.words[0] == ("started", 2, steps)
    done = [*range(32, steps, 32), steps]
    assert heard.of("advanced") == [(epoch, one) for epoch in (1, 2) for one in done]
    assert heard.words[-1][0] == "stage"


def test_the_seed_alone_makes_the_weights_and_the_images_stay(fitted: Fit) -> None:
    torch.manual_seed(123)
    one = fitted("train.seed=7", "train.max_epochs=2")
    torch.rand(1000)
    same, other = (fitted(f"train.seed={n}", "train.max_epochs=2") for n in (7, 2**32 - 1))
    assert digest(one) == digest(same) != digest(other)
    assert one.metrics == same.metrics
    assert one.data.digests() == other.data.digests()


@pytest.mark.parametrize("more", ["train.seed=0", "train.patience=1", "train.monitor=val_loss"])
def test_a_loss_that_is_no_number_ends_the_training(fitted: Fit, more: str) -> None:
    with pytest.raises(TrainingError) as caught:
        fitted("train.lr=1e30", more)
    assert "epoch 1" in caught.value.message
    assert "[train] lr" in str(caught.value.hint)


def test_so_does_a_validation_loss_alone(fitted: Fit) -> None:
    heard = Heard()
    with pytest.raises(TrainingError, match=r"val_loss = nan in epoch 2"):
        fitted(callbacks=[SpoilFrom(2, math.nan)], progress=heard)
    assert [report.epoch for report in heard.of("epoch")] == [1, 2], "reported before it ends"
    assert not heard.of("stage")


@pytest.mark.parametrize(
    ("sets", "epochs"),
    [
        (["train.max_epochs=50", "train.patience=3"], 5),
        (["train.max_epochs=6"], 6),
        (["train.max_epochs=1000", "train.max_minutes=0.00001"], 1),
    ],
    ids=["patience", "all", "minutes"],
)
def test_when_it_ends(fitted: Fit, sets: list[str], epochs: int) -> None:
    result = fitted(*sets, callbacks=[SpoilFrom(3)])
    assert (result.epochs, result.steps) == (epochs, epochs * STEPS)
    assert result.best_epoch == min(2, epochs)


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_answers_are_float32_whatever_it_was_trained_in(fitted: Fit, precision: str) -> None:
    result = fitted(f"compute.precision={precision}")
    assert result.test.probabilities.dtype == "float32"
    assert {str(array.dtype) for array in result.model.weights().values()} == {"float32"}
    assert result.metrics["test_acc"] > 0.7
    again = evaluate(result.model, result.data, "test")
    assert (again.probabilities == result.test.probabilities).all()


def test_it_prints_nothing_and_gives_threads_and_log_levels_back(
    fitted: Fit, capfd: pytest.CaptureFixture[str]
) -> None:
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


def test_a_resumed_training_keeps_the_compute_that_its_checkpoint_records(root: Path) -> None:
    config = "[compute]\ndevice = cpu\nprecision = bf16\nthreads = 2\n"
    identity = Identity("run", "digits", config, "digest")
    folder = root / "checkpoints" / "run"
    folder.mkdir(parents=True)
    checkpoint.write_identity(folder, identity)
    ZipFile(folder / checkpoint.LAST, "w").close()

    kept = begun(load_settings(), "run")[0].compute
    said = begun(load_settings(sets=["compute.threads=1"]), "run")[0].compute

    assert (kept.device, kept.precision, kept.threads) == ("cpu", "bf16", 2)
    assert said.threads == 1


CLASSIC = ("train.max_epochs=3", "train.lr=0.01")


@pytest.mark.parametrize(
    "extra",
    [
        "train.balance=loss",
        "train.balance=sample",
        "train.label_smoothing=0.1",
        "train.mixup=0.4",
        "train.weight_decay=0.3",
        "train.average=ema",
        "data.augment=photo",
    ],
)
def test_ways_to_train(fitted: Fit, extra: str, tmp_path: Path) -> None:
    """Each changes the weights, learns all the same, repeats, and is resumed to the same end."""
    found = fitted(*CLASSIC, extra)
    assert digest(found) != digest(fitted(*CLASSIC))
    assert found.metrics["test_acc"] > (0.6 if "photo" in extra else 0.85)
    validated = evaluate(found.model, found.data, "val").accuracy
    assert validated == pytest.approx(found.metrics["val_acc"], abs=1e-6)
    asked = 30 if "average" in extra else 2  # averaging takes single batches, no lists
    stop = StopOnRequest(iter([None] * asked + [InterruptedByUser(2)]).__next__)
    with pytest.raises(InterruptedByUser):
        fitted(*CLASSIC, extra, checkpoints=tmp_path, callbacks=[stop])
    resumed = fitted(*CLASSIC, extra, checkpoints=tmp_path, resume=True)
    assert digest(resumed) == digest(found)
    assert resumed.metrics == found.metrics


@pytest.mark.parametrize(
    ("labels", "answers", "trained", "expected"),
    [
        ([0, 1, 2], [0, 1, 2], [50, 60, 3], []),
        ([0, 1, 2], [0, 1, 2], [50, 60, 2], ["class c has 2 training images, b has 60"]),
        ([0, 1, 2, 2], [0, 1, 0, 1], [9, 9, 9], ["class c: none of its 2 test images"]),
        ([0, 0], [0, 0], [900, 9, 9], ["class b has 9", "class c has 9"]),
    ],
)
def test_warnings_of_a_report(
    labels: list[int], answers: list[int], trained: list[int], expected: list[str]
) -> None:
    test = Evaluation(np.eye(3, dtype=np.float32)[answers], np.array(labels), 0.0, 0.0)
    warnings = report(test, "abc", np.array(trained)).warnings
    assert len(warnings) == len(expected)
    assert all(one.startswith(begin) for one, begin in zip(warnings, expected, strict=True))
