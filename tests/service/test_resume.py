"""`--resume RUN` alone goes on with the configuration that the training began with."""

from __future__ import annotations

from pathlib import Path

import pytest

from mindtrace.config.settings import load_settings
from mindtrace.errors import UsageError
from mindtrace.progress import EpochReport, Progress
from mindtrace.service.train import TrainOutcome, plan, train

BEGUN = (
    "data.source=digits",
    "train.max_epochs=4",
    "train.lr=0.01",
    "model.hidden=20",
    "registry.model_name=mine",
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*type hint is inferred"),  # of MLflow's own classes
]


class Break(Progress):
    def epoch(self, report: EpochReport) -> None:
        if report.epoch == 3:
            raise ZeroDivisionError


def interrupted(*more: str) -> None:
    with pytest.raises(ZeroDivisionError):
        train(load_settings(sets=[*BEGUN, *more]), progress=Break())


def resumed(*sets: str) -> TrainOutcome:
    return train(load_settings(sets=sets), resume="last")


def test_no_other_option_is_needed_and_more_epochs_may_be(root: Path) -> None:
    interrupted()
    for changed, words in (("train.seed=7", "seed was 0, is 7"), ("train.max_epochs=3", "was 4")):
        with pytest.raises(UsageError, match=words):
            plan(load_settings(sets=[changed]), resume="last")

    found = resumed()

    assert (found.model_name, found.epochs) == ("mine", 4)
    whole = train(load_settings(sets=BEGUN), register=False)
    assert found.metrics == whole.metrics
    assert found.config_digest == whole.config_digest
    interrupted()
    with pytest.raises(ZeroDivisionError):
        train(load_settings(sets=["train.max_epochs=6"]), resume="last", progress=Break())
    assert resumed().epochs == 6, "the new number of epochs is kept"


def test_a_schedule_that_ends_with_its_epochs_cannot_go_on_further(root: Path) -> None:
    interrupted("train.schedule=one_cycle")
    with pytest.raises(UsageError, match=r"\[train\] max_epochs was 4, is 6"):
        resumed("train.max_epochs=6")
    assert resumed().epochs == 4
