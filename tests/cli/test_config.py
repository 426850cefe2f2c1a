"""`mindtrace config`: show, check, init."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import documents, error_of, rows
from tests.conftest import RunCli


@pytest.fixture
def ini(tmp_path: Path) -> Path:
    file = tmp_path / "my.ini"
    file.write_text("[train]\nmax_epochs = 3\n")
    return file


def test_show_says_every_value_and_where_it_comes_from(
    run_cli: RunCli, root: Path, ini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAIN__SEED", "5")
    sets = ("--set", "train.lr=0.5", "--set", "registry.tracking_uri=postgresql://me:secret@db/x")
    found = rows(run_cli("config", "show", "--origin", "--config", str(ini), *sets).stdout)
    values = {(row[0], row[1]): row[2:] for row in found}
    assert found[0] == ["section", "key", "value", "origin"]
    assert values["DIR_PATHS", "ROOT"] == [str(root), "environment DIR_PATHS__ROOT"]
    assert values["train", "max_epochs"] == ["3", f"{ini}:2"]
    assert values["train", "seed"] == ["5", "environment TRAIN__SEED"]
    assert values["train", "lr"] == ["0.5", "--set train.lr"]
    assert values["train", "monitor"] == ["val_acc", "default"]
    assert values["registry", "tracking_uri"][0] == "postgresql://me:***@db/x"

    monkeypatch.setenv("MindtraceConfig", str(ini))
    plain = rows(run_cli("config", "show", *sets).stdout)
    assert plain == [row[:3] for row in found]
    as_json = documents(run_cli("config", "show", "--json", *sets).stdout)
    assert [[one["section"], one["key"], one["value"]] for one in as_json] == plain[1:]
    assert all(one["schema_version"] == 1 for one in as_json)


def test_check_finds_no_fault(run_cli: RunCli, ini: Path) -> None:
    result = run_cli("config", "check", str(ini))
    assert (result.exit_code, result.stdout) == (0, f"{ini}: no faults\n")
    (document,) = documents(run_cli("config", "check", str(ini), "--json").stdout)
    assert document == {"schema_version": 1, "path": str(ini), "valid": True}


def test_check_reports_every_fault_with_its_line(run_cli: RunCli, ini: Path) -> None:
    ini.write_text("[train]\nepochs = 3\nlr = fast\n[dato]\nx = 1\n")
    result = run_cli("config", "check", str(ini))
    assert (result.exit_code, result.stdout) == (2, "")
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3
    assert errors[0].startswith(f"error: {ini}:2: [train] epochs: ") and "max_epochs" in errors[0]

    missing = run_cli("config", "check", str(ini.with_name("no.ini")), "--json")
    assert (missing.exit_code, error_of(missing)["type"]) == (2, "ConfigError")
    assert error_of(missing)["faults"][0]["file"].endswith("no.ini")


def test_init_writes_a_file_without_faults_and_overwrites_nothing(
    run_cli: RunCli, tmp_path: Path
) -> None:
    ini = tmp_path / "new.ini"
    result = run_cli("config", "init", str(ini))
    assert (result.exit_code, result.stdout) == (0, f"{ini}\n")
    assert run_cli("config", "check", str(ini)).exit_code == 0
    assert run_cli("config", "init", "-").stdout == ini.read_text()
    ini.write_text("mine")
    again = run_cli("config", "init", str(ini))
    assert (again.exit_code, ini.read_text(), str(ini) in again.stderr) == (5, "mine", True)
    nowhere = run_cli("config", "init", str(tmp_path / "no" / "new.ini"))
    assert (nowhere.exit_code, "internal" in nowhere.stderr) == (2, False)
