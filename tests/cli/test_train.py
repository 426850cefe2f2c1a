"""`mindtrace train` as a real process, on digits."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tests.cli.conftest import documents, rows
from tests.conftest import Mindtrace, RunCli

from mindtrace.registry.provenance import git_state, who

QUICK = ("train", "--source", "digits", "--max-epochs", "2", "--set", "compute.threads=1")
FIELDS = {
    *("schema_version", "model_name", "version", "run_id", "metrics", "epochs", "fit_s"),
    *("duration_s", "config_digest", "data_digest", "test_digest", "weights_digest"),
    "bundle_digest",
}
METRICS = {"train_loss", "val_loss", "val_acc", "test_loss", "test_acc"}


def test_every_wrong_option_is_told_at_once(run_cli: RunCli, root: Path) -> None:
    result = run_cli("train", "--max-epochs", "-3", "--source", "mnits", "--lr", "fast")
    assert result.exit_code == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3
    assert any("--max-epochs" in line and "1 or more" in line for line in errors)
    assert list(root.iterdir()) == []


def test_hidden_options_stay_hidden(run_cli: RunCli) -> None:
    text = run_cli("train", "--help").stdout
    assert "--job-id" not in text
    assert "--parent" not in text


@pytest.mark.slow
def test_a_training_in_this_process_and_in_one_of_its_own(
    run_cli: RunCli, mindtrace: Mindtrace, root: Path
) -> None:
    """What a dry run checks, a training goes on to use."""
    plan = run_cli(*QUICK, "--dry-run", "--json")
    assert plan.exit_code == 0, plan.stderr
    assert json.loads(plan.stdout)["max_epochs"] == 2
    assert list(root.rglob("*.db")) == []

    done = run_cli(*QUICK, "--no-register", "--json")
    assert done.exit_code == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome.keys() >= FIELDS, outcome["version"], outcome["epochs"]) == (True, None, 2)
    assert outcome["metrics"].keys() >= METRICS
    events = documents(done.stderr)
    place = f"everything is kept in {root}; [DIR_PATHS] ROOT names another folder"
    assert place in [event.get("text") for event in events]
    assert [event["epoch"] for event in events if event["event"] == "epoch"] == [1, 2]
    assert all(event["schema_version"] == 1 for event in events)
    assert run_cli("registry", "list", "--json").stdout == ""

    done = mindtrace(*QUICK, "--model-name", "tried")
    assert done.returncode == 0, done.stderr
    fields = dict(rows(done.stdout))
    assert not any("{" in value for value in fields.values())
    assert "everything is kept" not in done.stderr  # that is for the first one
    shown = json.loads(run_cli("registry", "show", "tried", "--json").stdout)
    assert shown["duration_s"] == pytest.approx(float(fields["duration_s"]), abs=1e-3)
    assert shown["duration_s"] > float(fields["fit_s"])
    assert (fields["version"], len(fields["weights_digest"])) == ("1", 64)
    assert len([line for line in done.stderr.splitlines() if line.startswith("epoch ")]) == 2
    assert done.stderr.splitlines()[-1] == "next: mindtrace predict IMAGE --model tried/1"

    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    registered, trained = (client.get_run(one["run_id"]) for one in (fields, outcome))
    assert registered.info.run_name == "tried/1 mlp seed 0"
    assert trained.info.run_name == "digits mlp seed 0"
    for run in (registered, trained):
        tags, (used,) = run.data.tags, run.inputs.dataset_inputs
        assert (tags["mlflow.user"], tags["mlflow.source.type"]) == (who(), "LOCAL")
        assert tags.get("mlflow.source.git.commit") == git_state().get("git_commit")
        assert "trains mlp on digits with seed 0" in tags["mlflow.note.content"]
        assert (used.dataset.name, len(used.dataset.digest)) == ("digits", 36)
        assert fields["data_digest"].startswith(used.dataset.digest)
        assert json.loads(used.dataset.profile)["test"] > 0
    assert registered.data.tags["mlflow.source.name"] == "mindtrace train"


@pytest.mark.slow
def test_a_signal_ends_a_training(root: Path, run_cli: RunCli) -> None:
    """The others are in `training/test_kills.py`."""
    words = ("train", "--source", "digits", "--max-epochs", "100000", "--json", "--name", "a run")
    process = subprocess.Popen(
        [sys.executable, "-m", "mindtrace", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    assert process.stderr is not None
    while '"event": "epoch"' not in (line := process.stderr.readline()):
        assert line, "the process ended before its first epoch"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    last = json.loads(err.splitlines()[-1])
    assert (process.returncode, out) == (143, "")
    assert last["error"]["type"] == "InterruptedByUser"
    with closing(sqlite3.connect(root / "mlflow.db")) as store:
        runs = store.execute("select name, status from runs").fetchall()
    assert runs == [("a run", "KILLED")]
    refused = run_cli("train", "--resume", "last", "--name", "another")
    assert refused.stderr.splitlines()[0] == "error: --name is for a new run"
