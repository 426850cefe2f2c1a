"""After the training: what `[jobs] promote` asks for is done, and done once."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.jobs.fake import FakeWorker, LostError

from mindtrace.config.settings import Settings, load_settings
from mindtrace.jobs.attempt import Workplace
from mindtrace.jobs.job import Request
from mindtrace.jobs.process import listed_environment
from mindtrace.jobs.promote import promote
from mindtrace.jobs.queue import JobQueue
from mindtrace.service import jobs
from mindtrace.service.promotion import history

pytestmark = pytest.mark.slow
OUTCOME = {"state": "succeeded", "model_name": "digits", "version": 1, "reused": False}


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    """A ROOT with version 1 of `digits`, its champion, that may be changed."""
    return Path(shutil.copytree(trained, tmp_path / "root"))


@pytest.fixture
def worker(root: Path) -> Iterator[FakeWorker]:
    queue = JobQueue(None, root, 1)
    settings = settings_of(root, "never")
    work = Workplace(
        queue=queue,
        root=settings.dirs.root,
        checkpoints=settings.dirs.checkpoints,
        environ=listed_environment(os.environ, jobs.own_places(settings)),
        stopping=threading.Event(),
    )
    yield FakeWorker(queue, queue.submit(Request("")).job_id, work=work).begin()
    queue.close()


def settings_of(root: Path, policy: str) -> Settings:
    return load_settings(sets=[f"DIR_PATHS.ROOT={root}", f"jobs.promote={policy}"], environ={})


def decided(settings: Settings, worker: FakeWorker, outcome: dict[str, object] = OUTCOME) -> object:
    return promote(worker.attempt, outcome, settings.jobs.promote)


@pytest.mark.parametrize(
    ("policy", "outcome"),
    [
        ("never", OUTCOME),
        ("gate", {"state": "failed"}),
        ("always", {**OUTCOME, "reused": True}),
    ],
)
def test_nobody_asked(
    root: Path, worker: FakeWorker, policy: str, outcome: dict[str, object]
) -> None:
    assert decided(settings_of(root, policy), worker, outcome) is None


def test_the_champion_itself(root: Path, worker: FakeWorker) -> None:
    settings = settings_of(root, "gate")
    found = decided(settings, worker)
    assert found == {"promoted": True, "verdict": None, "message": "digits/1 is the champion"}
    assert len(history(settings, "digits")) == 1


def test_who_asked_for_the_job_has_the_say(root: Path, worker: FakeWorker) -> None:
    """Not the worker, which may be of another machine with another configuration."""
    worker.attempt.request = Request("", promote="never")
    assert decided(settings_of(root, "always"), worker) is None
    worker.attempt.request = Request("", promote="gate")
    found = decided(settings_of(root, "never"), worker)
    assert found == {"promoted": True, "verdict": None, "message": "digits/1 is the champion"}


def test_who_lost_the_job_decides_nothing(root: Path, worker: FakeWorker) -> None:
    FakeWorker(worker.queue, worker.job_id, "heir")
    with pytest.raises(LostError):
        decided(settings_of(root, "always"), worker)
    assert len(history(settings_of(root, "always"), "digits")) == 1


def test_what_cannot_be_done_is_told(root: Path, worker: FakeWorker) -> None:
    found = decided(settings_of(root, "always"), worker, {**OUTCOME, "version": 9})
    assert isinstance(found, dict)
    assert found["promoted"] is False
    assert "no version 'digits/9'" in found["message"]


def test_a_decision_is_found_again_after_a_crash(root: Path, worker: FakeWorker) -> None:
    from mindtrace.registry.champions import ChampionLog
    from mindtrace.registry.store import Store

    settings = settings_of(root, "gate")
    store = Store(settings.registry.tracking_uri, root)
    run_id = store.client.get_model_version("digits", "1").run_id
    assert ChampionLog.of_store(store, "digits").append(
        expected=1,
        action="refuse",
        to=1,
        by="w",
        run_id=run_id,
        reason=f"job {worker.job_id}",
        verdict="HOLD",
    )
    # The one that wrote this died; whoever goes on asks the history, and nobody else.
    assert decided(settings, worker) == {"promoted": False, "verdict": "HOLD", "message": None}
    assert len(history(settings, "digits")) == 2
