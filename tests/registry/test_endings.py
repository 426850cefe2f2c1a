"""However a training ends, its run says so, and only a good end makes a version."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from mindtrace.config.settings import Settings, load_settings
from mindtrace.errors import InterruptedByUser, StoreError, TrainingError
from mindtrace.progress import EpochReport, Progress
from mindtrace.registry.reader import open_database
from mindtrace.registry.store import Store
from mindtrace.service.train import train

SMALL = ("data.source=digits", "train.max_epochs=3", "compute.threads=1", "compute.precision=32")


def settings_of(*sets: str) -> Settings:
    return load_settings(sets=[*SMALL, *sets])


def statuses(store: Store) -> list[str]:
    experiment = store.client.get_experiment_by_name("digits")
    found = store.client.search_runs([experiment.experiment_id])
    return [run.info.status for run in found]


def names(store: Store) -> list[str]:
    return open_database(store.root / "mlflow.db").names()


class SignalAt(Progress):
    """Sends a signal to this process at the end of an epoch, or at a stage."""

    def __init__(self, signum: int, *, epoch: int = 0, stage: str = "-") -> None:
        self.signum = signum
        self.at_epoch = epoch
        self.at_stage = stage
        self.epochs = 0

    def epoch(self, report: EpochReport) -> None:
        self.epochs = report.epoch
        if report.epoch == self.at_epoch:
            os.kill(os.getpid(), self.signum)

    def stage(self, text: str) -> None:
        if text.startswith(self.at_stage):
            os.kill(os.getpid(), self.signum)


def test_a_good_end_is_a_finished_run_and_a_version(store: Store) -> None:
    unregistered = train(settings_of("train.max_epochs=1"), register=False)
    assert (unregistered.version, unregistered.bundle_digest) == (None, None)
    assert (statuses(store), names(store)) == (["FINISHED"], [])

    outcome = train(settings_of())

    assert statuses(store) == ["FINISHED"] * 2
    assert (outcome.model_name, outcome.version, outcome.champion) == ("digits", 1, True)
    assert names(store) == ["digits"]
    params = store.client.get_run(outcome.run_id).data.params
    assert (params["train.max_epochs"], params["compute.threads"]) == ("3", "1")
    history = store.client.get_metric_history(outcome.run_id, "val_acc")
    assert [point.step for point in history] == [1, 2, 3]


@pytest.mark.parametrize(
    ("signum", "at", "epochs"),
    [
        (signal.SIGINT, {"epoch": 2}, 2),
        (signal.SIGTERM, {"epoch": 2}, 2),
        (signal.SIGHUP, {"epoch": 2}, 2),
        (signal.SIGTERM, {"stage": "testing"}, 3),
        (signal.SIGTERM, {"stage": "registering"}, 3),
    ],
)
def test_a_signal_makes_a_killed_run_and_no_version(
    store: Store, signum: int, at: dict[str, Any], epochs: int
) -> None:
    progress = SignalAt(signum, **at)

    with pytest.raises(InterruptedByUser) as caught:
        train(settings_of(), progress=progress)

    assert caught.value.signum == signum
    assert progress.epochs == epochs, "no further epoch was run"
    assert (statuses(store), names(store)) == (["KILLED"], [])


def test_a_training_or_registration_that_fails_is_a_failed_run(store: Store) -> None:
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(TrainingError):
        train(settings_of("train.lr=1e30"))

    class Obstacle(Progress):
        def stage(self, text: str) -> None:
            if text.startswith("registering"):
                (store.root / "staging").write_text("a file")

    with pytest.raises(StoreError):
        train(settings_of("train.max_epochs=1"), progress=Obstacle())

    assert (statuses(store), names(store)) == (["FAILED"] * 2, [])
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before
