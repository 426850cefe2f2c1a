"""`mindtrace doctor`: exit codes, one JSON document, and no heavy import."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import error_of, rows
from tests.conftest import RunCli


def test_a_row_a_check_or_one_document(run_cli: RunCli, root: Path) -> None:
    result = run_cli("doctor")
    assert result.exit_code == 0, result.stderr
    header, *checks = rows(result.stdout)
    names = {row[0] for row in checks}
    assert header == ["check", "state", "found", "hint"]
    assert {row[1] for row in checks} <= {"ok", "note"}
    assert names == {"configuration", "root", "compute", "store"}

    (place,) = [found for name, _, found, _ in checks if name == "root"]
    assert place.startswith(f"{root} ([DIR_PATHS] ROOT names another folder), ")

    document = json.loads(run_cli("doctor", "--json").stdout)
    assert (document["schema_version"], document["ok"]) == (1, True)
    (store,) = [check for check in document["checks"] if check["check"] == "store"]
    assert "mlflow.db: empty" in store["found"]
    assert list(root.iterdir()) == []


def test_something_wrong_is_exit_1(run_cli: RunCli, root: Path) -> None:
    (root / "mlflow.db").write_bytes(b"no database" * 100)
    result = run_cli("doctor", "--json")
    assert (result.exit_code, json.loads(result.stdout)["ok"]) == (1, False)
    assert error_of(result)["message"].startswith("store: ")
    assert error_of(result)["hint"]

    faulty = run_cli("doctor", "--set", "train.epochs=3")
    assert (faulty.exit_code, faulty.stdout) == (2, "")
    secret = run_cli("doctor", "--set", "registry.tracking_uri=http://me:secret@127.0.0.1:1")
    assert (secret.exit_code, "secret" in secret.stdout + secret.stderr) == (1, False)
