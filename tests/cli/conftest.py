"""The trained ROOT for commands in this process, and what they print, as values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def digits(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The ROOT of this test is the shared one, with version 1 of digits in it."""
    monkeypatch.setenv("DIR_PATHS__ROOT", str(trained))
    return trained


def documents(text: str) -> list[dict[str, Any]]:
    """The JSON documents in the lines of an output."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def rows(text: str) -> list[list[str]]:
    """The cells of tab-separated lines."""
    return [line.split("\t") for line in text.splitlines()]


def error_of(result: Any) -> dict[str, Any]:
    """The error in the last line of stderr."""
    error: dict[str, Any] = json.loads(result.stderr.splitlines()[-1])["error"]
    return error
