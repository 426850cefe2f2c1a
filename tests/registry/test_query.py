"""The language of `--where`, `--sort` and `--columns`: what it means over MLflow's tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from mindtrace.errors import MindtraceError, UsageError
from mindtrace.registry.query import (
    NAMES,
    Query,
    QueryError,
    find_field,
    parse_columns,
    parse_query,
)
from mindtrace.registry.reader import Reader, prepare

NEWEST_SCHEMA = Path(__file__).parent / "schemas" / "mlflow-3.18.0.sql"
ROW = {
    "model": "digits",
    "created": 1_772_366_400_000,
    "aliases": {"champion", "zweite"},
    "run": True,
    "tags": {
        "mindtrace.metric.val_acc": "0.975",
        "mindtrace.metric.f1": "0.5",
        "mindtrace.seed": "7",
        "mindtrace.test_digest": "ff00",
        "team": "two words",
        "odd key": 'a"b',
    },
    "metrics": {"val_acc": 0.1, "other": 9.0},
    "params": {"train.lr": "0.001", "data.source": "digits", "model.name": "mlp"},
}
OTHER = {**ROW, "aliases": set(), "run": False, "tags": {}, "metrics": {}, "params": {}}


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    """A reader of MLflow's tables in memory, to be filled."""
    # The garbage collector of any thread may close it.
    connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    connection.executescript(NEWEST_SCHEMA.read_text(encoding="utf-8"))
    prepare(connection, "memory")
    yield Reader(connection, "memory")
    connection.close()


@pytest.fixture
def third(reader: Reader) -> Reader:
    """Of three versions the last one is `ROW`."""
    fill(reader, [OTHER, OTHER, ROW])
    return reader


def numbers(reader: Reader, where: str) -> list[int]:
    return [row.version for row in reader.versions(None, 9, query=parse_query(where))]


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
        "run_id = run3",
        "test_digest = ff00",
        "test_acc != 0.5",
        "not test_acc > 0.5 and not test_acc <= 0.5",
        "val_acc>0.97and version=3".replace("and", " and"),
        "tags.team > 'two'",
    ],
)
def test_holds(third: Reader, text: str) -> None:
    assert 3 in numbers(third, text)
    assert 3 not in numbers(third, f"not ({text})")
    both = sorted(numbers(third, text) + numbers(third, f"not ({text})"))
    assert both == [1, 2, 3], "a version meets a condition or its opposite"


def test_columns_are_values_of_their_kind(third: Reader) -> None:
    text = "model_name,version,aliases,alias,created_at,run_id,val_acc,metrics.none,seed,best_epoch"
    columns = parse_columns(f'{text},params.train.lr,tags."odd key"')

    first, *_, last = third.columns([field for _, field in columns], None, 9, Query())

    assert first == [
        *("digits", 3, "champion,zweite", "champion,zweite", "2026-03-01T12:00:00.000+00:00"),
        *("run3", 0.975, None, 7, None, "0.001", 'a"b'),
    ]
    assert [type(value) for value in first[:10]] == [
        *(str, int, str, str, str, str, float, type(None), int, type(None))
    ]
    assert last == ["digits", 1, "", "", first[4], *[None] * 7]


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("", 0, "expected a field, found 'the end'"),
        ("val_ac > 0.9", 0, "did you mean 'val_acc'"),
        ("version = 1 and aliass = x", 16, "did you mean 'alias'"),
        ("params. = 1", 0, "unknown field 'params.'"),
        ("val_acc", 7, "found 'the end'"),
        ("val_acc == 0.9", 8, "one of = != > >= < <= after val_acc, found '=='"),
        ("val_acc like 0.9", 8, "found 'like'"),
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
    query = parse_query(sort="-val_acc, version,params.train.lr")
    assert [field.name for field in query.fields] == ["val_acc", "version", "train.lr"]
    parts = query.order.text.split(" nulls last, ")[:-1]
    assert [part.split()[-1] for part in parts] == ["desc", "asc", "asc", "asc"]
    named = [name for name, _ in parse_columns("version,aliases, params.x")]
    assert named == ["version", "aliases", "params.x"]
    assert all(find_field(name) for name in NAMES)
    for options, column in (
        ({"sort": "version,-val_ac"}, 9),
        ({"sort": "alias"}, 0),
        ({"sort": ""}, 0),
        ({"columns": "version, vesion"}, 9),
    ):
        with pytest.raises(QueryError) as caught:
            parse_columns(options["columns"]) if "columns" in options else parse_query(**options)
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


