"""A query as SQL over MLflow's tables in SQLite; light.

In: a `Query`. Out: a condition and an order for a select from `model_versions v`, with
the values to bind. Texts become numbers by `mindtrace_number`, which the connection
must know: SQLite's own conversion makes numbers of words, and rounds otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mindtrace.registry.fields import Field
from mindtrace.registry.names import METRIC, PREFIX
from mindtrace.registry.query import Comparison, Expression, Not, Query

NUMBER = "mindtrace_number"

_COLUMNS = {
    "model_name": "v.name",
    "version": "v.version",
    "created_at": "v.creation_time",
    "run_id": "nullif(v.run_id, '')",
}
_OF_VERSION = "t.workspace = v.workspace and t.name = v.name and t.version = v.version"
_TAG = f"(select t.value from model_version_tags t where {_OF_VERSION} and t.key = ?)"
_PARAM = "(select p.value from params p where p.run_uuid = v.run_id and p.key = ?)"
# Of the run, for a version that has no metrics of its own.
_RUN_METRIC = f"""(select m.value from latest_metrics m
    where m.run_uuid = v.run_id and m.key = ? and m.is_nan = 0 and not exists (
        select 1 from model_version_tags t
        where {_OF_VERSION} and t.key >= ? and t.key < ?))"""
_ALIAS = """exists (select 1 from registered_model_aliases a where a.workspace = v.workspace
    and a.name = v.name and a.version = v.version and a.alias = ?)"""
_ALL_METRICS = PREFIX + METRIC


@dataclass(frozen=True)
class Sql:
    """Text and what its `?` stand for."""

    text: str
    values: list[float | str] = field(default_factory=list)


def condition(query: Query) -> Sql:
    """What follows `where`; `1` for all versions."""
    return Sql("1") if query.where is None else _condition(query.where)


def order(query: Query) -> Sql:
    """What follows `order by`, with a comma at its end; empty for the newest first."""
    parts: list[str] = []
    values: list[float | str] = []
    for key in query.sort:
        value = _value(key.field)
        direction = "desc" if key.descending else "asc"
        texts = [value.text]
        if key.field.kind == "mixed":
            texts = [f"{NUMBER}({value.text})", value.text]
        for text in texts:
            parts.append(f"{text} {direction} nulls last, ")
            values += value.values
    return Sql("".join(parts), values)


def _condition(expression: Expression) -> Sql:
    if isinstance(expression, Comparison):
        return _comparison(expression)
    if isinstance(expression, Not):
        part = _condition(expression.part)
        return Sql(f"(not {part.text})", part.values)
    found = [_condition(part) for part in expression.parts]
    text = f" {expression.word} ".join(part.text for part in found)
    return Sql(f"({text})", [value for part in found for value in part.values])


def _comparison(comparison: Comparison) -> Sql:
    negated = comparison.operator == "!="
    sign = "=" if negated else comparison.operator
    if comparison.field.kind == "alias":
        found = Sql(_ALIAS, [comparison.value])
    else:
        value = _value(comparison.field)
        text = value.text
        if comparison.field.kind == "mixed" and isinstance(comparison.value, float):
            text = f"{NUMBER}({text})"
        # A value that is not there equals nothing, and is neither more nor less.
        found = Sql(f"coalesce({text} {sign} ?, 0)", [*value.values, comparison.value])
    return Sql(f"(not {found.text})", found.values) if negated else found


def _value(field: Field) -> Sql:
    if field.group == "column":
        return Sql(_COLUMNS[field.name])
    if field.group == "param":
        return Sql(_PARAM, [field.name])
    if field.group == "tag":
        text = f"{NUMBER}({_TAG})" if field.kind == "number" else _TAG
        return Sql(text, [field.name])
    # The character behind `.` ends the range of keys that begin with ours.
    behind = _ALL_METRICS[:-1] + chr(ord(_ALL_METRICS[-1]) + 1)
    return Sql(
        f"coalesce({NUMBER}({_TAG}), {_RUN_METRIC})",
        [_ALL_METRICS + field.name, field.name, _ALL_METRICS, behind],
    )
