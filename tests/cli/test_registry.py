"""`mindtrace registry list` and `show`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RunCli = Callable[..., Any]

FIELDS = {
    *("schema_version", "model_name", "version", "aliases", "metrics", "created_at", "run_id"),
    *("data_digest", "test_digest", "bundle_digest"),
}


@pytest.fixture
def model(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ROOT of this test is the one with a version in it."""
    monkeypatch.setenv("DIR_PATHS__ROOT", str(trained))


def test_an_empty_registry_is_an_empty_list(run_cli: RunCli, root: Path) -> None:
    result = run_cli("registry", "list")
    assert result.exit_code == 0
    assert result.stdout.startswith("model_name\tversion\t")
    assert result.stderr.splitlines() == ["no versions yet", "next: mindtrace train"]
    assert run_cli("registry", "list", "--json").stdout == ""


def test_show_in_an_empty_registry(run_cli: RunCli, root: Path) -> None:
    result = run_cli("registry", "show", "mnist")
    assert (result.exit_code, result.stdout) == (4, "")


@pytest.mark.slow
def test_list_as_json(run_cli: RunCli, model: None) -> None:
    (document,) = map(json.loads, run_cli("registry", "list", "--json").stdout.splitlines())
    assert set(document) >= FIELDS
    assert (document["model_name"], document["version"]) == ("digits", 1)
    assert document["aliases"] == ["champion"]


@pytest.mark.slow
def test_list_in_a_pipe_is_whole(run_cli: RunCli, model: None) -> None:
    header, row = run_cli("registry", "list", "digits").stdout.splitlines()
    cells = dict(zip(header.split("\t"), row.split("\t"), strict=True))
    assert (cells["model_name"], cells["version"], cells["aliases"]) == ("digits", "1", "champion")
    assert len(cells["bundle_digest"]) == 64
    assert 0 <= float(cells["test_acc"]) <= 1


@pytest.mark.slow
def test_list_of_a_model_that_does_not_exist(run_cli: RunCli, model: None) -> None:
    result = run_cli("registry", "list", "digit")
    assert (result.exit_code, result.stdout) == (4, "")
    assert "did you mean 'digits'" in result.stderr


@pytest.mark.slow
def test_show_as_json(run_cli: RunCli, model: None) -> None:
    document = json.loads(run_cli("registry", "show", "digits", "--json").stdout)
    more = {"params", "environment", "git", "parent", "job_id", "duration_s", "files"}
    assert set(document) >= FIELDS | more
    assert "model.onnx" in document["files"]


@pytest.mark.slow
def test_show_in_a_pipe(run_cli: RunCli, model: None) -> None:
    lines = run_cli("registry", "show", "digits/1").stdout.splitlines()
    pairs = dict(line.split("\t") for line in lines)
    assert (pairs["model_name"], pairs["params.data.source"]) == ("digits", "digits")
