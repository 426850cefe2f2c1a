"""Three ways to read a registry, and one answer: sqlite3, MLflow's client, a child process."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric

from mindtrace.bundle import manifest
from mindtrace.core.settings import Settings
from mindtrace.errors import NotFoundError, StoreError
from mindtrace.registry import promotion
from mindtrace.registry.child_reader import ChildReader
from mindtrace.registry.client_reader import ClientReader
from mindtrace.registry.lookup import open_reader
from mindtrace.registry.rows import Reader, VersionRow
from mindtrace.registry.sqlite_reader import SqliteReader, UnknownSchemaError
from mindtrace.registry.store import Store
from mindtrace.registry.tracking import start_run

Publish = Callable[..., Any]
Version = Callable[..., int]


@pytest.fixture
def database(root: Path) -> Path:
    return root / "mlflow.db"


@pytest.fixture
def filled(store: Store, register: Publish, version: Version) -> Store:
    """Two models, a deleted version, aliases, odd metrics and tags, a version without a run."""
    register("digits", metadata={"seed": "3", "who": "Jörg 'x' \"y\"", "metric.val_acc": "0.5"})
    for number in range(11):
        version("mnist", seed=str(number))
    client = store.client
    client.set_registered_model_alias("mnist", "champion", "3")
    client.set_registered_model_alias("mnist", "zweite", "3")
    client.set_registered_model_alias("mnist", "gone", "5")
    client.delete_model_version("mnist", "5")
    client.delete_model_version("mnist", "11")
    run = start_run(store, "odd", None, {})
    values = {"val_acc": 0.25, "nan": float("nan"), "big": 1e300, "inf": float("inf")}
    client.log_batch(run.run_id, metrics=[Metric(k, v, 1, 1) for k, v in values.items()])
    client.log_batch(run.run_id, metrics=[Metric("val_acc", 0.75, 2, 2)])
    run.log_params({"train.lr": 0.1, "umlaut": "ü"})
    run.end("FAILED")
    client.create_model_version("mnist", f"runs:/{run.run_id}/bundle", run.run_id, tags={"a": "b"})
    client.create_model_version("mnist", "/somewhere/else", await_creation_for=0)
    return store


def without_place(rows: Any) -> Any:
    """The client says `runs:/...` where the tables say which folder that is."""
    if isinstance(rows, VersionRow):
        return dataclasses.replace(rows, location=None)
    return [without_place(row) for row in rows] if isinstance(rows, list) else rows


def everything(reader: Reader) -> dict[str, Any]:
    """All that can be asked, and the answers."""
    found: dict[str, Any] = {"names": reader.names()}
    for name in ("digits", "mnist", "nobody", "digits~history", "it's"):
        for limit in (1, 3, 100):
            found[f"versions {name} {limit}"] = without_place(list(reader.versions(name, limit)))
        for alias in (
            ()
            if name.endswith("~history")
            else ("champion", "zweite", "gone", "latest", "LATEST", "none")
        ):
            found[f"alias {name}@{alias}"] = reader.aliased(name, alias)
        for number in (1, 3, 5, 11, 12, 13, 99):
            found[f"version {name}/{number}"] = without_place(reader.version(name, number))
    for limit in (1, 4, 100):
        found[f"all {limit}"] = without_place(list(reader.versions(None, limit)))
    run_id = next(row.run_id for row in reader.versions("mnist", 10) if row.version == 12)
    found["params"] = reader.params(str(run_id))
    return found


def test_the_tables_read_directly_say_what_mlflow_says(filled: Store, database: Path) -> None:
    by_tables, by_client = everything(SqliteReader(database)), everything(ClientReader(filled))

    assert by_tables.keys() == by_client.keys()
    for question, answer in by_client.items():
        assert by_tables[question] == answer, question


def test_the_answers_are_the_right_ones(filled: Store, database: Path) -> None:
    reader = SqliteReader(database)

    assert reader.names() == ["digits", "mnist"]
    assert [row.version for row in reader.versions("mnist", 4)] == [13, 12, 10, 9]
    assert reader.aliased("mnist", "champion") == 3
    assert reader.aliased("mnist", "gone") is None
    assert reader.aliased("mnist", "latest") == 13
    assert reader.version("mnist", 5) is None
    third, twelfth, thirteenth = (reader.version("mnist", number) for number in (3, 12, 13))
    assert third is not None and third.aliases == ("champion", "zweite")
    assert third.tags == {"mindtrace.seed": "2"}
    assert twelfth is not None and twelfth.metrics["val_acc"] == 0.75
    assert "nan" not in twelfth.metrics
    assert thirteenth is not None and thirteenth.run_id is None
    assert thirteenth.location == "/somewhere/else"


@pytest.mark.slow
def test_a_child_process_gives_the_same_answers_and_the_same_bundle(
    filled: Store, database: Path, root: Path, tmp_path: Path
) -> None:
    child = ChildReader(filled.uri, root)
    direct = SqliteReader(database)

    assert everything(child) == everything(direct)
    row = child.version("digits", 1)
    assert row is not None and row.location is not None
    child.fetch(row.location, tmp_path / "fetched")
    digest = row.tags["mindtrace.bundle_digest"]
    assert manifest.check(tmp_path / "fetched", digest)
    with pytest.raises(StoreError) as caught:
        child.fetch("runs:/none/bundle", tmp_path / "nothing")
    assert caught.value.hint
    assert child.names() == ["digits", "mnist"], "a refusal does not end the child"


@pytest.mark.slow
def test_a_child_that_dies_is_an_error_and_the_next_question_starts_another(
    filled: Store, root: Path
) -> None:
    child = ChildReader(filled.uri, root)
    assert child.names() == ["digits", "mnist"]
    assert child._child is not None
    child._child.kill()
    child._child.wait()

    assert child.names() == ["digits", "mnist"]
    with pytest.raises(StoreError, match="ended"):
        child._ask("no_such_call")
    assert child.aliased("mnist", "champion") == 3


def test_client_and_tables_fetch_the_same_files(
    filled: Store, database: Path, tmp_path: Path
) -> None:
    readers: dict[str, Reader] = {"client": ClientReader(filled), "tables": SqliteReader(database)}
    for name, reader in readers.items():
        row = reader.version("digits", 1)
        assert row is not None and row.location is not None
        reader.fetch(row.location, tmp_path / name)

    def files(folder: Path) -> dict[str, str]:
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.iterdir()
            if path.name != "registered_model_meta"
        }

    assert files(tmp_path / "client") == files(tmp_path / "tables")
    assert "manifest.json" in files(tmp_path / "tables")


def test_reading_writes_nothing(filled: Store, database: Path) -> None:
    reader = SqliteReader(database)
    everything(reader)

    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._connection.execute("delete from model_versions")


def test_reading_goes_on_while_somebody_writes(filled: Store, database: Path) -> None:
    writer = sqlite3.connect(database, isolation_level=None)
    writer.execute("begin immediate")
    writer.execute("update registered_models set description = 'x'")
    try:
        assert SqliteReader(database).names() == ["digits", "mnist"]
    finally:
        writer.execute("rollback")
        writer.close()


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


def test_the_log_of_champions_is_in_no_answer(filled: Store, database: Path) -> None:
    reader = SqliteReader(database)

    assert promotion.history(filled, "digits")
    assert all(not row.name.endswith("~history") for row in reader.versions(None, 100))
