"""A ROOT that an earlier release wrote goes on: read, served, promoted, verified, resumed.

`make_old_root.py` tells what it holds and how it was made. Everything here goes through the
command line and HTTP.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from pathlib import Path
from typing import Any

import pytest
from tests.contract.old_root import OldRoot, unpack
from tests.contract.process import PATIENCE, answer, answers, program, run, server

pytestmark = pytest.mark.slow

VERSIONS = ["digits/1", "digits/2", "digits/3", "digits/4"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> OldRoot:
    """For tests that change nothing."""
    return unpack(tmp_path_factory.mktemp("old"))


@pytest.fixture
def old(tmp_path: Path) -> OldRoot:
    return unpack(tmp_path)


def _names(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(f"{row['model_name']}/{row['version']}" for row in rows)


def _jobs(root: Path) -> dict[str, dict[str, Any]]:
    return {job["state"]: job for job in answers(root, "jobs", "list")}


def _images(old: OldRoot, ref: str) -> list[Path]:
    return sorted(old.colours.rglob("*.png")) if ref.startswith("colours") else [old.digit]


def test_versions_and_aliases_are_listed(shared: OldRoot) -> None:
    rows = answers(shared.root, "registry", "list")

    assert _names(rows) == ["colours/1", *VERSIONS]
    aliases = {name: row["aliases"] for name, row in zip(_names(rows), _sorted(rows), strict=True)}
    assert aliases == {
        "colours/1": ["champion"],
        "digits/1": ["champion"],
        "digits/2": ["staging"],
        "digits/3": [],
        "digits/4": [],
    }
    found = answers(shared.root, "registry", "list", "--where", "val_acc > 0.9 and seed = 1")
    assert _names(found) == ["digits/2"]


def _sorted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["model_name"], row["version"]))


def test_a_version_is_shown_with_all_that_is_known(shared: OldRoot) -> None:
    shown = answer(shared.root, "registry", "show", "digits@staging")

    assert shown["version"] == 2
    assert shown["params"]["model.hidden"] == "16"
    assert shown["params"]["train.max_epochs"] == "6"
    assert shown["environment"]["mindtrace"] == "0.1.0"
    assert shown["seed"] == 1
    assert shown["metrics"]["test_acc"] > 0.9
    assert {"model.onnx", "model.safetensors", "golden.json"} <= set(shown["files"])
    by_job = answer(shared.root, "registry", "show", "digits/4")
    assert by_job["job_id"] == _jobs(shared.root)["succeeded"]["job_id"]


def test_the_history_is_whole(shared: OldRoot) -> None:
    rows = answers(shared.root, "registry", "history", "digits")

    assert [(row["revision"], row["action"], row["from"], row["to"]) for row in rows] == [
        (4, "rollback", 2, 1),
        (3, "refuse", 2, 3),
        (2, "promote", 1, 2),
        (1, "promote", None, 1),
    ]
    assert [row["verdict"] for row in rows] == [None, "REJECT", "PROMOTE", None]
    assert rows[0]["reason"] == "the old one was better"


def test_every_version_is_what_was_registered(shared: OldRoot) -> None:
    rows = answers(shared.root, "registry", "verify", "--all")

    assert {row["state"] for row in rows} == {"verified"}, rows
    versions = [row for row in rows if row["version"] is not None]
    assert _names(versions) == ["colours/1", *VERSIONS]
    (exported, *_) = answers(shared.root, "registry", "verify", str(shared.exported))
    assert exported["state"] == "verified"


@pytest.mark.parametrize("ref", ["colours/1", *VERSIONS, "digits@staging", "exported"])
def test_it_predicts(shared: OldRoot, ref: str) -> None:
    images = _images(shared, ref)
    rows = answers(shared.root, "predict", *map(str, images), "--model", ref)

    assert [row["path"] for row in rows] == [str(path) for path in images]
    assert [len(row["probabilities"]) for row in rows] == [3 if len(rows) > 1 else 10] * len(rows)
    if ref == "colours/1":
        assert [row["class_name"] for row in rows] == [path.parent.name for path in images]
    if ref in {"digits/1", "digits/2", "exported"}:
        assert rows[0]["class_name"] == "0"
        assert rows[0]["confidence"] > 0.5


def test_what_is_exported_is_the_version(shared: OldRoot) -> None:
    words = ("predict", str(shared.digit), "--model")
    exported = answer(shared.root, *words, "exported")
    registered = answer(shared.root, *words, "digits/1")

    assert exported["probabilities"] == pytest.approx(registered["probabilities"], abs=1e-6)


def test_versions_are_compared(shared: OldRoot) -> None:
    comparison = answer(shared.root, "registry", "compare", "digits/1", "digits/3")

    assert comparison["n"] == 359
    assert comparison["verdict"] == "REJECT"
    difference = answer(shared.root, "registry", "diff", "digits/1", "digits/2")
    assert difference["configuration"]["train.seed"] == ["0", "1"]


def test_champions_change(old: OldRoot) -> None:
    refused = run(old.root, "registry", "promote", "digits/3", "--json")
    assert refused.returncode == 3, refused.stderr
    promoted = answer(old.root, "registry", "promote", "digits/2")
    assert promoted["verdict"] == "PROMOTE"
    assert promoted["revision"] == 6
    assert answer(old.root, "registry", "rollback", "digits")["to"] == 1
    again = run(old.root, "registry", "rollback", "digits", "--json")
    assert again.returncode == 5, again.stdout
    assert answer(old.root, "registry", "show", "digits")["version"] == 1
    rows = answers(old.root, "registry", "history", "digits")
    assert [row["revision"] for row in rows] == [7, 6, 5, 4, 3, 2, 1]
    states = answers(old.root, "registry", "verify", "--all")
    assert {row["state"] for row in states} == {"verified"}


def test_it_is_served(old: OldRoot) -> None:
    with server(old.root, "--no-worker", "--set", "registry.model_name=digits") as client:
        image = {"content": old.digit.read_bytes(), "headers": {"Content-Type": "image/png"}}
        first = client.post("/inference", **image)
        assert first.status_code == 200, first.text
        assert (first.json()["version"], first.json()["class_name"]) == (1, "0")

        history = client.get("/models/digits/history")
        assert [row["revision"] for row in history.json()["items"]] == [4, 3, 2, 1]
        versions = client.get("/models/digits/versions").json()["items"]
        assert _names(versions) == VERSIONS
        states = {job["state"] for job in client.get("/jobs").json()["items"]}
        assert "succeeded" in states

        match = {"If-Match": history.headers["ETag"]}
        promoted = client.post("/models/digits/promote", json={"version": 2}, headers=match)
        assert promoted.status_code == 200, promoted.text
        until = time.monotonic() + PATIENCE
        while client.post("/inference", **image).json()["version"] != 2:
            assert time.monotonic() < until, "the server kept the champion before"
            time.sleep(0.1)


def test_a_version_of_photos_is_served(shared: OldRoot) -> None:
    image = (shared.colours / "red" / "00.png").read_bytes()
    with server(shared.root, "--no-worker", "--model", "colours/1") as client:
        answer = client.post("/inference", content=image, headers={"Content-Type": "image/png"})

    assert answer.json()["class_name"] == "red"


def test_an_interrupted_training_goes_on(old: OldRoot) -> None:
    (folder,) = (path for path in (old.root / "checkpoints").iterdir() if path.name != "jobs")
    settings = ("data.source=digits", "model.hidden=16", "train.lr=0.003", "train.max_epochs=40")
    settings += ("compute.threads=1", "compute.precision=32", "compute.device=cpu")
    sets = [word for setting in settings for word in ("--set", setting)]
    other = run(old.root, "train", *sets, "--seed", "7", "--resume", "last", "--json")
    assert other.returncode == 2, other.stderr
    done = run(old.root, "train", *sets, "--resume", "last", "--json")
    assert done.returncode == 0, done.stderr

    trained = json.loads(done.stdout)
    assert trained["run_id"] == folder.name
    assert (trained["model_name"], trained["version"]) == ("digits", 5)
    assert trained["metrics"]["test_acc"] > 0.9
    epochs = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    first = next(event["epoch"] for event in epochs if event["event"] == "epoch")
    assert first > 1  # it did not begin again
    (row, *_) = answers(old.root, "registry", "verify", "digits/5")
    assert row["state"] == "verified"
    # The newest stays, and what an alias or the history names.
    (gone,) = answers(old.root, "registry", "gc", "digits", "--keep", "1")
    assert {key: gone[key] for key in ("model_name", "version", "removed")} == {
        "model_name": "digits",
        "version": 4,
        "removed": True,
    }
    assert set(gone) == {"schema_version", "created_at", "bundle_digest", "removed"} | {
        "model_name",
        "version",
    }


def test_a_job_that_ended_is_listed(shared: OldRoot) -> None:
    job = _jobs(shared.root)["succeeded"]

    assert (job["model_name"], job["version"]) == ("digits", 4)
    assert job["progress"]["epoch"] == 2
    assert answer(shared.root, "jobs", "show", job["job_id"])["state"] == "succeeded"


def test_a_job_that_waited_runs_or_is_named_with_the_command_that_submits_it(
    old: OldRoot,
) -> None:
    """Either a worker runs it, or what says so names its id and a `mindtrace retrain` command.

    The command may stand in what `jobs list` and `jobs show` or the worker say.
    """
    said = ""
    for words in (("jobs", "list"), ("jobs", "list", "--json")):
        done = run(old.root, *words)
        assert done.returncode == 0, done.stderr
        said += done.stdout + done.stderr
    command = _command(said)
    if command is None:
        job_id = _jobs(old.root)["queued"]["job_id"]
        with program(old.root, "worker"):
            job = _wait_for_the_end(old.root, job_id)
    else:
        submitted = answer(old.root, *shlex.split(command)[1:])
        with program(old.root, "worker"):
            job = _wait_for_the_end(old.root, submitted["job_id"])
    assert job["state"] == "succeeded", job
    shown = answer(old.root, "registry", "show", f"digits/{job['version']}")
    assert shown["version"] == 5
    assert (shown["seed"], shown["params"]["train.max_epochs"]) == (5, "1")
    assert shown["params"]["model.hidden"] == "16"


def _command(said: str) -> str | None:
    """The command in a text that submits a job again."""
    found = re.search(r"mindtrace retrain (?:(?!\\n|\").)+", said)
    return None if found is None else found[0].rstrip("`'. ")


def _wait_for_the_end(root: Path, job_id: str) -> dict[str, Any]:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        job = answer(root, "jobs", "show", job_id)
        if job["ended_at"] is not None:
            return job
        time.sleep(2)  # a look costs the training a core
    raise AssertionError(f"job {job_id} did not end")
