"""`doctor`: each thing that can be wrong is found, and told with what to do."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from tests.conftest import RunCli

from mindtrace.config.settings import Settings, load_settings
from mindtrace.service.doctor import Check, examine


def _settings(root: Path, *sets: str) -> Settings:
    return load_settings(sets=[f"DIR_PATHS.ROOT={root}", *sets], environ={})


def _checks(settings: Settings) -> dict[str, Check]:
    return {check.check: check for check in examine(settings)}


def _wrong(settings: Settings) -> dict[str, Check]:
    found = {name: c for name, c in _checks(settings).items() if c.state == "wrong"}
    assert all(check.hint for check in found.values())
    return found


def test_a_root_or_a_store_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be written" in _wrong(_settings(tmp_path / "file" / "root"))["root"].found
    new = tmp_path / "not" / "made" / "yet"
    checks = _checks(_settings(new))
    assert not _wrong(_settings(new)) and "empty" in checks["store"].found
    assert checks["configuration"].found == "--set DIR_PATHS.ROOT"
    assert checks["root"].found.endswith("not made yet") and not new.parent.exists()
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    assert set(_wrong(_settings(tmp_path))) == {"store"}


@pytest.mark.slow
def test_a_root_that_was_copied_and_what_fix_makes_of_it(
    trained: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    """MLflow's own tools go by the paths in the database."""
    root = shutil.copytree(trained, tmp_path / "root")
    places = _checks(_settings(root))["places"]
    assert (places.state, places.hint) == ("note", "mindtrace doctor --fix")
    assert str(trained) in places.found

    done = run_cli("doctor", "--fix", "--json", "--set", f"DIR_PATHS.ROOT={root}")
    (fixed,) = [one for one in json.loads(done.stdout)["checks"] if one["check"] == "places"]
    assert (done.exit_code, fixed["state"]) == (0, "ok")

    uris = _column(root / "mlflow.db", "artifact_uri", "runs")
    assert uris and all(uri.startswith(root.as_uri()) for uri in uris)
    assert root.as_uri() + "/mlartifacts" in _column(
        root / "mlflow.db", "artifact_location", "experiments"
    )
    kept = Path(fixed["found"].rpartition(" ")[2])
    assert kept.parent == root
    assert all(uri.startswith(trained.as_uri()) for uri in _column(kept, "artifact_uri", "runs"))
    checks = _checks(_settings(root))
    assert (checks["places"].state, checks["places"].hint) == ("ok", None)
    assert checks["store"].hint == "mindtrace registry verify --all"
    shutil.rmtree(root / "mlartifacts")
    assert "lost: digits/1" in _wrong(_settings(root))["bundles"].found


def _column(database: Path, column: str, table: str) -> list[str]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return [text for (text,) in connection.execute(f"select {column} from {table}")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "check", "state", "words"),
    [
        ("update alembic_version set version_num = 'abc'", "schema", "wrong", "newer than this"),
        (
            "update alembic_version set version_num = '97727af70f4d'",
            *("schema", "note", "of an older MLflow"),
        ),
        (
            "delete from registered_models where name = 'digits'",
            *("history of digits", "note", "was deleted"),
        ),
        (
            "update runs set artifact_uri = 'file:///no/where'",
            *("bundles", "wrong", "1 lost, 1 outside"),
        ),
    ],
)
def test_what_a_store_may_be(
    trained: Path, tmp_path: Path, change: str, check: str, state: str, words: str
) -> None:
    root = shutil.copytree(trained, tmp_path / "root")
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as database, database:
        database.execute(change)
    found = _checks(_settings(root))[check]
    assert found.state == state
    assert words in found.found
