"""Real processes are stopped and killed; what they leave behind is whole and goes on."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import RunCli, invoke
from tests.moments import command as at

from mindtrace.training.checkpoint import LAST

EPOCHS = 60
# One thread: with more, the weights depend on how many were there.
WORDS = ["--source", "digits", "--max-epochs", str(EPOCHS), "--lr", "0.003", "--json"]
WORDS += ["--set", "compute.threads=1"]
PATIENCE = 120  # seconds: for a process that does not come to its point

pytestmark = [pytest.mark.slow, pytest.mark.proof]


def begin(*more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mindtrace", "train", *WORDS, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )


def epochs(process: subprocess.Popen[str]) -> Iterator[int]:
    """The number of each epoch, as the process tells of it."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("{"):
            event = json.loads(line)
            if event.get("event") == "epoch":
                yield int(event["epoch"])


def wait_for_epoch(process: subprocess.Popen[str], number: int) -> None:
    for epoch in epochs(process):
        if epoch >= number:
            return
    raise AssertionError(f"the training ended before epoch {number}")


def checkpoint_folders(root: Path) -> list[Path]:
    return [path.parent for path in (root / "checkpoints").glob(f"*/{LAST}")]


def run_status(root: Path, run_id: str) -> str:
    with sqlite3.connect(root / "mlflow.db") as connection:
        rows = connection.execute("select status from runs where run_uuid = ?", (run_id,))
        (status,) = rows.fetchone()
    connection.close()
    return str(status)


def error_of(stderr: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(stderr.splitlines()[-1])["error"]
    return found


def finished(process: subprocess.Popen[str]) -> dict[str, object]:
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    document: dict[str, object] = json.loads(out)
    return document


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    root = tmp_path_factory.mktemp("uninterrupted")
    done = invoke("train", *WORDS, env={"DIR_PATHS__ROOT": str(root)})
    assert done.exit_code == 0, done.stderr
    document: dict[str, object] = json.loads(done.stdout)
    return document


@pytest.mark.long
def test_however_often_it_is_ended_it_goes_on_and_ends_with_the_same_weights(
    root: Path, uninterrupted: dict[str, object], run_cli: RunCli, soak: int
) -> None:
    process = begin()
    wait_for_epoch(process, 3)
    run_id = ""
    for signum, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)):
        process.send_signal(signum)
        out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, out) == (code, ""), err
        (folder,) = checkpoint_folders(root)
        assert folder.name == run_id or not run_id
        run_id = folder.name
        assert error_of(err)["type"] == "InterruptedByUser"
        assert f"--resume {run_id}" in error_of(err)["hint"]
        assert run_status(root, run_id) == "KILLED"
        process = begin("--resume", run_id)
        wait_for_epoch(process, 2)

    kills, chance = 0, random.Random(0)
    while kills < (2 if soak == 1 else 4 * soak):
        # Anywhere: within an epoch, a checkpoint's write, between rename and sync.
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        process.communicate(timeout=PATIENCE)
        kills += 1
        if kills == 1:
            other = run_cli("train", *WORDS, "--resume", "last", "--set", "train.seed=7")
            assert other.exit_code == 2
            assert "[train] seed was 0, is 7" in error_of(other.stderr)["message"]
        process = begin("--resume", "last")
        if next(epochs(process), EPOCHS) == EPOCHS:
            # Nothing is left to kill: this one ends, and another begins.
            assert finished(process)["weights_digest"] == uninterrupted["weights_digest"]
            process = begin()
            wait_for_epoch(process, 2)
            (folder,) = checkpoint_folders(root)
            run_id = folder.name
    document = finished(process)

    assert document["weights_digest"] == uninterrupted["weights_digest"]
    assert document["metrics"] == uninterrupted["metrics"]
    assert document["run_id"] == run_id
    assert run_status(root, run_id) == "FINISHED"
    assert checkpoint_folders(root) == []
    assert run_cli("train", *WORDS, "--resume", "last").exit_code == 4


def test_a_training_that_goes_on_is_nobody_elses_and_one_that_was_killed_is_marked(
    root: Path, run_cli: RunCli, uninterrupted: dict[str, object]
) -> None:
    process = begin()
    wait_for_epoch(process, 2)
    (folder,) = checkpoint_folders(root)
    other = run_cli("train", *WORDS, "--resume", folder.name)
    assert other.exit_code == 5, other.stderr
    assert error_of(other.stderr)["message"].endswith(f"{folder.name} goes on in another process")
    process.kill()
    process.communicate(timeout=PATIENCE)
    assert run_status(root, folder.name) == "RUNNING"
    assert run_cli("train", *WORDS, "--max-epochs", "1").exit_code == 0
    assert run_status(root, folder.name) == "FAILED"
    done = run_cli("train", *WORDS, "--resume", "last")
    assert json.loads(done.stdout)["metrics"] == uninterrupted["metrics"], done.stderr
    assert run_status(root, folder.name) == "FINISHED"


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "moment",
    [
        "mindtrace.registry.publish:add_mlflow_files",
        "mindtrace.registry.publish:_upload",
        "mindtrace.registry.publish:ensure_model",
        "mindtrace.registry.publish:promote_first_version",
        "mindtrace.registry.store:Run.end",
    ],
)
def test_kill_9_around_the_registration_makes_one_version(
    root: Path, run_cli: RunCli, moment: str
) -> None:
    words = ["train", *WORDS, "--max-epochs", "2"]
    with subprocess.Popen(
        at("wait", moment, *words), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"now\n"
        process.kill()
    (folder,) = checkpoint_folders(root)
    done = run_cli(*words, "--resume", "last")
    assert (done.exit_code, json.loads(done.stdout)["version"]) == (0, 1), done.stderr
    assert run_status(root, folder.name) == "FINISHED"
    assert (checkpoint_folders(root), list(root.glob("staging/*"))) == ([], [])
    verified = run_cli("registry", "verify", "--all", "--json")
    assert [json.loads(line)["version"] for line in verified.stdout.splitlines()] == [1, None]
    assert verified.exit_code == 0, verified.stdout
