"""A ROOT that an earlier release wrote goes on: read, served, promoted, verified, resumed.

`conftest.py` tells what it holds. Everything here goes through the command line and HTTP.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from tests.contract.conftest import OldRoot
from tests.contract.process import answer, answers, run, running, server
from tests.waiting import until

pytestmark = pytest.mark.slow

VERSIONS = ["digits/1", "digits/2", "digits/3", "digits/4"]
ALIASES = [["champion"], ["champion"], ["staging"], [], []]


def _names(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(f"{row['model_name']}/{row['version']}" for row in rows)


def _jobs(root: Path) -> dict[str, dict[str, Any]]:
    return {job["state"]: job for job in answers(root, "jobs", "list")}


def test_versions_and_jobs_are_listed(shared: OldRoot) -> None:
    rows = answers(shared.root, "registry", "list")
    rows.sort(key=lambda row: (row["model_name"], row["version"]))
    assert _names(rows) == ["colours/1", *VERSIONS]
    assert [row["aliases"] for row in rows] == ALIASES
    where = ("--where", "val_acc > 0.9 and seed = 1")
    assert _names(answers(shared.root, "registry", "list", *where)) == ["digits/2"]

    shown = answer(shared.root, "registry", "show", "digits@staging")
    assert shown["version"] == 2
    assert shown["params"]["model.hidden"] == "16"
    assert shown["params"]["train.max_epochs"] == "6"
    assert shown["environment"]["mindtrace"] == "0.1.0"
    assert shown["seed"] == 1
    assert shown["metrics"]["test_acc"] > 0.9
    assert {"model.onnx", "model.safetensors", "golden.json"} <= set(shown["files"])

    job = _jobs(shared.root)["succeeded"]
    assert (job["model_name"], job["version"]) == ("digits", 4)
    assert job["progress"]["epoch"] == 2
    assert answer(shared.root, "jobs", "show", job["job_id"])["state"] == "succeeded"
    assert answer(shared.root, "registry", "show", "digits/4")["job_id"] == job["job_id"]


def test_every_version_is_what_was_registered(shared: OldRoot) -> None:
    rows = answers(shared.root, "registry", "verify", "--all")
    assert {row["state"] for row in rows} == {"verified"}, rows
    assert _names([row for row in rows if row["version"]]) == ["colours/1", *VERSIONS]
    (exported, *_) = answers(shared.root, "registry", "verify", str(shared.exported))
    assert exported["state"] == "verified"


def test_every_version_predicts(shared: OldRoot) -> None:
    def rows(ref: str, *images: Path) -> list[dict[str, Any]]:
        found = answers(shared.root, "predict", *map(str, images), "--model", ref)
        assert [row["path"] for row in found] == [str(path) for path in images]
        return found

    images = sorted(shared.colours.rglob("*.png"))
    colours = rows("colours/1", *images)
    assert [row["class_name"] for row in colours] == [path.parent.name for path in images]
    assert {len(row["probabilities"]) for row in colours} == {3}
    digits = {ref: rows(ref, shared.digit)[0] for ref in [*VERSIONS, "digits@staging", "exported"]}
    assert {len(row["probabilities"]) for row in digits.values()} == {10}
    for ref in ("digits/1", "digits/2", "exported"):
        assert digits[ref]["class_name"] == "0"
        assert digits[ref]["confidence"] > 0.5
    same = pytest.approx(digits["digits/1"]["probabilities"], abs=1e-6)
    assert digits["exported"]["probabilities"] == same


def test_versions_are_compared(shared: OldRoot) -> None:
    comparison = answer(shared.root, "registry", "compare", "digits/1", "digits/3")
    assert (comparison["n"], comparison["verdict"]) == (359, "REJECT")
    difference = answer(shared.root, "registry", "diff", "digits/1", "digits/2")
    assert difference["configuration"]["train.seed"] == ["0", "1"]


def test_champions_change(old: OldRoot) -> None:
    rows = answers(old.root, "registry", "history", "digits")
    assert [(row["revision"], row["action"], row["from"], row["to"]) for row in rows] == [
        (4, "rollback", 2, 1),
        (3, "refuse", 2, 3),
        (2, "promote", 1, 2),
        (1, "promote", None, 1),
    ]
    assert [row["verdict"] for row in rows] == [None, "REJECT", "PROMOTE", None]
    assert rows[0]["reason"] == "the old one was better"

    refused = run(old.root, "registry", "promote", "digits/3", "--json")
    assert refused.exit_code == 3, refused.stderr
    promoted = answer(old.root, "registry", "promote", "digits/2")
    assert promoted["verdict"] == "PROMOTE"
    assert promoted["revision"] == 6
    assert answer(old.root, "registry", "rollback", "digits")["to"] == 1
    again = run(old.root, "registry", "rollback", "digits", "--json")
    assert again.exit_code == 5, again.stdout
    assert answer(old.root, "registry", "show", "digits")["version"] == 1
    rows = answers(old.root, "registry", "history", "digits")
    assert [row["revision"] for row in rows] == [7, 6, 5, 4, 3, 2, 1]
    states = answers(old.root, "registry", "verify", "--all")
    assert {row["state"] for row in states} == {"verified"}


def test_it_is_served(old: OldRoot) -> None:
    with server(old.root, "--no-worker") as client:
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
        until(lambda: client.post("/inference", **image).json()["version"] == 2)


def test_a_bundle_without_a_split_rule_keeps_its_split(shared: OldRoot) -> None:
    """Nothing of `colours/1` says that its folder was split by counts."""
    from mindtrace.bundle.bundle import read_data
    from mindtrace.config.settings import load_settings
    from mindtrace.data import build_data

    (folder,) = (
        path.parent
        for path in (shared.root / "mlartifacts").rglob("data.json")
        if '"folder"' in path.read_text()
    )
    recorded = read_data(folder)
    assert "split_rule" not in json.loads((folder / "data.json").read_text())
    text = re.sub(r"(?m)^dir = .*", f"dir = {shared.colours}", (folder / "config.ini").read_text())
    settings = load_settings(text=text, environ={"DIR_PATHS__ROOT": str(shared.folder)})
    digests = [
        build_data(settings, None, rule).digests() for rule in (recorded["split_rule"], "image")
    ]
    assert digests[0].test_digest == recorded["test_digest"] != digests[1].test_digest
    assert {one.data_digest for one in digests} == {recorded["data_digest"]}


@pytest.mark.proof
def test_a_version_of_photos_is_served(shared: OldRoot) -> None:
    image = (shared.colours / "red" / "00.png").read_bytes()
    with server(shared.root, "--no-worker", "--model", "colours/1") as client:
        answer = client.post("/inference", content=image, headers={"Content-Type": "image/png"})

    assert answer.json()["class_name"] == "red"


@pytest.mark.proof
def test_an_interrupted_training_goes_on(old: OldRoot) -> None:
    (folder,) = (path for path in (old.root / "checkpoints").iterdir() if path.name != "jobs")
    settings = ("data.source=digits", "model.hidden=16", "train.lr=0.003", "train.max_epochs=40")
    settings += ("compute.threads=1", "compute.precision=32", "compute.device=cpu")
    sets = [word for setting in settings for word in ("--set", setting)]
    other = run(old.root, "train", *sets, "--seed", "7", "--resume", "last", "--json")
    assert other.exit_code == 2, other.stderr
    done = run(old.root, "train", *sets, "--resume", "last", "--json")
    assert done.exit_code == 0, done.stderr

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
    expected = {"model_name": "digits", "version": 4, "removed": True}
    assert {key: gone[key] for key in expected} == expected
    assert set(gone) == {"schema_version", "created_at", "bundle_digest", *expected}


@pytest.mark.proof
def test_a_job_that_waited_runs(old: OldRoot) -> None:
    """A worker runs it, or `jobs list` names a `mindtrace retrain` command that submits it."""
    said = ""
    for words in (("jobs", "list"), ("jobs", "list", "--json")):
        done = run(old.root, *words)
        assert done.exit_code == 0, done.stderr
        said += done.stdout + done.stderr
    command = re.search(r"mindtrace retrain (?:(?!\\n|\").)+", said)
    if command is None:
        job_id = _jobs(old.root)["queued"]["job_id"]
    else:
        words = shlex.split(command[0].rstrip("`'. "))[1:]
        job_id = answer(old.root, *words)["job_id"]
    with running(old.root, "worker"):
        until(lambda: answer(old.root, "jobs", "show", job_id)["ended_at"])
    job = answer(old.root, "jobs", "show", job_id)
    assert job["state"] == "succeeded", job
    shown = answer(old.root, "registry", "show", f"digits/{job['version']}")
    assert shown["version"] == 5
    assert (shown["seed"], shown["params"]["train.max_epochs"]) == (5, "1")
    assert shown["params"]["model.hidden"] == "16"
