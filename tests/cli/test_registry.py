"""`mindtrace registry list`, `show`, `diff`, `evaluate`, `export`, `verify`, `gc`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.cli.conftest import documents, rows
from tests.conftest import RunCli


def test_an_empty_registry(run_cli: RunCli, root: Path, tmp_path: Path) -> None:
    result = run_cli("registry", "list")
    assert result.exit_code == 0
    assert result.stdout.startswith("model_name\tversion\t")
    assert result.stderr.splitlines() == ["no versions yet", "next: mindtrace train"]
    assert run_cli("registry", "list", "--json").stdout == ""
    assert run_cli("registry", "list", "--where", "val_acc > 1").exit_code == 0
    assert run_cli("registry", "list", "--columns", "version").stdout == "version\n"
    for words in (
        ["show", "mnist"],
        ["verify"],
        ["verify", "--all"],
        ["gc", "--keep", "3"],
        ["diff", "a", "b"],
        ["export", "a", str(tmp_path / "out")],
        ["evaluate", "a"],
    ):
        assert run_cli("registry", *words).exit_code == 4, words


@pytest.mark.slow
def test_list_and_show(run_cli: RunCli, digits: Path) -> None:
    (listed,) = documents(run_cli("registry", "list", "--json").stdout)
    assert (listed["model_name"], listed["version"], listed["aliases"]) == (
        "digits",
        1,
        ["champion"],
    )
    header, row = rows(run_cli("registry", "list", "digits").stdout)
    cells = dict(zip(header, row, strict=True))
    assert (cells["model_name"], cells["version"], cells["aliases"]) == ("digits", "1", "champion")
    assert len(cells["bundle_digest"]) == 64
    assert 0 <= float(cells["test_acc"]) <= 1
    unknown = run_cli("registry", "list", "digit")
    assert (unknown.exit_code, unknown.stdout) == (4, "")
    assert "did you mean 'digits'" in unknown.stderr

    (shown,) = documents(run_cli("registry", "show", "digits", "--json").stdout)
    assert "model.onnx" in shown["files"]
    assert Path(shown["report"]).is_file()
    assert shown["mlflow_ui"] == f"mlflow ui --backend-store-uri sqlite:///{digits}/mlflow.db"
    pairs = dict(rows(run_cli("registry", "show", "digits/1").stdout))
    assert (pairs["model_name"], pairs["params.data.source"]) == ("digits", "digits")


def test_a_bad_expression_is_pointed_at(run_cli: RunCli, root: Path) -> None:
    result = run_cli("registry", "list", "--where", "val_acc >")
    assert (result.exit_code, result.stdout) == (2, "")
    *lines, hint = result.stderr.splitlines()
    assert lines == [
        "error: --where: expected a value after '>', found 'the end'",
        "error:   val_acc >",
        "error:            ^",
    ]
    example = '--where "val_acc > 0.97 and alias = champion"'
    assert hint == f"hint: mindtrace registry list {example}  # for example"


@pytest.mark.slow
def test_list_with_columns_and_a_query(run_cli: RunCli, digits: Path) -> None:
    words = ["--where", "val_acc > 0.1 and alias = champion", "--sort", "-val_acc", "--limit", "3"]
    columns = ["--columns", "version,aliases,params.data.source,seed"]
    result = run_cli("registry", "list", "digits", *words, *columns)
    assert result.stdout == ("version\taliases\tparams.data.source\tseed\n1\tchampion\tdigits\t0\n")
    document = json.loads(run_cli("registry", "list", *words, *columns, "--json").stdout)
    assert document == {
        "schema_version": 1,
        "version": 1,
        "aliases": "champion",
        "params.data.source": "digits",
        "seed": 0,
    }
    (whole,) = documents(run_cli("registry", "list", *words, "--json").stdout)
    assert whole["version"] == 1
    none = run_cli("registry", "list", "--where", "val_acc > 1")
    assert (none.exit_code, len(none.stdout.splitlines())) == (0, 1)
    assert none.stderr == "no version matches\n"


@pytest.mark.slow
def test_export_verify_and_diff(run_cli: RunCli, digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    exported = run_cli("registry", "export", "digits", str(out))
    assert (exported.exit_code, exported.stdout) == (0, f"{out}\n")
    again = run_cli("registry", "export", "digits", str(out))
    assert (again.exit_code, "is not empty" in again.stderr) == (2, True)
    assert run_cli("registry", "verify", str(out)).exit_code == 0
    verified = run_cli("registry", "verify", "--all", "--json")
    states = [one["state"] for one in documents(verified.stdout)]
    assert (verified.exit_code, states) == (0, ["verified", "verified"])
    (out / "model.onnx").write_bytes(b"")
    damaged = run_cli("registry", "verify", str(out))
    assert damaged.exit_code == 3
    assert "model.onnx has 0 bytes" in damaged.stdout
    assert "model.onnx has 0 bytes" in damaged.stderr
    same = run_cli("registry", "diff", "digits", "1").stdout.splitlines()
    assert same[0] == "part\tname\tdigits/1\tdigits/1"
    assert all(line.startswith("metrics\t") for line in same[1:])
    document = json.loads(run_cli("registry", "diff", "digits", "1", "--json").stdout)
    assert (document["a"], document["configuration"]) == ("digits/1", {})


@pytest.mark.slow
def test_evaluate_and_gc(run_cli: RunCli, trained: Path, tmp_path: Path, root: Path) -> None:
    shutil.copytree(trained, root, dirs_exist_ok=True)
    out = tmp_path / "out"
    assert run_cli("registry", "export", "digits", str(out)).exit_code == 0
    shown = json.loads(run_cli("registry", "show", "digits", "--json").stdout)

    # By its folder, so that nothing is added to the run that all tests share.
    result = run_cli("registry", "evaluate", str(out), "--set", "data.source=digits", "--json")

    document = json.loads(result.stdout)
    assert document["test_digest"] == shown["test_digest"]
    assert document["accuracy"] == pytest.approx(shown["metrics"]["test_acc"])
    assert document["loss"] == pytest.approx(shown["metrics"]["test_loss"], abs=1e-5)
    pairs = run_cli("registry", "evaluate", str(out), "--set", "data.source=digits").stdout
    assert f"test_digest\t{shown['test_digest']}\n" in pairs
    gone = run_cli("registry", "gc", "--keep", "1", "--dry-run")
    assert (gone.exit_code, gone.stdout) == (0, "model_name\tversion\tcreated_at\tremoved\n")
    assert gone.stderr.startswith("0 would be deleted")
