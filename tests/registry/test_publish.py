"""A version comes into being whole or not at all, and is found again by its job or training."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

import mlflow.pyfunc
import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from tests.registry.conftest import Publish, plain_version

from mindtrace.bundle import manifest
from mindtrace.bundle.bundle import Contents, weights_digest
from mindtrace.bundle.predictions import GoldenCase
from mindtrace.bundle.predictor import Predictor
from mindtrace.config.settings import Settings
from mindtrace.errors import BundleError, InterruptedByUser, StoreError
from mindtrace.registry.champions import ChampionLog, ensure_model
from mindtrace.registry.provenance import code_digest, environment, git_state, who
from mindtrace.registry.publish import close_runs, find_identical, find_registered, having
from mindtrace.registry.reader import open_database
from mindtrace.registry.reference import locate
from mindtrace.registry.store import Store, start_run
from mindtrace.version import VERSION

SAME = {"config_digest": "c", "data_digest": "d", "code_digest": code_digest()}


def champions(store: Store) -> list[tuple[int, int, str, str]]:
    entries = ChampionLog(store.reader(), "digits").entries()
    return [(entry.revision, entry.to, entry.action, entry.by) for entry in entries]


def require_nothing(root: Path) -> None:
    """No version, no champion, nothing in staging."""
    assert open_database(root / "mlflow.db").versions(None, 9) == []
    assert not list(root.glob("staging/*"))


def test_what_is_registered_is_whole_and_the_first_one_is_champion(
    register: Publish, store: Store, settings: Settings, packed: Contents
) -> None:
    published = register(metadata={"seed": "3", "parent": "digits/1", "note": "ü" * 300})

    assert (published.label, published.aliases) == ("digits/1", ("champion",))
    assert champions(store) == [(1, 1, "promote", who())]
    located = locate(settings, "digits/1")
    assert located.digest == published.own_tags["bundle_digest"]
    assert not manifest.orphans(located.folder)
    predictor = Predictor.open(located.folder, located.digest)
    assert predictor.model_config == packed.model_config
    assert published.own_tags["weights_digest"] == weights_digest(packed.weights)
    assert located.row is not None
    tags = located.row.own_tags
    assert (tags["seed"], tags["note"]) == ("3", "ü" * 300)
    assert tags["bundle_digest"] == published.own_tags["bundle_digest"]
    assert tags["weights_digest"] == published.own_tags["weights_digest"]
    assert list((store.root / "staging").iterdir()) == []
    images = np.zeros((3, 1, 8, 8), np.float32)
    model = mlflow.pyfunc.load_model(str(located.folder))
    answers = model.predict(images)
    said = model.metadata.metadata["input"]
    assert said == json.loads(json.dumps(packed.model_config.spec.document()))
    assert (said["mode"], said["height"], said["scale"]) == ("L", 8, [0.0, 1.0])
    np.testing.assert_allclose(answers["probabilities"], predictor.run_input(images), atol=1e-6)

    second = register()

    assert (second.version, second.aliases) == (2, ())
    assert second.own_tags["bundle_digest"] == published.own_tags["bundle_digest"], (
        "neither times nor random ids"
    )
    assert champions(store) == [(1, 1, "promote", who())]


def test_a_bundle_that_does_not_answer_rightly_is_not_registered(
    register: Publish, packed: Contents, root: Path
) -> None:
    cases = [GoldenCase(case.image, case.probabilities[::-1].copy()) for case in packed.golden]
    with pytest.raises(BundleError):
        register(contents=dataclasses.replace(packed, golden=cases))
    require_nothing(root)
    assert not list(root.glob("mlartifacts/*/artifacts/bundle/*"))


def no_space(*arguments: Any, **options: Any) -> None:
    raise OSError(28, "No space left on device")


def refused(*arguments: Any, **options: Any) -> None:
    raise MlflowException("the store went away")


def interrupted(*arguments: Any, **options: Any) -> None:
    raise InterruptedByUser(15)


def test_a_failure_at_any_stage_leaves_no_version(
    register: Publish, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, failure in (
        ("mindtrace.registry.publish.write_contents", no_space),
        ("mindtrace.bundle.manifest.seal", no_space),
        ("mindtrace.registry.publish.add_mlflow_files", refused),
        ("mindtrace.registry.publish._upload", no_space),
        ("mindtrace.registry.publish._upload", refused),
        ("mindtrace.registry.publish.ensure_model", refused),
        ("mlflow.MlflowClient.create_model_version", refused),
    ):
        with monkeypatch.context() as patched, pytest.raises(StoreError) as caught:
            patched.setattr(place, failure)
            register()
        assert "\n" not in caught.value.message
        require_nothing(root)
    with pytest.raises(InterruptedByUser):
        register(before_register=interrupted)
    require_nothing(root)
    assert register().version == 1, "the next one has the field to itself"


def test_of_several_first_versions_at_once_one_is_champion(register: Publish, store: Store) -> None:
    together = threading.Barrier(3)
    published: list[Any] = []

    def one() -> None:
        together.wait()
        published.append(register())

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(one.version for one in published) == [1, 2, 3]
    (champion,) = [one.version for one in published if one.aliases]
    assert champions(store) == [(1, champion, "promote", who())]


@pytest.mark.proof
def test_mlflow_itself_loads_the_champion_and_gives_the_same_answers(
    register: Publish, store: Store, tmp_path: Path
) -> None:
    """In a process of its own: `mlflow.set_tracking_uri` is the way of MLflow's users."""
    register()
    np.save(tmp_path / "images.npy", np.zeros((3, 1, 8, 8), np.float32))
    script = (
        "import sys, mlflow, numpy as np; mlflow.set_tracking_uri(sys.argv[1]);"
        "model = mlflow.pyfunc.load_model('models:/digits@champion');"
        "np.save(sys.argv[3], model.predict(np.load(sys.argv[2]))['probabilities'])"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, store.uri, "images.npy", "answers.npy"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=dict(os.environ),
        check=False,
    )

    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "answers.npy")
    located = next(Path(store.root).glob("mlartifacts/*/artifacts/bundle"))
    expected = Predictor.open(located).run_input(np.zeros((3, 1, 8, 8), np.float32))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not (tmp_path / "mlruns").exists()


