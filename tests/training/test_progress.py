"""Whoever watches a training hears of every step and every epoch, in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import pytorch_lightning as pl

from mindtrace.errors import TrainingError
from mindtrace.progress import EpochReport, Progress
from mindtrace.training.fit import TrainResult

Fit = Callable[..., TrainResult]


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


def test_it_hears_how_long_it_will_be_and_how_far_it_is(fitted: Fit) -> None:
    heard = Heard()

    fitted("train.max_epochs=2", "data.batch_size=16", progress=heard)

    assert heard.words[0] == ("started", 2, 81)
    assert heard.of("advanced") == [
        (1, 32), (1, 64), (1, 81), (2, 32), (2, 64), (2, 81),
    ]  # fmt: skip
    assert heard.words[-1][0] == "stage"


def test_every_epoch_is_reported_with_its_metrics(fitted: Fit) -> None:
    heard = Heard()

    result = fitted(progress=heard)

    reports = heard.of("epoch")
    assert [report.epoch for report in reports] == [1, 2, 3]
    assert {report.max_epochs for report in reports} == {3}
    assert all(set(report.metrics) == {"train_loss", "val_loss", "val_acc"} for report in reports)
    assert all(report.seconds > 0 for report in reports)
    assert list(result.course) == reports
    best = reports[result.best_epoch - 1].metrics
    assert best.items() <= result.metrics.items()


def test_an_epoch_knows_whether_it_is_the_best_so_far(
    fitted: Fit, spoil: type[pl.Callback]
) -> None:
    heard = Heard()

    fitted("train.max_epochs=4", progress=heard, callbacks=[spoil(3)])

    assert [report.best for report in heard.of("epoch")] == [True, True, False, False]


def test_an_epoch_that_ends_badly_was_told_of(fitted: Fit, spoil: type[pl.Callback]) -> None:
    heard = Heard()

    with pytest.raises(TrainingError):
        fitted(progress=heard, callbacks=[spoil(2, float("nan"))])

    assert [report.epoch for report in heard.of("epoch")] == [1, 2]
    assert not heard.of("stage")
