"""A run says truly how it ended, and has every metric by then."""

from __future__ import annotations

import signal
import threading
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from pytorch_lightning.utilities.exceptions import SIGTERMException

from mindtrace.errors import InterruptedByUser, StoreError, TrainingError
from mindtrace.registry.callbacks import run_finished_or_failed
from mindtrace.registry.store import Run, Store, resume_run, start_run


@pytest.fixture
def run(store: Store) -> Run:
    return start_run(store, "digits", "a name", {"mindtrace.job_id": "j1"})


def stored(run: Run) -> Any:
    return run.store.client.get_run(run.run_id)


def test_a_run_begins_as_running_with_its_name_and_tags(run: Run) -> None:
    found = stored(run)

    assert found.info.status == "RUNNING"
    assert found.info.run_name == "a name"
    assert found.data.tags["mindtrace.job_id"] == "j1"
    run.end("FINISHED")


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_the_last_word_is_the_first_one_said(run: Run, status: Any) -> None:
    run.end(status)
    run.end("FINISHED")

    assert run.ended == stored(run).info.status == status
    assert stored(run).info.end_time is not None


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TrainingError("diverged"), "FAILED"),
        (ZeroDivisionError(), "FAILED"),
        (MemoryError(), "FAILED"),
        (SystemExit(1), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (InterruptedByUser(signal.SIGTERM), "KILLED"),
        (SIGTERMException(), "KILLED"),
    ],
)
def test_a_run_ends_as_its_work_did(run: Run, error: BaseException, status: str) -> None:
    with pytest.raises(type(error)), run_finished_or_failed(run):
        raise error

    assert stored(run).info.status == status


def test_a_run_whose_work_went_well_is_finished(run: Run) -> None:
    with run_finished_or_failed(run):
        run.log_metrics({"val_acc": 0.5}, step=1)

    assert stored(run).info.status == "FINISHED"


def test_when_it_has_ended_every_metric_is_there(run: Run) -> None:
    for step in range(1, 21):
        run.log_metrics({"val_acc": step / 100, "val_loss": 1 / step}, step=step)
    run.end("FINISHED")

    history = run.store.client.get_metric_history(run.run_id, "val_acc")
    assert [(point.step, point.value) for point in history] == [
        (step, step / 100) for step in range(1, 21)
    ]
    assert stored(run).data.metrics == {"val_acc": 0.2, "val_loss": 0.05}


def test_no_thread_outlives_its_run(run: Run) -> None:
    run.log_metrics({"a": 1.0}, step=1)
    run.end("KILLED")

    assert not [thread for thread in threading.enumerate() if "mlflow-metrics" in thread.name]


def test_lost_metrics_are_an_error_and_the_run_ends_all_the_same(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*arguments: Any, **options: Any) -> None:
        raise MlflowException("gone")

    with monkeypatch.context() as patched:
        patched.setattr(run.store.client, "log_batch", away)
        run.log_metrics({"a": 1.0}, step=1)
        with pytest.raises(StoreError):
            run.end("FINISHED")

    assert stored(run).info.status != "RUNNING"


def test_an_error_of_the_work_is_not_hidden_by_one_of_the_store(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*arguments: Any, **options: Any) -> None:
        raise MlflowException("gone")

    monkeypatch.setattr(run.store.client, "set_terminated", away)

    with pytest.raises(TrainingError, match="diverged") as caught, run_finished_or_failed(run):
        raise TrainingError("diverged")
    assert "gone" in caught.value.__notes__[0]


def test_parameters_of_any_length_and_number_are_kept(run: Run) -> None:
    run.log_params({f"key.{n}": n for n in range(150)})
    run.log_params({"long": "x" * 10_000, "none": None, "list": [1, 2], "umlaut": "ü"})
    run.end("FINISHED")

    params = stored(run).data.params
    assert params["key.149"] == "149"
    assert params["long"] == "x" * 6000
    assert (params["none"], params["list"], params["umlaut"]) == ("None", "[1, 2]", "ü")


def test_a_text_is_an_artifact_in_root(run: Run) -> None:
    run.log_text("[train]\nlr = 0.1\n", "config.ini")
    run.end("FINISHED")

    (file,) = run.store.root.glob(f"mlartifacts/{run.run_id}/artifacts/config.ini")
    assert file.read_text() == "[train]\nlr = 0.1\n"


def test_a_killed_run_can_be_taken_up_again(run: Run) -> None:
    run.end("KILLED")

    again = resume_run(run.store, run.run_id)

    assert stored(again).info.status == "RUNNING"
    again.end("FINISHED")
    assert stored(run).info.status == "FINISHED"


def test_an_experiment_is_made_once_however_many_want_it(store: Store) -> None:
    ids: list[str] = []
    together = threading.Barrier(4)

    def one() -> None:
        together.wait()
        ids.append(store.experiment_id("new one"))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(ids) == 4
    assert len(set(ids)) == 1


def test_a_run_that_is_none_cannot_be_taken_up(store: Store) -> None:
    with pytest.raises(StoreError):
        resume_run(store, "0" * 32)
