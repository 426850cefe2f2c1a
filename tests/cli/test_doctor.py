"""`mindtrace doctor`: exit codes, one JSON document, and no heavy import."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

RunCli = Callable[..., Any]

AT = ("--set", "serve.port=0")  # no server is looked for


def test_a_row_a_check(run_cli: RunCli, root: Path) -> None:
    result = run_cli("doctor", *AT)
    assert result.exit_code == 0, result.stderr
    header, *rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert header == ["check", "state", "found", "hint"]
    assert {row[1] for row in rows} <= {"ok", "note"}
    assert {"python", "mindtrace", "torch", "root", "compute", "store"} <= {row[0] for row in rows}


def test_one_document(run_cli: RunCli, root: Path) -> None:
    result = run_cli("doctor", "--json", *AT)
    document = json.loads(result.stdout)
    assert (document["schema_version"], document["ok"]) == (1, True)
    (store,) = [check for check in document["checks"] if check["check"] == "store"]
    assert store["details"]["tracking_uri"].endswith("mlflow.db")


def test_something_wrong_is_exit_1(run_cli: RunCli, root: Path) -> None:
    (root / "mlflow.db").write_bytes(b"no database" * 100)
    result = run_cli("doctor", "--json", *AT)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["ok"] is False
    error = json.loads(result.stderr.splitlines()[-1])["error"]
    assert error["message"].startswith("store: ")
    assert error["hint"]


def test_a_faulty_configuration_is_told_first(run_cli: RunCli, root: Path) -> None:
    result = run_cli("doctor", "--set", "train.epochs=3")
    assert (result.exit_code, result.stdout) == (2, "")


def test_a_password_is_not_shown(run_cli: RunCli, root: Path) -> None:
    at = ("--set", "registry.tracking_uri=http://me:secret@127.0.0.1:1")
    result = run_cli("doctor", *AT, *at)
    assert result.exit_code == 1
    assert "secret" not in result.stdout + result.stderr


def test_versions_are_read_without_importing_the_packages(root: Path) -> None:
    program = (
        "import sys; from mindtrace.cli.main import main\n"
        "sys.argv = ['mindtrace', 'doctor', '--set', 'serve.port=0']\n"
        "try: main()\n"
        "except SystemExit as leaving: assert not leaving.code\n"
        "heavy = {'torch', 'mlflow', 'pytorch_lightning', 'fastapi', 'dbos', 'sqlalchemy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
