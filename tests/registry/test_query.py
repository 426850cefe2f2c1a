"""The language of `--where`, `--sort` and `--columns`: what it means over MLflow's tables."""

from __future__ import annotations

import operator
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
from mindtrace.registry.reader import Reader, number, prepare

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


OPERATORS = [operator.eq, operator.ne, operator.gt, operator.ge, operator.lt, operator.le]
SIGNS = dict(zip(["=", "!=", ">", ">=", "<", "<="], OPERATORS, strict=True))
SIGN = st.sampled_from([*SIGNS])
EQUAL = st.sampled_from(["=", "!="])
FREE = st.sampled_from(
    ["params.train.lr", "params.x", "tags.x", "tags.none", "tags.mindtrace.seed"]
)
# What is written, and what it means.
NUMBERS = st.sampled_from(["0", "0.1", "0.5", "1e-3", "-1", "7", "1e400", "2"]).map(
    lambda text: (text, float(text))
)
QUOTED = TEXTS.map(lambda text: (quoted(text), text))
NAME = st.sampled_from([("a", "a"), ('"it\'s"', "it's"), ("ä", "ä")])
ALIAS = st.sampled_from([("champion", "champion"), ("b", "b"), ("none", "none")])
TIMES = st.sampled_from(
    [
        *(("1970-01-01", 0.0), ("1970-01-02", 86_400_000.0), ("2026-01-01", 1_767_225_600_000.0)),
        ("2026-01-01T00:00:00.0005", 1_767_225_600_000.5),
    ]
)


def value(field: str, row: dict[str, Any]) -> Any:
    """What a version has, by the plainest reading of the documentation."""
    tags, run = row["tags"], row["run"]
    group, _, name = field.partition(".")
    if field in ("val_acc", "metrics.f1", "test_acc"):
        own = {key for key in tags if key.startswith("mindtrace.metric.")}
        metric = field.removeprefix("metrics.")
        if own:
            return number(tags.get(f"mindtrace.metric.{metric}"))
        return row["metrics"].get(metric) if run else None
    if group == "params":
        return row["params"].get(name) if run else None
    if group == "tags":
        return tags.get(name)
    if field == "seed":
        return number(tags.get("mindtrace.seed"))
    found = {
        "version": row["version"],
        "model_name": row["model"],
        "test_digest": tags.get("mindtrace.test_digest"),
        "run_id": f"run{row['version']}" if run else None,
        "created_at": row["created"],
    }
    return found[field]


def holds(field: str, sign: str, expected: Any, row: dict[str, Any]) -> bool:
    if field == "alias":
        return (expected in row["aliases"]) is (sign == "=")
    found = value(field, row)
    if isinstance(expected, float) and isinstance(found, str):
        found = number(found)
    if found is None:
        return sign == "!="
    return bool(SIGNS[sign](found, expected))


def ordered(rows: list[dict[str, Any]], sort: str | None) -> list[dict[str, Any]]:
    """Equal rows keep their order; those without a value follow at the end."""
    for key in reversed((sort or "").split(",") if sort else []):
        field, descending = key.removeprefix("-"), key.startswith("-")
        mixed = field.startswith(("params.", "tags."))
        for as_number in (False, True) if mixed else (False,):

            def key_of(row: dict[str, Any], field: str = field, n: bool = as_number) -> Any:
                found = value(field, row)
                return number(found) if n else found

            present = [row for row in rows if key_of(row) is not None]
            missing = [row for row in rows if key_of(row) is None]
            rows = [*sorted(present, key=key_of, reverse=descending), *missing]
    return rows


def drawn(fields: Any, signs: Any, values: Any) -> Any:
    """The text of a comparison, and whether a row meets it."""
    return st.tuples(fields, signs, values).map(
        lambda parts: (
            f"{parts[0]} {parts[1]} {parts[2][0]}",
            lambda row: holds(parts[0], parts[1], parts[2][1], row),
        )
    )


def negated(a: Any) -> Any:
    return f"not ({a[0]})", lambda row: not a[1](row)


def joined(parts: Any) -> Any:
    a, word, b = parts
    if word == "and":
        return f"({a[0]}) and {b[0]}", lambda row: a[1](row) and b[1](row)
    return f"{a[0]} or ({b[0]})", lambda row: a[1](row) or b[1](row)


COMPARISON = st.one_of(
    drawn(st.sampled_from(["val_acc", "metrics.f1", "test_acc", "version", "seed"]), SIGN, NUMBERS),
    drawn(FREE, SIGN, NUMBERS | QUOTED),
    drawn(st.sampled_from(["model_name", "test_digest", "run_id"]), EQUAL, QUOTED),
    drawn(st.just("model_name"), EQUAL, NAME),
    drawn(st.just("alias"), EQUAL, ALIAS),
    drawn(st.just("created_at"), SIGN, TIMES),
)
WHERE = st.recursive(
    COMPARISON,
    lambda inner: (
        inner.map(negated) | st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(joined)
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


@given(ROWS, WHERE, SORT | st.none())
def test_sql_means_what_the_documentation_says(
    reader: Reader, rows: list[dict[str, Any]], where: tuple[str, Any], sort: str | None
) -> None:
    text, meets = where
    fill(reader, rows)
    last = {(row["model"], alias): n for n, row in enumerate(rows, 1) for alias in row["aliases"]}
    known = [
        {
            **row,
            "version": n,
            "aliases": {a for (model, a), at in last.items() if (model, at) == (row["model"], n)},
        }
        for n, row in enumerate(rows, 1)
    ]
    newest = sorted(known, key=lambda row: (-row["created"], row["model"], -row["version"]))
    query = parse_query(text, sort)
    of_a = [row for row in reversed(known) if row["model"] == "a"]
    for name, candidates in ((None, newest), ("a", of_a)):
        if name is None and len({row["model"] for row in rows}) == 1:
            candidates = list(reversed(known))
        met = ordered([row for row in candidates if meets(row)], sort)
        expected = [row["version"] for row in met]
        assert [row.version for row in reader.versions(name, 100, query=query)] == expected
        assert [row.version for row in reader.versions(name, 2, query=query)] == expected[:2]
    for place, version in enumerate(expected):
        page = reader.versions("a", 100, query=query, after=version)
        assert [row.version for row in page] == expected[place + 1 :]