def fill(reader: Reader, rows: list[dict[str, Any]]) -> None:
    """Replace all versions by these, numbered from 1 whatever their model."""

    def insert(table: str, **values: Any) -> None:
        marks = ", ".join("?" * len(values))
        sql = f"insert or replace into {table} ({', '.join(values)}) values ({marks})"
        reader._connection.execute(sql, [*values.values()])

    for table in (
        *("model_version_tags", "registered_model_aliases", "model_versions"),
        *("registered_models", "latest_metrics", "params", "runs"),
    ):
        reader._connection.execute(f"delete from {table}")
    for at, row in enumerate(rows, 1):
        run = f"run{at}" if row["run"] else ""
        model = {"workspace": "default", "name": row["model"]}
        insert("registered_models", **model)
        stage = {"current_stage": "None", "source": "s", "run_id": run}
        insert("model_versions", **model, version=at, creation_time=row["created"], **stage)
        for tag, value in row["tags"].items():
            insert("model_version_tags", **model, version=at, key=tag, value=value)
        for alias in row["aliases"]:
            insert("registered_model_aliases", **model, alias=alias, version=at)
        if not run:
            continue
        insert("runs", run_uuid=run, artifact_uri="file:///x", experiment_id=0)
        for param, value in row["params"].items():
            insert("params", run_uuid=run, key=param, value=value)
        for metric, value in row["metrics"].items():
            last = {"timestamp": 1, "step": 1, "is_nan": 0}
            insert("latest_metrics", run_uuid=run, key=metric, value=value, **last)


# Of versions 1 to 9 the tag x; 9 has none.
ODD = ["7", " 7", "7x", "nan", "inf", "-0.0", "é", "", None]
TAGGED = [{**OTHER, "tags": {} if text is None else {"x": text}} for text in ODD]
OWN = "mindtrace.metric."
METRICS = [
    {**ROW, "tags": tags, "metrics": {"val_acc": 0.1}, "run": run, "aliases": aliases}
    for tags, run, aliases in (
        ({f"{OWN}val_acc": "0.5"}, True, {"champion"}),  # the metrics of the best epoch count
        ({f"{OWN}f1": "0.5"}, True, {"Champion"}),  # it has such, though not this one
        ({OWN: "0.5"}, True, set()),
        ({}, True, set()),
        ({"mindtrace.metric": "0.5"}, True, set()),
        ({f"{OWN}val_acc": "nan"}, True, set()),
        ({}, False, set()),
    )
]
DAY = 1_767_225_600_000  # 2026-01-01
MODELS = [
    {**OTHER, "model": model, "created": created, "params": {"x": param}, "run": True}
    for model, created, param in (
        *(("it's", DAY, "1e-3"), ("ä", DAY, "0.01"), ("a", DAY + 1, "x")),
        *(("a", DAY, "-1"), ("a", 0, "0.5")),
    )
]
# What is asked of which versions, how sorted, and which are found.
MEANT = [
    (TAGGED, "tags.x > 6", None, [5, 2, 1]),
    (TAGGED, "tags.x > '6'", None, [7, 5, 4, 3, 1]),
    (TAGGED, "tags.x = 7", None, [2, 1]),
    (TAGGED, "tags.x = '7'", None, [1]),
    (TAGGED, "tags.x != 7", None, [9, 8, 7, 6, 5, 4, 3]),
    (TAGGED, "not tags.x = ''", None, [9, 7, 6, 5, 4, 3, 2, 1]),
    (TAGGED, "tags.x < 1e400", None, [6, 2, 1]),
    (TAGGED, "tags.x <= -0", None, [6]),
    (TAGGED, None, "tags.x", [6, 2, 1, 5, 8, 3, 4, 7, 9]),
    (TAGGED, None, "-tags.x", [5, 1, 2, 6, 7, 4, 3, 8, 9]),
    (METRICS, "val_acc > 0", None, [5, 4, 1]),
    (METRICS, "val_acc != 0.5", None, [7, 6, 5, 4, 3, 2]),
    (METRICS, "alias = champion", None, [1]),
    (METRICS, "run_id = run7 or run_id = run1", None, [1]),
    (METRICS, None, "val_acc", [5, 4, 1, 7, 6, 3, 2]),
    (METRICS, None, "-val_acc,version", [1, 4, 5, 2, 3, 6, 7]),
    (MODELS, "created_at < 2026-01-01T00:00:00.0005", None, [4, 1, 2, 5]),
    (MODELS, "created_at = 1970-01-01 or model_name = ä", None, [2, 5]),
    (MODELS, 'model_name = "it\'s" and params.x > 0', None, [1]),
    (MODELS, "params.x < 0.02", "params.x", [4, 1, 2]),
    (MODELS, None, "model_name,-created_at", [3, 4, 5, 1, 2]),
]


@pytest.mark.parametrize(("rows", "where", "sort", "expected"), MEANT)
def test_odd_values_mean_what_the_documentation_says(
    reader: Reader, rows: list[dict[str, Any]], where: str, sort: str | None, expected: list[int]
) -> None:
    fill(reader, rows)
    query = parse_query(where, sort)
    assert [row.version for row in reader.versions(None, 9, query=query)] == expected
    assert [row.version for row in reader.versions(None, 2, query=query)] == expected[:2]
    name = rows[-1]["model"]
    of_it = [row.version for row in reader.versions(name, 9, query=query)]
    assert set(of_it) == {at for at in expected if rows[at - 1]["model"] == name}
    for place, version in enumerate(of_it):
        page = reader.versions(name, 9, query=query, after=version)
        assert [row.version for row in page] == of_it[place + 1 :]
