"""The language of `--where` and `--sort`: what it means, and that SQL means the same."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mindtrace.errors import MindtraceError, UsageError
from mindtrace.registry.fields import NAMES, find_field
from mindtrace.registry.query import Query
from mindtrace.registry.query_text import QueryError, parse_columns, parse_query
from mindtrace.registry.reader import ModelVersion, SqliteReader

ROW = ModelVersion(
    name="digits",
    version=3,
    aliases=("champion", "zweite"),
    run_id="abc",
    created_at="2026-03-01T12:00:00.000+00:00",
    tags={
        "mindtrace.metric.val_acc": "0.975",
        "mindtrace.metric.f1": "0.5",
        "mindtrace.seed": "7",
        "mindtrace.test_digest": "ff00",
        "team": "two words",
        "odd key": 'a"b',
    },
    metrics={"val_acc": 0.1, "other": 9.0},
    location=None,
)
PARAMS = {"train.lr": "0.001", "data.source": "digits", "model.name": "mlp"}


@pytest.mark.parametrize(
    "text",
    [
        "val_acc > 0.97",
        "val_acc >= 0.975 and val_acc <= 9.75e-1",
        "metrics.f1 = .5",
        "alias = champion AND alias = zweite",
        "alias != best",
        "model_name = digits and version = 3",
        "not version = 4",
        "not not version = 3",
        "version < 3 or version > 2",
        "version = 1 and version = 2 or version = 3",
        "version = 3 or version = 1 and version = 2",
        "not (version = 1 or version = 2)",
        "params.train.lr < 0.01 and params.train.lr = 1e-3",
        "params.data.source = digits",
        'params.model.name = "mlp"',
        "tags.team = 'two words'",
        'tags."odd key" = "a\\"b"',
        "seed = 7 and tags.mindtrace.seed > 6.5",
        "created_at > 2026-02-28 and created_at < 2026-03-01T13:00:00+00:30",
        "created_at = 2026-03-01T12:00:00Z",
        "run_id = abc",
        "test_digest = ff00",
        "test_acc != 0.5",
        "not test_acc > 0.5 and not test_acc <= 0.5",
        "val_acc>0.97and version=3".replace("and", " and"),
        "tags.team > 'two'",
    ],
)
def test_holds(text: str) -> None:
    assert parse_query(text).holds(ROW, PARAMS)
    assert not parse_query(f"not ({text})").holds(ROW, PARAMS)


def test_metrics_are_those_of_the_weights_else_those_of_the_run() -> None:
    assert not parse_query("metrics.other = 9").holds(ROW)
    bare = ModelVersion("m", 1, (), "r", ROW.created_at, {"a": "b"}, {"val_acc": 0.1}, None)
    assert parse_query("val_acc = 0.1").holds(bare)
    assert parse_query("val_acc = 0.1").wants_run(bare)
    assert not parse_query("val_acc = 0.1").wants_run(ROW)
    assert parse_query("params.x = 1").wants_run(ROW)


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("", 0, "expected a field, found 'the end'"),
        ("val_ac > 0.9", 0, "did you mean 'val_acc'"),
        ("version = 1 and aliass = x", 16, "did you mean 'alias'"),
        ("params. = 1", 0, "unknown field 'params.'"),
        ("val_acc", 7, "expected an operator"),
        ("val_acc == 0.9", 8, "write '='"),
        ("val_acc => 0.9", 8, "write '>='"),
        ("val_acc like 0.9", 8, "one of = != > >= < <="),
        ("val_acc > ", 9, "expected a value after '>'"),
        ("val_acc > high", 10, "val_acc is a number, 'high' is none"),
        ("val_acc > '0.9'", 10, "is a number"),
        ("version = nan", 10, "is a number"),
        ("created_at > yesterday", 13, "2026-01-31"),
        ("alias > champion", 6, "= or != only"),
        ("test_digest < ff", 12, "= or != only"),
        ("alias = latest", 8, "--limit 1"),
        ("version = 1 version = 2", 12, "expected 'and' or 'or', found 'version'"),
        ("version = 1 && version = 2", 12, "expected 'and' or 'or'"),
        ("(version = 1", 12, "expected ')'"),
        ("version = 1)", 11, "expected 'and' or 'or', found ')'"),
        ("not", 3, "expected a field"),
        ("tags.x = 'open", 9, "never closed"),
        ("tags.x = \udcff", 9, "no text"),
        ("(" * 60 + "version = 1" + ")" * 60, 50, "nested"),
        (" or ".join(["version = 1"] * 201), 3000, "more than 200"),
    ],
)
def test_an_error_points_at_the_column(text: str, column: int, reason: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse_query(text)

    error = caught.value
    assert (error.column, reason in error.reason) == (column, True), error.message
    first, shown, caret = error.message.split("\n")
    assert first == f"--where: {error.reason}"
    assert len(shown) == len(text) + 2
    assert caret.index("^") == column + 2
    assert error.hint


def test_an_error_in_a_text_of_several_lines_still_has_its_caret_below() -> None:
    with pytest.raises(QueryError) as caught:
        parse_query("version = 1\n  and\tx = 2")
    assert caught.value.message.split("\n")[1:] == [
        "  version = 1   and x = 2",
        "                    ^",
    ]


def test_sort_keys_and_columns_are_fields_too() -> None:
    keys = parse_query(sort="-val_acc, version,params.train.lr").sort
    assert [(key.field.name, key.descending) for key in keys] == [
        ("val_acc", True),
        ("version", False),
        ("train.lr", False),
    ]
    named = [name for name, _ in parse_columns("version,aliases, params.x")]
    assert named == ["version", "aliases", "params.x"]
    for parse, text, column in (
        (lambda text: parse_query(sort=text), "version,-val_ac", 9),
        (lambda text: parse_query(sort=text), "alias", 0),
        (lambda text: parse_query(sort=text), "", 0),
        (parse_columns, "version, vesion", 9),
    ):
        with pytest.raises(QueryError) as caught:
            parse(text)
        assert caught.value.column == column


@given(st.text())
@example("\0")
@example("'" * 3)
@example("\\")
def test_any_text_is_a_query_or_an_error_of_ours(text: str) -> None:
    for attempt in (
        lambda: parse_query(text),
        lambda: parse_query(sort=text),
        lambda: parse_query(f"tags.x = {text}"),
        lambda: parse_columns(text),
    ):
        try:
            attempt()
        except MindtraceError as error:
            assert isinstance(error, UsageError)


# Versions with every sort of odd value, and what can be asked of them.
NUMBERISH = st.sampled_from(
    ["0.5", "0.50", "1e-3", "-1", "7", " 7", "7x", "nan", "inf", "-0.0", "0.1", "x", "é", ""]
)
TEXTS = NUMBERISH | st.text("aAzé'\"7.~\U0001f600", max_size=3)
METRIC = st.floats(allow_nan=False, allow_infinity=False, width=32) | st.sampled_from([0.1, 0.5])
DAYS = [0, 86_400_000, 1_767_225_600_000, 1_767_225_600_001, 1_900_000_000_123]
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "model": st.sampled_from(["a", "b", "it's", "ä"]),
            "created": st.sampled_from(DAYS),
            "aliases": st.sets(st.sampled_from(["champion", "Champion", "b"]), max_size=2),
            "run": st.booleans(),
            "tags": st.dictionaries(
                st.sampled_from(
                    [
                        *("mindtrace.metric.val_acc", "mindtrace.metric.f1", "mindtrace.seed"),
                        *("mindtrace.test_digest", "x", "mindtrace.metric", "mindtrace.metric."),
                    ]
                ),
                TEXTS,
            ),
            "metrics": st.dictionaries(st.sampled_from(["val_acc", "f1"]), METRIC),
            "params": st.dictionaries(st.sampled_from(["train.lr", "x"]), TEXTS),
        }
    ),
    max_size=6,
)


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


SIGN = st.sampled_from(["=", "!=", ">", ">=", "<", "<="])
EQUAL = st.sampled_from(["=", "!="])
FREE = st.sampled_from(
    ["params.train.lr", "params.x", "tags.x", "tags.none", "tags.mindtrace.seed"]
)
NUMBERS = st.sampled_from(["0", "0.1", "0.5", "1e-3", "-1", "7", "1e400", "2"])
TIMES = st.sampled_from(["1970-01-01", "1970-01-02", "2026-01-01", "2026-01-01T00:00:00.0005"])
COMPARISON = st.one_of(
    st.tuples(
        st.sampled_from(["val_acc", "metrics.f1", "test_acc", "version", "seed"]), SIGN, NUMBERS
    ),
    st.tuples(FREE, SIGN, NUMBERS | TEXTS.map(quoted)),
    st.tuples(st.sampled_from(["model_name", "test_digest", "run_id"]), EQUAL, TEXTS.map(quoted)),
    st.tuples(st.just("model_name"), EQUAL, st.sampled_from(["a", '"it\'s"', "ä"])),
    st.tuples(st.just("alias"), EQUAL, st.sampled_from(["champion", "b", "none"])),
    st.tuples(st.just("created_at"), SIGN, TIMES),
).map(" ".join)
WHERE = st.recursive(
    COMPARISON,
    lambda inner: st.one_of(
        inner.map("not ({})".format),
        st.tuples(inner, inner).map("({0[0]}) and {0[1]}".format),
        st.tuples(inner, inner).map("{0[0]} or ({0[1]})".format),
    ),
    max_leaves=4,
)
SORT = st.lists(
    st.tuples(
        st.sampled_from(["", "-"]),
        st.sampled_from(
            [
                *("val_acc", "metrics.f1", "version", "seed", "created_at", "model_name"),
                *("params.train.lr", "tags.x", "test_digest", "run_id"),
            ]
        ),
    ).map("".join),
    min_size=1,
    max_size=3,
).map(",".join)


@pytest.fixture(scope="module")
def tables(empty_database: Path) -> Iterator[sqlite3.Connection]:
    """A copy of MLflow's tables, to be filled and rolled back."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "mlflow.db"
        target.write_bytes(empty_database.read_bytes())
        connection = sqlite3.connect(target, isolation_level=None)
        connection.execute("pragma synchronous = off")
        yield connection
        connection.close()


