"""stdout holds results and nothing else; a stream that is closed, full or left is one line."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.conftest import RunCli

from mindtrace.cli.main import program
from mindtrace.data import datasets

MINDTRACE = f"{sys.executable} -m mindtrace"
BAD = "error: cannot write to stdout: Bad file descriptor"
FULL = "error: cannot write to stdout: No space left on device"
TRAIN = "train --source digits --max-epochs 1 --set compute.threads=1"


def shell(line: str) -> subprocess.CompletedProcess[str]:
    words = ["bash", "-o", "pipefail", "-c", line]
    return subprocess.run(words, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["config show", "registry list --json", "--version", "--help"])
@pytest.mark.parametrize(("to", "says"), [(">&-", BAD), (">/dev/full", FULL)])
def test_a_result_that_cannot_be_written(digits: Path, command: str, to: str, says: str) -> None:
    done = shell(f"{MINDTRACE} {command} {to}")
    assert (done.returncode, done.stdout) == (1, "")
    (last,) = done.stderr.splitlines()
    assert (json.loads(last)["error"]["message"] if "--json" in command else last) == (
        says.removeprefix("error: ") if "--json" in command else says
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirected", "code"),
    [
        ("config show 2>&-", 0),
        ("config show >&- 2>&-", 1),
        ("config show <&-", 0),
        ("config show <&- >&- 2>&-", 1),
        ("registry show nothing 2>/dev/full", 4),
        ("predict - <&-", 1),
    ],
)
def test_streams_that_are_closed(digits: Path, redirected: str, code: int) -> None:
    done = shell(f"{MINDTRACE} {redirected}")
    assert done.returncode == code
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) <= 2


@pytest.mark.slow
@pytest.mark.parametrize("command", ["config show", "registry list", "config init - --json"])
def test_a_reader_that_leaves(digits: Path, command: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    words = [*MINDTRACE.split(), *command.split()]
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
    assert shell(f"{MINDTRACE} {command} | head -1").stderr == ""


@pytest.mark.proof
@pytest.mark.slow
def test_a_training_whose_reader_leaves_has_failed(root: Path) -> None:
    words = [*MINDTRACE.split(), *TRAIN.split()]
    many = [*words, "--max-epochs", "500"]
    with subprocess.Popen(many, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        while not process.stderr.readline().startswith(b"epoch"):
            assert process.poll() is None
        process.stderr.close()
    assert process.returncode == 141
    reading, writing = os.pipe()
    os.close(reading)
    with sqlite3.connect(root / "mlflow.db") as connection:
        assert connection.execute("select status from runs").fetchall() == [("FAILED",)]
    assert subprocess.run(words, stdout=writing, stderr=subprocess.DEVNULL).returncode == 141
    os.close(writing)
    with sqlite3.connect(root / "mlflow.db") as connection:
        rows = connection.execute("select status from runs order by start_time").fetchall()
    assert rows == [("FAILED",), ("FINISHED",)], "its version is there; only the answer was lost"


@pytest.mark.parametrize(
    "prints",
    [
        lambda: print("Downloading: model.pth"),
        lambda: sys.stdout.write("100%"),
        lambda: typer.echo("a library's word"),
        lambda: print({"not": "ours"}, file=sys.stdout, flush=True),
    ],
    ids=["print", "write", "echo", "flush"],
)
@pytest.mark.parametrize("more", [(), ("--json",)], ids=["text", "json"])
def test_what_a_library_prints_is_no_result(
    root: Path,
    run_cli: RunCli,
    monkeypatch: pytest.MonkeyPatch,
    prints: Callable[[], Any],
    more: tuple[str, ...],
) -> None:
    read = datasets.read_digits

    def printing(*args: Any) -> Any:
        prints()
        return read(*args)

    plain = run_cli(*TRAIN.split(), "--dry-run", *more)
    monkeypatch.setattr(datasets, "read_digits", printing)
    result = run_cli(*TRAIN.split(), "--dry-run", *more)
    assert (result.exit_code, result.stdout) == (0, plain.stdout)
    assert len(result.stderr) > len(plain.stderr), "it is not lost either"


def test_every_command_prints_documents_with_json(
    digits: Path, run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are in the contract's course of commands, which reads their stdout as NDJSON."""
    monkeypatch.chdir(tmp_path)
    for line in ("config init -", "config init a.ini", "registry list", "jobs list", "doctor"):
        lines = run_cli(*line.split(), "--json").stdout.splitlines()
        assert [json.loads(text)["schema_version"] for text in lines] == [1] * len(lines)
    snapshots = Path(__file__).parents[1] / "contract" / "snapshots" / "documents.json"
    covered = json.loads(snapshots.read_text())
    commands: Any = typer.main.get_command(program())
    leaves = [
        f"{name} {leaf}".strip()
        for name, one in commands.commands.items()
        for leaf in getattr(one, "commands", {"": None})
    ]
    # These have tests of their own.
    own = {"registry alias", "registry delete", "registry report"}
    assert set(leaves) - set(covered) == {"reproduce", "serve", "worker", *own}


@pytest.mark.proof
@pytest.mark.slow
@pytest.mark.parametrize("command", ["serve --port 0 --no-worker --json", "worker --json"])
def test_processes_that_work_long_print_documents_alone(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    shutil.copytree(trained, tmp_path / "root")
    monkeypatch.setenv("DIR_PATHS__ROOT", str(tmp_path / "root"))
    words = [*MINDTRACE.split(), *command.split()]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        process.terminate()
        lines += process.stdout.readlines()
    assert process.returncode == 0
    assert len([json.loads(line) for line in lines]) == 1