def test_what_was_left_to_do_is_done(store: Store) -> None:
    """Its author died between the version and the champion, with the run open."""
    run = start_run(store, "digits", None, {})
    ensure_model(store, "digits")
    tags = {"mindtrace.job_id": "j1"}
    store.client.create_model_version(
        "digits", f"runs:/{run.run_id}/bundle", run.run_id, tags=tags, await_creation_for=0
    )
    for _ in range(2):
        found = find_registered(store, "digits", having(job_id="j1"))
        assert found is not None and found.aliases == ("champion",)
        assert [to for _, to, *_ in champions(store)] == [1]
        assert store.client.get_run(run.run_id).info.status == "FINISHED"


@pytest.mark.parametrize(
    "kind",
    [
        "store",
        pytest.param("server_store", marks=pytest.mark.proof),
        pytest.param("postgres_store", marks=[pytest.mark.postgres, pytest.mark.proof]),
    ],
)
def test_versions_and_runs_are_found_by_job_and_by_training(
    kind: str, request: pytest.FixtureRequest
) -> None:
    store: Store = request.getfixturevalue(kind)
    name, other = f"m{uuid4().hex}", f"m{uuid4().hex}"
    mine = having(job_id=name)
    assert find_registered(store, name, mine) is None
    assert find_identical(store, name, "c", "d") is None
    for changes in ({}, {"job_id": name}, {"data_digest": "e"}, {"code_digest": "yesterday's"}):
        plain_version(store, name, **{**SAME, "job_id": "j0", "metric.val_acc": "0.5", **changes})
    plain_version(store, other)
    found = find_registered(store, name, mine)
    assert found is not None and found.label == f"{name}/2"
    assert (found.own_tags["config_digest"], found.best_metrics) == ("c", {"val_acc": 0.5})
    assert find_registered(store, None, mine) == found == find_identical(store, name, "c", "d")
    assert find_registered(store, other, mine) is None
    assert find_registered(store, name, having(job_id="nobody")) is None
    assert find_identical(store, name, "other", "d") is None

    jobs = (name, name, other)
    runs = [
        start_run(store, f"{name}-{place}", None, {"mindtrace.job_id": job_id})
        for place, job_id in enumerate(jobs)
    ]
    runs[1].end("FINISHED")
    close_runs(store, mine, "KILLED")
    statuses = [store.client.get_run(run.run_id).info.status for run in runs]
    assert statuses == ["KILLED", "FINISHED", "RUNNING"]
    for run in runs:
        run.end("KILLED")


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_commit_and_whether_there_are_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = git_state.__wrapped__
    assert state(tmp_path / "nowhere") == {}
    git(tmp_path, "init", "-q")
    assert state(tmp_path) == {}, "there is no commit yet"
    (tmp_path / "train.py").write_text("1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    head = git(tmp_path, "rev-parse", "HEAD")

    (tmp_path / "train.pyc").write_text("what Python makes is no change")
    assert state(tmp_path) == {"git_commit": head, "git_dirty": "false"}
    for path in ("train.py", "models.py"):  # the second one is new
        (tmp_path / path).write_text("2\n")
        assert state(tmp_path) == {"git_commit": head, "git_dirty": "true"}, path
        git(tmp_path, "stash", "-q", "--include-untracked")
    installed = tmp_path / ".venv/mindtrace"
    installed.mkdir(parents=True)
    (installed / "train.py").touch()
    assert state(installed) == {}, "the commit is another project's"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert state(tmp_path) == {}, "there is no git"


def test_the_commit_is_that_of_the_code_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = git_state.__wrapped__()
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "-m", "one", "--allow-empty")
    assert git_state.__wrapped__() == here


def test_what_is_known_of_machine_code_person_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    found = environment()
    assert found["mindtrace"] == VERSION
    assert set(found) >= {"mindtrace", "torch", "lightning", "python", "platform"}
    assert all(found.values())
    assert len(code_digest()) == 64

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert who() == "unknown"
