"""`mindtrace config`: show, check, init."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RunCli = Callable[..., Any]


def _rows(text: str) -> dict[tuple[str, str], list[str]]:
    rows = [line.split("\t") for line in text.splitlines()]
    return {(row[0], row[1]): row[2:] for row in rows}


def test_show_prints_every_value(run_cli: RunCli, root: Path) -> None:
    rows = _rows(run_cli("config", "show").stdout)
    assert rows["section", "key"] == ["value"]
    assert rows["data", "batch_size"] == ["64"]
    assert rows["DIR_PATHS", "ROOT"] == [str(root)]


def test_show_says_where_each_value_comes_from(
    run_cli: RunCli, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ini = tmp_path / "my.ini"
    ini.write_text("[train]\nmax_epochs = 3\n")
    monkeypatch.setenv("TRAIN__SEED", "5")
    args = ("config", "show", "--origin", "--config", str(ini), "--set", "train.lr=0.5")
    rows = _rows(run_cli(*args).stdout)
    assert rows["train", "max_epochs"] == ["3", f"{ini}:2"]
    assert rows["train", "seed"] == ["5", "environment TRAIN__SEED"]
    assert rows["train", "lr"] == ["0.5", "--set train.lr"]
    assert rows["train", "monitor"] == ["val_acc", "default"]


def test_show_as_json_is_one_document_a_value(run_cli: RunCli, root: Path) -> None:
    documents = [
        json.loads(line) for line in run_cli("config", "show", "--json").stdout.splitlines()
    ]
    assert all(document["schema_version"] == 1 for document in documents)
    values = {(one["section"], one["key"]): one["value"] for one in documents}
    assert values["data", "source"] == "mnist"


def test_show_hides_passwords(run_cli: RunCli, root: Path) -> None:
    uri = "registry.tracking_uri=postgresql://me:secret@db/mlflow"
    text = run_cli("config", "show", "--set", uri).stdout
    assert "secret" not in text
    assert "db/mlflow" in text


def test_check_finds_no_fault(run_cli: RunCli, tmp_path: Path) -> None:
    ini = tmp_path / "my.ini"
    ini.write_text("[train]\nmax_epochs = 3\n")
    result = run_cli("config", "check", str(ini))
    assert (result.exit_code, result.stdout) == (0, f"{ini}: no faults\n")
    document = json.loads(run_cli("config", "check", str(ini), "--json").stdout)
    assert document["schema_version"] == 1


def test_check_tells_every_fault_with_its_line(run_cli: RunCli, tmp_path: Path) -> None:
    ini = tmp_path / "my.ini"
    ini.write_text("[train]\nepochs = 3\nlr = fast\n[dato]\nx = 1\n")
    result = run_cli("config", "check", str(ini))
    assert (result.exit_code, result.stdout) == (2, "")
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3
    assert errors[0].startswith(f"error: {ini}:2: [train] epochs: ")
    assert "max_epochs" in errors[0]


def test_check_of_a_file_that_is_not_there(run_cli: RunCli, tmp_path: Path) -> None:
    result = run_cli("config", "check", str(tmp_path / "no.ini"), "--json")
    document = json.loads(result.stderr.splitlines()[-1])
    assert (result.exit_code, document["error"]["type"]) == (2, "ConfigError")
    assert document["error"]["faults"][0]["file"].endswith("no.ini")


def test_init_writes_a_file_without_faults(run_cli: RunCli, tmp_path: Path) -> None:
    ini = tmp_path / "new.ini"
    result = run_cli("config", "init", str(ini))
    assert (result.exit_code, result.stdout) == (0, f"{ini}\n")
    assert run_cli("config", "check", str(ini)).exit_code == 0
    assert run_cli("config", "init", "-").stdout == ini.read_text()


def test_init_overwrites_nothing(run_cli: RunCli, tmp_path: Path) -> None:
    ini = tmp_path / "new.ini"
    ini.write_text("mine")
    result = run_cli("config", "init", str(ini))
    assert (result.exit_code, ini.read_text()) == (5, "mine")
    assert str(ini) in result.stderr


def test_init_in_a_folder_that_is_not_there(run_cli: RunCli, tmp_path: Path) -> None:
    result = run_cli("config", "init", str(tmp_path / "no" / "new.ini"))
    assert result.exit_code == 2
    assert "internal" not in result.stderr


def test_the_variable_names_the_file(
    run_cli: RunCli, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ini = tmp_path / "mine.ini"
    ini.write_text("[train]\nmax_epochs = 7\n")
    monkeypatch.setenv("MindtraceConfig", str(ini))
    assert _rows(run_cli("config", "show").stdout)["train", "max_epochs"] == ["7"]
