"""After the training: what `[jobs] promote` asks for is done, and done once."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.jobs.test_queue import taken

from mindtrace.config.settings import Settings, load_settings
from mindtrace.jobs.child import listed_environment
from mindtrace.jobs.database import open_database
from mindtrace.jobs.hold import Hold
from mindtrace.jobs.job import Request
from mindtrace.jobs.promote import promote
from mindtrace.jobs.queue import JobQueue
from mindtrace.jobs.supervise import Workplace
from mindtrace.service import history, jobs

pytestmark = pytest.mark.slow
OUTCOME = {"state": "succeeded", "model_name": "digits", "version": 1, "reused": False}


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    """A ROOT with version 1 of `digits`, its champion, that may be changed."""
    return Path(shutil.copytree(trained, tmp_path / "root"))


@pytest.fixture
def hold(root: Path) -> Iterator[Hold]:
    database = open_database(None, root)
    yield taken(database, JobQueue(database, 1).submit(Request("")))
    database.close()


def settings_of(root: Path, policy: str) -> Settings:
    return load_settings(sets=[f"DIR_PATHS.ROOT={root}", f"jobs.promote={policy}"], environ={})


def workplace(settings: Settings, hold: Hold) -> Workplace:
    return Workplace(
        database=hold._database,
        worker_id="w",
        root=settings.dirs.root,
        checkpoints=settings.dirs.checkpoints,
        environ=listed_environment(os.environ, jobs.own_places(settings)),
        stopping=threading.Event(),
    )


def decided(settings: Settings, hold: Hold, outcome: dict[str, object] = OUTCOME) -> object:
    return promote(settings, workplace(settings, hold), hold, outcome)


@pytest.mark.parametrize(
    ("policy", "outcome"),
    [
        ("never", OUTCOME),
        ("gate", {"state": "failed"}),
        ("always", {**OUTCOME, "reused": True}),
    ],
)
def test_nobody_asked(root: Path, hold: Hold, policy: str, outcome: dict[str, object]) -> None:
    assert decided(settings_of(root, policy), hold, outcome) is None


def test_the_champion_itself(root: Path, hold: Hold) -> None:
    settings = settings_of(root, "gate")
    found = decided(settings, hold)
    assert found == {"promoted": True, "verdict": None, "message": "digits/1 is the champion"}
    assert len(history.history(settings, "digits")) == 1


def test_who_asked_for_the_job_has_the_say(root: Path, hold: Hold) -> None:
    """Not the worker, which may be of another machine with another configuration."""
    hold.request = Request("", promote="never")
    assert decided(settings_of(root, "always"), hold) is None
    hold.request = Request("", promote="gate")
    found = decided(settings_of(root, "never"), hold)
    assert found == {"promoted": True, "verdict": None, "message": "digits/1 is the champion"}


def test_who_lost_the_job_decides_nothing(root: Path, hold: Hold) -> None:
    heir = Hold(hold._database, hold.job_id, "heir")
    assert heir.take()
    found = decided(settings_of(root, "always"), hold)
    assert isinstance(found, dict)
    assert found["promoted"] is False
    assert len(history.history(settings_of(root, "always"), "digits")) == 1


def test_what_cannot_be_done_is_told(root: Path, hold: Hold) -> None:
    found = decided(settings_of(root, "always"), hold, {**OUTCOME, "version": 9})
    assert isinstance(found, dict)
    assert found["promoted"] is False
    assert "no version 'digits/9'" in found["message"]


def test_a_decision_is_found_again_after_a_crash(root: Path, hold: Hold) -> None:
    from mindtrace.registry import promotion
    from mindtrace.registry.store import Store

    settings = settings_of(root, "gate")
    store = Store(settings.registry.tracking_uri, root)
    run_id = store.client.get_model_version("digits", "1").run_id
    assert not hold.promoting()
    promotion.append(
        store,
        "digits",
        expected=1,
        action="refuse",
        to=1,
        by="w",
        run_id=run_id,
        reason=f"job {hold.job_id}",
        verdict="HOLD",
    )
    # The one that wrote this died; whoever goes on asks the history, and nobody else.
    assert decided(settings, hold) == {"promoted": False, "verdict": "HOLD", "message": None}
    assert len(history.history(settings, "digits")) == 2
