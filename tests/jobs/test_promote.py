"""After the training: what `[jobs] promote` asks for is done, and done once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.jobs.fake import FakeWorker, LostError

from mindtrace.config.settings import load_settings
from mindtrace.jobs import promote as module
from mindtrace.jobs.attempt import Attempt, Workplace
from mindtrace.jobs.job import Request
from mindtrace.jobs.promote import promote
from mindtrace.jobs.reconcile import reconcile_runs
from mindtrace.service.promotion import history
from mindtrace.system import ChildResult

OUTCOME = {"state": "succeeded", "model_name": "digits", "version": 1, "reused": False}
ENTRY = {"revision": 3, "to": 7, "action": "promote", "verdict": "PROMOTE", "reason": None}


@pytest.fixture
def worker(work: Workplace) -> FakeWorker:
    job_id = work.queue.submit(Request("")).job_id
    return FakeWorker(work.queue, job_id, work=work).begin()


class Registry:
    """Answers in the place of `mindtrace registry`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.history: list[dict[str, Any]] = [ENTRY]
        self.promoted: list[ChildResult] = []  # what `promote` answers, in turn

    def ask(self, _: Attempt, *words: str) -> ChildResult:
        self.asked.append(words)
        if words[0] == "promote":
            return self.promoted.pop(0)
        return ChildResult(0, "\n".join(map(json.dumps, self.history)).encode(), b"")


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    found = Registry()
    monkeypatch.setattr(module, "_registry", found.ask)
    return found


def result(**fields: Any) -> ChildResult:
    return ChildResult(0, json.dumps(fields).encode(), b"")


def error(kind: str, message: str) -> ChildResult:
    fields = {"error": {"type": kind, "message": message}}
    return ChildResult(1, b"", json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("policy", "own", "outcome"),
    [
        ("never", None, OUTCOME),
        ("gate", None, {"state": "failed"}),
        ("always", None, {**OUTCOME, "reused": True}),
        # Not the worker has the say, which may be of another machine.
        ("always", "never", OUTCOME),
    ],
)
def test_nobody_asked(
    worker: FakeWorker, registry: Registry, policy: str, own: str | None, outcome: dict[str, Any]
) -> None:
    worker.attempt.request = Request("", promote=own)
    assert promote(worker.attempt, outcome, policy) is None
    assert registry.asked == []


@pytest.mark.parametrize(("policy", "force"), [("gate", []), ("always", ["--force"])])
def test_it_is_promoted_at_the_revision_that_was_read(
    worker: FakeWorker, registry: Registry, policy: str, force: list[str]
) -> None:
    registry.promoted = [
        error("ConflictError", "others were quicker"),
        result(promoted=False, verdict="HOLD", reasons=["too few images"]),
    ]
    worker.attempt.request = Request("", promote=policy)
    found = promote(worker.attempt, OUTCOME, "never")
    assert found == {"promoted": False, "verdict": "HOLD", "message": "too few images"}
    reason = ["--reason", f"job {worker.job_id}"]
    asked = ("promote", "digits/1", *reason, *force, "--if-revision", "3")
    assert registry.asked[1::2] == [asked, asked]


def test_who_lost_the_job_decides_nothing(worker: FakeWorker, registry: Registry) -> None:
    FakeWorker(worker.queue, worker.job_id, "heir")
    with pytest.raises(LostError):
        promote(worker.attempt, OUTCOME, "always")
    assert [words[0] for words in registry.asked] == ["history"]


def test_a_decision_is_found_again_after_a_crash(worker: FakeWorker, registry: Registry) -> None:
    mine = {"to": 1, "action": "refuse", "verdict": "HOLD", "reason": f"job {worker.job_id}"}
    registry.history = [ENTRY, {**ENTRY, **mine}]
    # The one that wrote this died; whoever goes on asks the history, and nobody else.
    found = promote(worker.attempt, OUTCOME, "gate")
    assert found == {"promoted": False, "verdict": "HOLD", "message": None}
    assert [words[0] for words in registry.asked] == ["history"]


def test_what_others_change_all_the_time_is_told(worker: FakeWorker, registry: Registry) -> None:
    registry.promoted = [error("ConflictError", "others were quicker")] * 9
    found = promote(worker.attempt, OUTCOME, "gate")
    assert found == {"promoted": False, "verdict": None, "message": "others were quicker"}


@pytest.mark.proof
@pytest.mark.slow
def test_a_real_registry(trained: Path, worker: FakeWorker) -> None:
    root = worker.attempt.work.root
    shutil.copytree(trained, root, dirs_exist_ok=True)
    found = promote(worker.attempt, OUTCOME, "gate")
    assert found == {"promoted": True, "verdict": None, "message": "digits/1 is the champion"}
    missing = promote(worker.attempt, {**OUTCOME, "version": 9}, "always")
    assert missing is not None
    assert (missing["promoted"], "no version 'digits/9'" in missing["message"]) == (False, True)
    settings = load_settings(sets=[f"DIR_PATHS.ROOT={root}"], environ={})
    assert len(history(settings, "digits")) == 1

    environ, folder = worker.attempt.work.environ, root / "jobs"
    assert reconcile_runs(environ, folder, {worker.job_id: "failed"}) == {}
    away = {**environ, "REGISTRY__TRACKING_URI": "sqlite:////dev/null/mlflow.db"}
    assert reconcile_runs(away, folder, {worker.job_id: "failed"}) is None
