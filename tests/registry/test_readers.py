"""Two ways to read a registry, and one answer: MLflow's tables and MLflow's client."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mindtrace.errors import StoreError, UsageError
from mindtrace.registry.champions import ChampionLog
from mindtrace.registry.client_reader import ClientReader
from mindtrace.registry.query import Query, parse_columns, parse_query
from mindtrace.registry.reader import ModelVersion, Reader, open_database
from mindtrace.registry.store import Store

Publish = Callable[..., Any]
Version = Callable[..., int]


QUERIES = [
    (None, "-seed"),
    (None, "val_acc,-version"),
    ("seed > 3", None),
    ("alias = champion or version >= 12", None),
    ("val_acc > 0.3", "-val_acc"),
    ("params.train.lr = 0.1", None),
    ("params.umlaut = ü or tags.a = b", "params.umlaut"),
    ("who != nobody and not run_id = x", "model_name,-created_at"),
    ("version > 99", "version"),
]


def answered(reader: Reader, name: str | None, query: Query, after: int | None) -> Any:
    """Rows, or why there are none."""
    try:
        return without_place(list(reader.versions(name, 5, query=query, after=after)))
    except UsageError as error:
        return error.message


def without_place(rows: Any) -> Any:
    """The client says `runs:/...` where the tables say which folder that is."""
    if isinstance(rows, ModelVersion):
        return rows._replace(location=None)
    return [without_place(row) for row in rows] if isinstance(rows, list) else rows


def columns(reader: Reader, name: str | None, query: Query) -> Any:
    text = "model_name,version,aliases,created_at,run_id,val_acc,metrics.big,seed,params.train.lr"
    return reader.columns([field for _, field in parse_columns(text)], name, 7, query)


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
            found[f"alias {name}@{alias}"] = reader.version_of_alias(name, alias)
        for number in (1, 3, 5, 11, 12, 13, 99):
            found[f"version {name}/{number}"] = without_place(reader.version(name, number))
    for limit in (1, 4, 100):
        found[f"all {limit}"] = without_place(list(reader.versions(None, limit)))
    for name in ("digits", "mnist", "nobody"):
        found[f"aliases {name}"] = reader.aliases(name)
    for where, sort in QUERIES:
        for name, after in ((None, None), ("mnist", None), ("mnist", 10)):
            asked = f"{where} by {sort} of {name} after {after}"
            found[asked] = answered(reader, name, parse_query(where, sort), after)
            found[f"columns {asked}"] = columns(reader, name, parse_query(where, sort))
    run_id = next(row.run_id for row in reader.versions("mnist", 10) if row.version == 12)
    found["params"] = reader.params(str(run_id))
    return found


def test_the_tables_read_directly_say_what_mlflow_says(filled: Store, database: Path) -> None:
    by_tables, by_client = (
        everything(open_database(database)),
        everything(ClientReader(filled.uri, filled.root)),
    )

    assert by_tables.keys() == by_client.keys()
    for question, answer in by_client.items():
        assert by_tables[question] == answer, question


def test_the_answers_are_the_right_ones(filled: Store, database: Path) -> None:
    reader = open_database(database)

    assert reader.names() == ["digits", "mnist"]
    assert [row.version for row in reader.versions("mnist", 4)] == [13, 12, 10, 9]
    assert reader.version_of_alias("mnist", "champion") == 3
    assert reader.version_of_alias("mnist", "gone") is None
    assert reader.version_of_alias("mnist", "latest") == 13
    assert reader.version("mnist", 5) is None
    third, twelfth, thirteenth = (reader.version("mnist", number) for number in (3, 12, 13))
    assert third is not None and third.aliases == ("champion", "zweite")
    assert third.tags == {"mindtrace.seed": "2"}
    assert twelfth is not None and twelfth.metrics["val_acc"] == 0.75
    assert "nan" not in twelfth.metrics
    assert thirteenth is not None and thirteenth.run_id is None
    assert thirteenth.location == "/somewhere/else"


def test_client_and_tables_fetch_the_same_files(
    filled: Store, database: Path, tmp_path: Path
) -> None:
    readers: dict[str, Reader] = {
        "client": ClientReader(filled.uri, filled.root),
        "tables": open_database(database),
    }
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
    with pytest.raises(StoreError) as caught:
        readers["client"].fetch("runs:/none/bundle", tmp_path / "nothing")
    assert caught.value.hint
    assert readers["client"].names() == ["digits", "mnist"]


def test_reading_writes_nothing(filled: Store, database: Path) -> None:
    reader = open_database(database)
    everything(reader)

    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._connection.execute("delete from model_versions")


def test_reading_goes_on_while_somebody_writes(filled: Store, database: Path) -> None:
    writer = sqlite3.connect(database, isolation_level=None)
    writer.execute("begin immediate")
    writer.execute("update registered_models set description = 'x'")
    try:
        assert open_database(database).names() == ["digits", "mnist"]
    finally:
        writer.execute("rollback")
        writer.close()


def test_the_log_of_champions_is_in_no_answer(filled: Store, database: Path) -> None:
    reader = open_database(database)

    assert ChampionLog.of_store(filled, "digits").entries()
    assert all(not row.name.endswith("~history") for row in reader.versions(None, 100))
