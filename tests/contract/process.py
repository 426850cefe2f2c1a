"""The outside of mindtrace: the command with a ROOT of its own, and the server as a process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from tests.application.servers import end, started
from typer.testing import CliRunner

from mindtrace.cli.main import program

PATIENCE = 300  # seconds: for a process that hangs


def environment(root: Path) -> dict[str, str]:
    """What names a ROOT with several models; the rest of the environment is clean."""
    return {"DIR_PATHS__ROOT": str(root), "REGISTRY__MODEL_NAME": "digits"}


class Done(NamedTuple):
    """How a command ended, and what it printed."""

    exit_code: int
    stdout: str
    stderr: str


def run(root: Path, *words: str) -> Done:
    """`mindtrace WORDS` in this process; its folder is the one that ROOT stands in."""
    with contextlib.chdir(root.parent):
        done = CliRunner().invoke(program(), words, env=environment(root), prog_name="mindtrace")
    return Done(done.exit_code, done.stdout, done.stderr)


def documents(text: str) -> list[dict[str, Any]]:
    """The JSON documents among the lines of an output."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def answers(root: Path, *words: str) -> list[dict[str, Any]]:
    """The documents of a command that must do, run with `--json`."""
    done = run(root, *words, "--json")
    assert done.exit_code == 0, (words, done.stderr)
    return documents(done.stdout)


def answer(root: Path, *words: str) -> dict[str, Any]:
    """The one document of a command."""
    (document,) = answers(root, *words)
    return document


@contextlib.contextmanager
def running(root: Path, *words: str) -> Iterator[dict[str, Any]]:
    """A process that runs until it is stopped; what it prints when it is ready."""
    place = {"env": {**os.environ, **environment(root)}, "cwd": root.parent}
    command = ["-m", "mindtrace", *words, "--json"]
    with started(command, stdin=subprocess.DEVNULL, **place) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        assert line, child.communicate()
        yield json.loads(line)
        code, err = end(child)
        assert code == 0, err


@contextlib.contextmanager
def server(root: Path, *words: str) -> Iterator[httpx.Client]:
    """A client of `mindtrace serve` on a free port."""
    with (
        running(root, "serve", "--port", "0", *words) as ready,
        httpx.Client(base_url=ready["url"], timeout=PATIENCE) as client,
    ):
        yield client
