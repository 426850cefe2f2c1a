"""A job's course in a worker, where the worker's own work goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.jobs.fake import FakeWorker

from mindtrace.errors import TrainingError
from mindtrace.jobs import attempt, worker
from mindtrace.jobs.attempt import Attempt, Workplace
from mindtrace.jobs.job import Job, Request
from mindtrace.jobs.worker import Worker

VERSION = {"model_name": "m", "version": 7}


@pytest.fixture
def made(work: Workplace) -> Worker:
    return Worker(work, lease=10.0)


def course(made: Worker) -> Job:
    """What becomes of a job whose steps are done here."""
    job_id = made._queue.submit(Request("")).job_id
    fake = FakeWorker(made._queue, job_id, made._id)

    def run_step(_: Any, do: Callable[..., Any], *values: Any) -> Any:
        return do(*values)

    try:
        made._course(job_id, Request(""), run_step, fake)
        state = "succeeded"
    except TrainingError:
        state = "failed"
    fake.finish(state, **made._queue.get(job_id).record())
    return made._queue.get(job_id)


def broken(*_: object) -> None:
    raise ValueError("mine")


def test_what_became_of_the_promotion_is_recorded(
    made: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    promotion = {"promoted": False, "verdict": "HOLD", "message": "too few images"}
    outcome = {"state": "succeeded", "open_runs": False, **VERSION, "promotion": promotion}
    monkeypatch.setattr(Attempt, "train", lambda _: outcome)
    job = course(made)
    assert (job.state, job.version, job.error) == ("succeeded", 7, None)
    assert job.promotion == promotion


@pytest.mark.parametrize(
    ("found", "state"), [({}, "failed"), (VERSION, "succeeded"), (None, "failed")]
)
def test_a_job_over_which_we_fail_says_why_unless_its_version_is_there(
    made: Worker, monkeypatch: pytest.MonkeyPatch, found: dict[str, Any] | None, state: str
) -> None:
    asked: list[Any] = []

    def reconcile(_environ: Any, _folder: Any, ended: dict[str, str]) -> Any:
        asked.append(ended)
        # None: the store is away, and the next sweep asks it again.
        return dict.fromkeys(ended, found) if found is not None or len(asked) > 1 else None

    monkeypatch.setattr(attempt, "train_command", lambda *_, **__: ["/nothing"])
    monkeypatch.setattr(attempt, "reconcile_runs", reconcile)
    monkeypatch.setattr(worker, "reconcile_runs", reconcile)
    job = course(made)
    assert (job.state, job.version) == (state, (found or {}).get("version"))
    error = job.error or {"type": None, "message": "/nothing"}
    assert error["type"] == (None if found else "FileNotFoundError")
    assert "/nothing" in error["message"]
    assert made._queue.unfinished() == (found is None)
    made._sweep()
    assert asked == [{job.job_id: "failed"}] * (2 if found is None else 1)
    assert not made._queue.unfinished()


def test_a_worker_that_cannot_go_round_ends_and_says_why(
    made: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    made._queue.submit(Request(""))
    monkeypatch.setattr(made, "_take_over", broken)
    monkeypatch.setattr(made, "_launch", lambda: None)
    monkeypatch.setattr(made, "_hand_out_again", lambda _: None)
    reported: list[str] = []
    with pytest.raises(ValueError, match="mine"):
        made.run(reported.append)
    assert reported == [made._id]
    assert made._left.is_set()


def test_what_ended_jobs_left_behind_is_put_away(work: Workplace, made: Worker) -> None:
    ended, waits = (made._queue.submit(Request("")).job_id for _ in range(2))
    made._queue.cancel(ended)
    folders = [
        home / "jobs" / job_id
        for home in (work.root, work.checkpoints)
        for job_id in (ended, waits, "notes-of-somebody")
    ]
    for folder in folders:
        folder.mkdir(parents=True)
    made._sweep()
    left = {folder.name for folder in folders if folder.exists()}
    assert left == {waits, "notes-of-somebody"}
