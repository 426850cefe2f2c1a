"""The outside of mindtrace: the command and the server as processes with a ROOT of their own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

PATIENCE = 300  # seconds: for a process that hangs

_FOREIGN = ("MindtraceConfig", "COLUMNS", "FORCE_COLOR", "NO_COLOR")


def environment(root: Path) -> dict[str, str]:
    """Of a process whose ROOT this is: nothing else that mindtrace or MLflow would read."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _FOREIGN and "__" not in name and not name.startswith("MLFLOW_")
    }
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "TERM": "dumb"}
    return {**kept, **quiet, "DIR_PATHS__ROOT": str(root)}


def start(root: Path, *words: str) -> subprocess.Popen[str]:
    """`mindtrace WORDS`, running beside; its folder is the one that ROOT stands in."""
    return subprocess.Popen(
        [sys.executable, "-m", "mindtrace", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(root),
        cwd=root.parent,
    )


def run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`mindtrace WORDS`, to its end."""
    process = start(root, *words)
    try:
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def documents(text: str) -> list[dict[str, Any]]:
    """The JSON documents among the lines of an output."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def answers(root: Path, *words: str) -> list[dict[str, Any]]:
    """The documents of a command that must do, run with `--json`."""
    done = run(root, *words, "--json")
    assert done.returncode == 0, (words, done.stderr)
    return documents(done.stdout)


def answer(root: Path, *words: str) -> dict[str, Any]:
    """The one document of a command."""
    (document,) = answers(root, *words)
    return document


@contextlib.contextmanager
def program(root: Path, *words: str) -> Iterator[dict[str, Any]]:
    """A program that runs until it is stopped; what it prints when it is ready."""
    process = start(root, *words, "--json")
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield json.loads(line)
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def server(root: Path, *words: str) -> Iterator[httpx.Client]:
    """A client of `mindtrace serve` on a free port."""
    with (
        program(root, "serve", "--port", "0", *words) as ready,
        httpx.Client(base_url=ready["url"], timeout=60) as client,
    ):
        yield client
