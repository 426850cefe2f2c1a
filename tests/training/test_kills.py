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

from mindtrace.training.checkpoint import LAST

EPOCHS = 60
WORDS = ["--source", "digits", "--max-epochs", str(EPOCHS), "--lr", "0.003", "--json"]
PATIENCE = 120  # seconds: for a process that does not come to its point

pytestmark = [pytest.mark.slow, pytest.mark.proof]


def begin(*more: str) -> subprocess.Popen[str]:
    # One thread: with more, the weights depend on how many were there.
    return subprocess.Popen(
        [sys.executable, "-m", "mindtrace", "train", *WORDS, "--set", "compute.threads=1", *more],
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIR_PATHS__ROOT", str(tmp_path_factory.mktemp("uninterrupted")))
        return finished(begin())


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
)
def test_a_stopped_training_says_how_to_go_on_and_ends_with_the_same_weights(
    root: Path, uninterrupted: dict[str, object], signum: signal.Signals, code: int
) -> None:
    process = begin()
    wait_for_epoch(process, 3)
    process.send_signal(signum)
    out, err = process.communicate(timeout=PATIENCE)

    assert process.returncode == code, err
    assert out == ""
    (folder,) = checkpoint_folders(root)
    assert f"--resume {folder.name}" in error_of(err)["hint"]
    assert run_status(root, folder.name) == "KILLED"

    if signum == signal.SIGTERM:
        other = begin("--resume", "last", "--set", "train.seed=7")
        _, err = other.communicate(timeout=PATIENCE)
        assert other.returncode == 2
        assert "[train] seed was 0, is 7" in error_of(err)["message"]

    document = finished(begin("--resume", folder.name))
    assert document["weights_digest"] == uninterrupted["weights_digest"]
    assert document["metrics"] == uninterrupted["metrics"]
    assert document["run_id"] == folder.name
    assert run_status(root, folder.name) == "FINISHED"
    assert checkpoint_folders(root) == []

    if signum == signal.SIGTERM:
        process = begin("--resume", "last")
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 4, err


def test_kill_9_at_random_moments_leaves_a_checkpoint_that_goes_on(
    root: Path, uninterrupted: dict[str, object], soak: int
) -> None:
    chance = random.Random(0)
    process = begin()
    wait_for_epoch(process, 2)
    kills = 0
    while kills < (2 if soak == 1 else 4 * soak):
        # Anywhere: within an epoch, a checkpoint's write, between rename and sync.
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        process.communicate(timeout=PATIENCE)
        kills += 1
        process = begin("--resume", "last")
        if next(epochs(process), EPOCHS) == EPOCHS:
            # Nothing is left to kill: this one ends, and another begins.
            assert finished(process)["weights_digest"] == uninterrupted["weights_digest"]
            process = begin()
            wait_for_epoch(process, 2)
    document = finished(process)

    assert document["weights_digest"] == uninterrupted["weights_digest"]
    assert document["metrics"] == uninterrupted["metrics"]