def fill(connection: sqlite3.Connection, rows: list[dict[str, Any]]) -> None:
    def insert(table: str, **values: Any) -> None:
        names = ", ".join(values)
        marks = ", ".join("?" * len(values))
        connection.execute(f"insert into {table} ({names}) values ({marks})", [*values.values()])

    for table in (
        *("model_version_tags", "registered_model_aliases", "model_versions"),
        *("registered_models", "latest_metrics", "params", "runs"),
    ):
        connection.execute(f"delete from {table}")
    default = {"workspace": "default"}
    for name in sorted({row["model"] for row in rows}):
        insert("registered_models", **default, name=name)
    for number, row in enumerate(rows, 1):
        run = f"run{number}" if row["run"] else ""
        key = {**default, "name": row["model"], "version": number}
        insert(
            "model_versions",
            **key,
            creation_time=row["created"],
            current_stage="None",
            source="s",
            run_id=run,
        )
        for tag, value in row["tags"].items():
            insert("model_version_tags", **key, key=tag, value=value)
        for alias in row["aliases"]:
            connection.execute(
                "insert or replace into registered_model_aliases"
                " (workspace, name, alias, version) values ('default', ?, ?, ?)",
                [row["model"], alias, number],
            )
        if not run:
            continue
        insert("runs", run_uuid=run, artifact_uri="file:///x", experiment_id=0)
        for param, value in row["params"].items():
            insert("params", run_uuid=run, key=param, value=value)
        for metric, value in row["metrics"].items():
            insert(
                "latest_metrics",
                run_uuid=run,
                key=metric,
                value=value,
                timestamp=1,
                step=1,
                is_nan=0,
            )


