"""After the training: what `[jobs] promote` asks for is done, and done once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.jobs.fake import FakeWorker

from mindtrace.config.settings import Settings, load_settings
from mindtrace.errors import ConflictError, InterruptedByUser, StoreError, UsageError
from mindtrace.jobs.attempt import Workplace
from mindtrace.jobs.job import Request
from mindtrace.jobs.queue import RegistrationGuard
from mindtrace.jobs.reconcile import reconcile_runs
from mindtrace.service import promotion as module
from mindtrace.service.promotion import history, promote_for_job

FOUND = {"promoted": False, "verdict": "HOLD", "message": "too few images"}


@pytest.fixture
def worker(work: Workplace) -> FakeWorker:
    job_id = work.queue.submit(Request("")).job_id
    return FakeWorker(work.queue, job_id, work=work).begin()


def guard_of(worker: FakeWorker) -> RegistrationGuard:
    return RegistrationGuard(worker.job_id, worker.fence, False, worker.queue)


class KilledError(BaseException):
    """The process is no more."""


class Registry:
    """The history of champions, and a gate that says HOLD; `before` and `after` it decides."""

    def __init__(self) -> None:
        self.entries = [SimpleNamespace(to=7, action="promote", verdict="PROMOTE", reason=None)]
        self.asked: list[dict[str, Any]] = []
        self.read: Callable[[], None] = lambda: None
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None

    def history(self, *_: Any) -> list[Any]:
        found = [*self.entries]
        self.read()
        return found

    def promote(self, _: Settings, ref: str, **asked: Any) -> Any:
        self.asked.append({"ref": ref, **asked})
        self.before()
        if asked["if_revision"] != len(self.entries):
            raise ConflictError("others were quicker")
        mine = {"to": 1, "action": "refuse", "verdict": "HOLD", "reason": asked["reason"]}
        self.entries.append(SimpleNamespace(**mine))
        self.after()
        return SimpleNamespace(promoted=False, verdict="HOLD", reasons=("too few images",))


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    found = Registry()
    monkeypatch.setattr(module, "history", found.history)
    monkeypatch.setattr(module, "promote", found.promote)
    return found


def decide(worker: FakeWorker, policy: str = "gate") -> dict[str, Any] | None:
    settings = load_settings(sets=["DIR_PATHS.ROOT=/none", f"jobs.promote={policy}"], environ={})
    return promote_for_job(settings, "digits", 1, guard_of(worker))


def once(*acts: Callable[[], None]) -> Callable[[], None]:
    """Does these, one a call, and then nothing."""
    left = [*acts]
    return lambda: left.pop(0)() if left else None


def raises(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def test_nobody_asked(worker: FakeWorker, registry: Registry) -> None:
    assert decide(worker, "never") is None
    assert registry.asked == []


@pytest.mark.parametrize(("policy", "force"), [("gate", False), ("always", True)])
def test_it_is_decided_at_the_revision_that_was_read(
    worker: FakeWorker, registry: Registry, policy: str, force: bool
) -> None:
    others = SimpleNamespace(to=6, action="promote", verdict=None, reason="by hand")
    registry.before = once(lambda: registry.entries.append(others))
    assert decide(worker, policy) == FOUND
    asked = {"ref": "digits/1", "reason": f"job {worker.job_id}", "force": force, "check": False}
    assert registry.asked == [{**asked, "if_revision": 1}, {**asked, "if_revision": 2}]


@pytest.mark.parametrize("moment", ["read", "before", "after"])
@pytest.mark.parametrize("fault", [KilledError(), StoreError("away")])
def test_an_attempt_that_dies_at_any_moment_leaves_one_decision(
    worker: FakeWorker, registry: Registry, moment: str, fault: BaseException
) -> None:
    setattr(registry, moment, once(raises(fault)))
    with pytest.raises(type(fault)):
        decide(worker)
    heir = FakeWorker(worker.queue, worker.job_id, "heir")
    message = None if moment == "after" else FOUND["message"]
    assert decide(heir) == {**FOUND, "message": message}
    assert len(registry.entries) == 2


def test_who_lost_the_job_decides_nothing(worker: FakeWorker, registry: Registry) -> None:
    FakeWorker(worker.queue, worker.job_id, "heir")
    with pytest.raises(InterruptedByUser):
        decide(worker, "always")
    assert registry.asked == []


def test_of_an_attempt_that_was_thought_dead_and_its_heir_one_decides(
    worker: FakeWorker, registry: Registry
) -> None:
    def heir() -> None:
        assert decide(FakeWorker(worker.queue, worker.job_id, "heir")) == FOUND

    registry.before = once(heir)  # the first one sleeps between its checks and its decision
    with pytest.raises(InterruptedByUser):
        decide(worker)
    assert len(registry.entries) == 2


@pytest.mark.parametrize(
    ("fault", "tries"), [(ConflictError("quicker"), 5), (UsageError("other classes"), 1)]
)
def test_what_cannot_be_decided_is_told(
    worker: FakeWorker, registry: Registry, fault: Exception, tries: int
) -> None:
    registry.before = raises(fault)
    assert decide(worker) == {"promoted": False, "verdict": None, "message": str(fault)}
    assert len(registry.asked) == tries


@pytest.mark.proof
@pytest.mark.slow
def test_a_real_registry(trained: Path, worker: FakeWorker) -> None:
    root = worker.attempt.work.root
    shutil.copytree(trained, root, dirs_exist_ok=True)
    settings = load_settings(sets=[f"DIR_PATHS.ROOT={root}", "jobs.promote=gate"], environ={})
    guard = guard_of(worker)
    found = promote_for_job(settings, "digits", 1, guard)
    assert found == {"promoted": True, "verdict": None, "message": "digits/1 is the champion"}
    missing = promote_for_job(settings, "digits", 9, guard)
    assert missing is not None
    assert (missing["promoted"], "no version 'digits/9'" in missing["message"]) == (False, True)
    assert len(history(settings, "digits")) == 1

    environ, folder = worker.attempt.work.environ, root / "jobs"
    assert reconcile_runs(environ, folder, {worker.job_id: "failed"}) == {}
    away = {**environ, "REGISTRY__TRACKING_URI": "sqlite:////dev/null/mlflow.db"}
    assert reconcile_runs(away, folder, {worker.job_id: "failed"}) is None
