"""What a reader does where the registry is not as it should be, or not where it should be."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mindtrace.config.settings import Settings
from mindtrace.errors import NotFoundError, StoreError
from mindtrace.registry.child_reader import ChildReader
from mindtrace.registry.reader import SqliteReader, UnknownSchemaError, open_reader
from mindtrace.registry.store import Store


@pytest.fixture
def of_another_mlflow(filled: Store, database: Path) -> Iterator[Path]:
    with sqlite3.connect(database) as connection:
        connection.execute("update alembic_version set version_num = '0123456789ab'")
    connection.close()
    yield database


def test_an_unknown_schema_is_not_read_but_left_to_mlflow(
    of_another_mlflow: Path, settings: Settings
) -> None:
    with pytest.raises(UnknownSchemaError) as caught:
        SqliteReader(of_another_mlflow)

    assert "0123456789ab" in caught.value.message
    assert "upgrade" in str(caught.value.hint)
    assert isinstance(open_reader(settings), ChildReader)


@pytest.mark.slow
def test_a_schema_that_mlflow_does_not_know_either_is_one_line_and_a_hint(
    of_another_mlflow: Path, settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(StoreError) as caught:
        open_reader(settings).names()

    assert "\n" not in caught.value.message
    assert str(of_another_mlflow) in caught.value.message
    assert caught.value.hint
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100, b"SQLite format 3\0" * 10])
def test_a_file_that_is_no_database_is_a_store_error(root: Path, content: bytes) -> None:
    (root / "other.db").write_bytes(content)

    with pytest.raises(StoreError) as caught:
        SqliteReader(root / "other.db")
    assert "other.db" in caught.value.message


def test_a_database_that_is_not_there_says_what_makes_it(settings: Settings, root: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        open_reader(settings)

    assert (caught.value.kind, caught.value.name) == ("registry", str(root / "mlflow.db"))
    assert "mindtrace train" in str(caught.value.hint)
    assert not (root / "mlflow.db").exists(), "looking makes none"


def test_odd_names_of_folders_are_no_hindrance(
    filled: Store, database: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "wörk %20 #1 ?x=y & z"
    odd.mkdir()
    for file in database.parent.glob("mlflow.db*"):
        shutil.copy(file, odd)

    assert SqliteReader(odd / "mlflow.db").names() == ["digits", "mnist"]


@pytest.mark.slow
def test_a_module_of_the_working_directory_does_not_stand_in_for_mlflow(
    filled: Store, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "mlflow.py").write_text("raise SystemExit('the wrong one')")
    script = (
        "import sys, pathlib; sys.path.pop(0);"
        "from mindtrace.registry.child_reader import ChildReader;"
        f"print(ChildReader({filled.uri!r}, pathlib.Path({str(root)!r})).names())"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (0, "['digits', 'mnist']\n"), done.stderr


def test_the_child_is_not_told_the_uri_on_its_command_line(root: Path) -> None:
    """A URI may hold a password, and everybody may read command lines."""
    child = ChildReader("postgresql://user:geheim@nowhere.invalid/db", root)

    process = child._started()

    assert "geheim" not in json.dumps(process.args)
    command = Path(f"/proc/{process.pid}/cmdline")
    if command.exists():
        assert b"geheim" not in command.read_bytes()
    assert os.environ.get("MINDTRACE_CHILD_READER_URI") is None