@given(ROWS, WHERE, SORT | st.none())
def test_sql_and_python_agree(
    tables: sqlite3.Connection, rows: list[dict[str, Any]], where: str, sort: str | None
) -> None:
    tables.execute("begin")
    fill(tables, rows)
    tables.execute("commit")
    (_, _, path), *_ = tables.execute("pragma database_list").fetchall()
    reader = SqliteReader(Path(path))
    query = parse_query(where, sort)
    for name in (None, "a"):
        everything = reader.versions(name, 100)
        params = {row.run_id: reader.params(row.run_id) for row in everything if row.run_id}
        held = [row for row in everything if query.holds(row, params.get(row.run_id or ""))]
        expected = query.ordered(held, params)
        assert list(reader.versions(name, 100, query=query)) == expected
        assert list(reader.versions(name, 2, query=query)) == expected[:2]
    seen = [row.version for row in expected]
    for place, version in enumerate(seen):
        page = reader.versions("a", 100, query=query, after=version)
        assert [row.version for row in page] == seen[place + 1 :]


def test_a_query_is_made_again_from_its_texts() -> None:
    query = parse_query("val_acc > 0.5 or alias = x", "-seed")

    assert parse_query(*json.loads(json.dumps(query.texts))) == query
    assert parse_query() == Query()


def test_every_field_is_documented() -> None:
    for name in NAMES:
        assert find_field(name) is not None
