"""Readers of MLflow's tables: their answers, other MLflows' schemas, and what is no registry."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric
from tests.registry.conftest import NewStore, plain_version, register_version

from mindtrace.bundle.bundle import Contents
from mindtrace.config.settings import Settings
from mindtrace.errors import NotFoundError, StoreError, UsageError
from mindtrace.registry.champions import ChampionLog
from mindtrace.registry.client_reader import ClientReader
from mindtrace.registry.query import Query, parse_columns, parse_query
from mindtrace.registry.reader import ModelVersion, Reader, open_database, open_reader
from mindtrace.registry.store import Store, start_run
from mindtrace.service.registry import list_versions

SCHEMAS = sorted((Path(__file__).parent / "schemas").glob("*.sql"))
NEWEST = Path(__file__).parent / "schemas" / "mlflow-3.18.0.sql"


@pytest.fixture(scope="module")
def filled(packed: Contents, new_store: NewStore) -> Store:
    """Two models, a deleted version, aliases, odd metrics and tags, a version without a run."""
    store = new_store()
    odd = {"seed": "3", "who": "Jörg 'x' \"y\"", "metric.val_acc": "0.5"}
    register_version(store, packed, metadata=odd)
    for number in range(11):
        plain_version(store, "mnist", seed=str(number))
    client = store.client
    for alias, number in (("champion", "3"), ("zweite", "3"), ("gone", "5")):
        client.set_registered_model_alias("mnist", alias, number)
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


@pytest.fixture
def reader(filled: Store) -> Reader:
    return open_database(filled.root / "mlflow.db")


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
            if after is None:
                found[f"columns {asked}"] = columns(reader, name, parse_query(where, sort))
    run_id = next(row.run_id for row in reader.versions("mnist", 10) if row.version == 12)
    found["params"] = reader.params(str(run_id))
    return found


def test_the_tables_read_directly_say_what_mlflow_says(filled: Store, reader: Reader) -> None:
    by_tables, by_client = everything(reader), everything(ClientReader(filled))

    assert by_tables.keys() == by_client.keys()
    for question, answer in by_client.items():
        assert by_tables[question] == answer, question


def test_the_answers_are_the_right_ones(filled: Store, reader: Reader) -> None:
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
    assert reader.params(None) == {}
    assert ChampionLog(reader, "digits").entries()
    assert all(not row.name.endswith("~history") for row in reader.versions(None, 100))


def test_client_and_tables_fetch_the_same_files(
    filled: Store, reader: Reader, tmp_path: Path
) -> None:
    client, found = ClientReader(filled), []
    for name, one in (("client", client), ("tables", reader)):
        row = one.version("digits", 1)
        assert row is not None and row.location is not None
        one.fetch(row.location, tmp_path / name)
        files = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        files.pop("registered_model_meta", None)
        found.append(files)
    assert found[0] == found[1] and "manifest.json" in found[0]
    with pytest.raises(StoreError) as caught:
        client.fetch("runs:/none/bundle", tmp_path / "nothing")
    assert caught.value.hint


def test_reading_writes_nothing_and_goes_on_while_somebody_writes(
    filled: Store, reader: Reader
) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._connection.execute("delete from model_versions")
    database = filled.root / "mlflow.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as writer:
        writer.execute("begin immediate")
        writer.execute("update registered_models set description = 'x'")
        assert open_database(database).names() == ["digits", "mnist"]
        writer.execute("rollback")


@pytest.fixture
def made(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A database that the dump `request.param`, else the newest, describes."""
    dump: Path = getattr(request, "param", NEWEST)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        connection.executescript(dump.read_text(encoding="utf-8"))
    return tmp_path / "mlflow.db"


def change(database: Path, *statements: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize("made", SCHEMAS, indirect=True, ids=lambda path: path.stem)
def test_what_any_mlflow_has_written_is_read(made: Path) -> None:
    """3.9 had no workspaces; 3.13 is the oldest that may be installed."""
    reader = open_database(made)

    assert reader.names() == ["digits"]
    assert reader.aliases("digits") == {"champion": 2}
    assert [tags["mindtrace.expected"] for _, tags in reader.log("digits")] == ["0"]
    newest, champion = reader.versions(None, 9)
    assert (newest.version, champion.version) == (3, 2)
    assert champion.aliases == ("champion",)
    assert champion.own_tags["seed"] == "2"
    assert (champion.best_metrics, newest.best_metrics) == ({"val_acc": 0.7}, {"val_acc": 0.3})
    assert str(champion.location).endswith("/artifacts/bundle")
    query = parse_query("val_acc > 0.2 and params.train.lr = 0.01", "-val_acc")
    assert [row.version for row in reader.versions("digits", 9, query=query)] == [2, 3]


def test_a_database_of_a_later_mlflow_is_read_if_it_has_the_columns(made: Path) -> None:
    change(
        made,
        "update alembic_version set version_num = '0123456789ab'",
        "alter table model_versions add column brand_new text default 'x'",
    )

    assert [row.version for row in open_database(made).versions("digits", 9)] == [3, 2]


def test_versions_of_other_workspaces_are_not_ours(made: Path) -> None:
    change(
        made,
        "update model_versions set workspace = 'other' where version = 3",
        "insert into registered_models (name, workspace) values ('theirs', 'other')",
    )

    reader = open_database(made)
    assert reader.names() == ["digits"]
    assert [row.version for row in reader.versions(None, 9)] == [2]


@pytest.mark.parametrize(
    ("revision", "age", "hint"),
    [
        # Of MLflow 2.2, before aliases; every later MLflow can upgrade from it.
        ("97727af70f4d", "older", "mlflow db upgrade sqlite:///"),
        ("0123456789ab", "newer", "pip install --upgrade mindtrace mlflow"),
    ],
)
def test_a_schema_that_lacks_a_column_is_one_line_and_what_to_do(
    made: Path, revision: str, age: str, hint: str
) -> None:
    change(
        made,
        "drop table registered_model_aliases",
        f"update alembic_version set version_num = '{revision}'",
    )

    with pytest.raises(StoreError) as caught:
        open_database(made)

    for part in (str(made), revision, "registered_model_aliases.name", age):
        assert part in caught.value.message
    assert "\n" not in caught.value.message
    assert hint in str(caught.value.hint)


def test_a_database_that_is_not_there_or_being_made_is_an_empty_registry(
    settings: Settings, root: Path
) -> None:
    """MLflow makes the file first, then its tables one by one."""
    database, marker = root / "mlflow.db", root / ".mlflow.db.making"

    def found_nothing() -> bool:
        with pytest.raises(NotFoundError) as caught:
            open_reader(settings)
        assert "mindtrace train" in str(caught.value.hint)
        assert (caught.value.kind, caught.value.name) == ("registry", str(database))
        return list_versions(settings) == []

    assert found_nothing() and not database.exists(), "looking makes none"
    database.touch()
    assert found_nothing()
    change(database, "pragma journal_mode = wal")
    assert database.stat().st_size > 0 and found_nothing()
    marker.touch()
    change(database, "create table experiments (id)")
    assert found_nothing()
    marker.unlink()
    with pytest.raises(StoreError, match="no tables of MLflow"):
        open_reader(settings)
