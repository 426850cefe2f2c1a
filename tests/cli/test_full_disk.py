"""A file system that fills up at a chosen moment: one line, exit code, nothing partial, goes on."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from PIL import Image
from tests.cli.conftest import error_of
from tests.conftest import Mindtrace
from tests.moments import command as at

pytestmark = [pytest.mark.slow, pytest.mark.proof]

TRAIN = "train --source digits --max-epochs 1 --set compute.threads=1 --json --set train.seed="
SIZE = "12m"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of a few megabytes with ROOT on it."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no `mount` here")
    if done.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    monkeypatch.setenv("DIR_PATHS__ROOT", str(folder / "root"))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def full_at(moment: str, small: Path, command: str) -> subprocess.CompletedProcess[str]:
    """The command in a process whose file system is full from that moment on."""
    words = at(str(small / "filler"), moment, *command.split())
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    (small / "filler").unlink(missing_ok=True)
    return done


def require_one_line(done: subprocess.CompletedProcess[str], root: Path) -> None:
    """One error of ours, events apart; nothing of a library, nothing half written."""
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    lines = done.stderr.splitlines()
    documents = [json.loads(line) for line in lines]
    assert [("error" in one) for one in documents] == [False] * (len(lines) - 1) + [True]
    message = error_of(done)["message"].lower()
    # SQLite says "disk I/O error" where it cannot make its file of shared memory.
    assert any(words in message for words in ("full", "no space", "disk i/o error")), message
    assert "free some space" in error_of(done)["hint"]
    assert "internal" not in message
    partial = [path for path in root.rglob("*") if path.name.endswith((".part", ".new"))]
    assert partial == [] and list(root.glob("staging/*")) == []


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "moment",
    [
        "",
        "mindtrace.registry.store:start_run",
        "mindtrace.training.checkpoint:write_identity",
        "mindtrace.training.checkpoint:Checkpoints.on_train_epoch_end",
        "mindtrace.registry.callbacks:RunCallback.on_train_epoch_end",
        "mindtrace.service.train:_log_report",
        "mindtrace.registry.publish:write_contents",
        "mindtrace.registry.publish:add_mlflow_files",
        "mindtrace.registry.publish:_upload",
        "mindtrace.registry.publish:ensure_model",
        "mindtrace.registry.publish:promote_first_version",
    ],
)
def test_train(small: Path, mindtrace: Mindtrace, moment: str) -> None:
    done = full_at(moment, small, TRAIN + "0")
    require_one_line(done, small / "root")
    again = mindtrace(*TRAIN.split()[:-1], "train.seed=0")
    assert again.returncode == 0, again.stderr
    with closing(sqlite3.connect(small / "root" / "mlflow.db")) as database:
        statuses = database.execute("select distinct status from runs").fetchall()
    assert set(statuses) <= {("FAILED",), ("FINISHED",)}, "the second says how the first ended"
    verified = mindtrace("registry", "verify", "--all")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_files_that_may_not_grow(root: Path, mindtrace: Mindtrace) -> None:
    """`ulimit -f`."""
    words = [sys.executable, "-m", "mindtrace", *TRAIN.split()[:-1], "train.seed=0"]
    limited = ["bash", "-c", 'ulimit -f 400; exec "$@"', "bash", *words]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert error_of(done)["message"]
    assert mindtrace(*words[3:]).returncode == 0


@pytest.fixture
def trained_twice(trained: Path, small: Path, mindtrace: Mindtrace) -> Path:
    """The file system with two versions of digits, the first of them champion."""
    shutil.copytree(trained, small / "root")
    done = mindtrace(*TRAIN.split()[:-1], "train.seed=1")
    assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(small / "root" / "mlflow.db")) as database:
        database.execute("pragma wal_checkpoint(truncate)")  # else it has room of its own
    return small


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "command",
    [
        "registry promote digits/2 --force --reason test --json",
        "registry export digits/1 {}/exported --json",
        "config init {}/new.ini --json",
        "data check {}/images --sheet {}/sheet.png --json",
        "retrain --set data.source=digits --set train.max_epochs=1 --wait --json",
    ],
)
def test_what_writes(trained_twice: Path, mindtrace: Mindtrace, command: str) -> None:
    for number, name in enumerate("aabb" * 4):
        folder = trained_twice / "images" / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number * 15).save(folder / f"{number}.png")
    line = command.format(*[trained_twice] * 2)
    done = full_at("", trained_twice, line)
    assert done.returncode in (1, 2), done.stderr
    assert done.stdout == "" or "images" in line
    error = error_of(done)
    assert "space" in error["message"] or "full" in error["message"] or "I/O" in error["message"]
    assert "Traceback" not in done.stderr and "internal" not in error["message"]
    again = mindtrace(*line.split())
    assert again.returncode == 0, again.stderr


def test_doctor_names_it_and_nothing_else(trained_twice: Path) -> None:
    done = full_at("", trained_twice, "doctor --json --set serve.port=0")
    checks = json.loads(done.stdout)["checks"]
    (wrong,) = [check for check in checks if check["state"] == "wrong"]
    assert (done.returncode, wrong["check"]) == (1, "root")
    message = error_of(done)["message"]
    assert message.startswith(f"root: {trained_twice / 'root'}") and "0.0 GiB free" in message
    assert error_of(done)["hint"].startswith("mindtrace registry gc")


def test_a_server_answers_and_takes_jobs_once_there_is_room(trained_twice: Path) -> None:
    words = ["serve", "--json", "--port", "0", "--model", "digits", "--no-worker"]
    with subprocess.Popen(
        at(str(trained_twice / "filler"), "", *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None and server.stderr is not None
            url = json.loads(server.stdout.readline())["url"]
            with httpx.Client(base_url=url, timeout=60) as client:
                image = io.BytesIO()
                Image.new("L", (8, 8), 90).save(image, "PNG")
                headers = {"Content-Type": "image/png"}
                asked = client.post("/inference", content=image.getvalue(), headers=headers)
                assert asked.status_code == 200, asked.text
                body = {"data": {"source": "digits"}, "train": {"max_epochs": 1}}
                refused = client.post("/retrain", json=body)
                assert refused.status_code == 503, refused.text
                assert refused.json()["type"].endswith("store")
                (trained_twice / "filler").unlink()
                assert client.post("/retrain", json=body).status_code == 202
        finally:
            server.terminate()
        assert "Traceback" not in server.stderr.read()
    assert server.returncode == 0


def test_a_worker_whose_disk_fills_up_goes_on(trained_twice: Path, mindtrace: Mindtrace) -> None:
    words = "retrain --set data.source=digits --set train.max_epochs=1 --force --json"
    retrain = words.split()
    job_id = json.loads(mindtrace(*retrain).stdout)["job_id"]
    filler, ended = trained_twice / "filler", ("succeeded", "failed", "cancelled")
    moment = "mindtrace.jobs.attempt:Watchdog"
    command = at(str(filler), moment, "worker")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as worker:
        try:
            assert worker.stderr is not None
            said = []
            while "space" not in "".join(said) and "full" not in "".join(said):
                said.append(worker.stderr.readline())
                assert worker.poll() is None, said
            state = ""
            while state not in ended:
                filler.unlink(missing_ok=True)  # each child fills it
                state = json.loads(mindtrace("jobs", "show", job_id, "--json").stdout)["state"]
                assert worker.poll() is None
            assert "Traceback" not in "".join(said)
        finally:
            worker.terminate()
            rest = worker.stderr.read() if worker.stderr else ""
    assert (worker.returncode, "Traceback" in rest) == (0, False), rest
    again = mindtrace(*retrain, "--wait")
    assert again.returncode == 0, again.stderr
    assert mindtrace("registry", "verify", "--all").returncode == 0
