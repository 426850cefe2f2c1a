"""What a reader does with schemas of other MLflows, and with what is no registry at all."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from mindtrace.config.settings import Settings
from mindtrace.errors import NotFoundError, StoreError
from mindtrace.registry.query import parse_query
from mindtrace.registry.reader import open_database, open_reader
from mindtrace.registry.store import Store
from mindtrace.service.registry import list_versions

SCHEMAS = sorted((Path(__file__).parent / "schemas").glob("*.sql"))
NEWEST = Path(__file__).parent / "schemas" / "mlflow-3.18.0.sql"


@pytest.fixture
def made(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A database that the dump `request.param`, else the newest, describes."""
    dump: Path = getattr(request, "param", NEWEST)
    connection = sqlite3.connect(tmp_path / "mlflow.db")
    connection.executescript(dump.read_text(encoding="utf-8"))
    connection.close()
    return tmp_path / "mlflow.db"


def change(database: Path, *statements: str) -> None:
    with sqlite3.connect(database) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


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


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" * 10])
def test_a_file_that_is_no_database_is_a_store_error(root: Path, content: bytes) -> None:
    (root / "other.db").write_bytes(content)

    with pytest.raises(StoreError) as caught:
        open_database(root / "other.db")
    assert "other.db" in caught.value.message


def test_a_database_that_is_not_there_says_what_makes_it(settings: Settings, root: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        open_reader(settings)

    assert (caught.value.kind, caught.value.name) == ("registry", str(root / "mlflow.db"))
    assert "mindtrace train" in str(caught.value.hint)
    assert not (root / "mlflow.db").exists(), "looking makes none"


def test_a_database_that_is_being_made_is_an_empty_registry(settings: Settings, root: Path) -> None:
    """MLflow makes the file first, then its tables one by one."""
    database, marker = root / "mlflow.db", root / ".mlflow.db.making"

    def found_nothing() -> bool:
        with pytest.raises(NotFoundError) as caught:
            open_reader(settings)
        return caught.value.kind == "registry" and list_versions(settings) == []

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


def test_odd_names_of_folders_are_no_hindrance(
    filled: Store, database: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "wörk %20 #1 ?x=y & z"
    odd.mkdir()
    for file in database.parent.glob("mlflow.db*"):
        shutil.copy(file, odd)

    assert open_database(odd / "mlflow.db").names() == ["digits", "mnist"]
