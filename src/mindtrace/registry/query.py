"""Which versions, and in which order: a query that was read, and what it means; light.

In: a version's row and the parameters of its run. Out: whether it is meant. A query
gives the same versions whether it is asked here, row by row, or by a store as SQL.
`query_text` reads one.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from mindtrace.errors import UsageError
from mindtrace.registry.fields import Field, number, value_of
from mindtrace.registry.names import METRIC, PREFIX

if TYPE_CHECKING:
    from mindtrace.registry.reader import ModelVersion

OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}

Row = TypeVar("Row")


@dataclass(frozen=True)
class Comparison:
    """`field operator value`; a number for numbers and times, else text."""

    field: Field
    operator: str
    value: float | str

    def holds(self, row: ModelVersion, params: Mapping[str, str] | None) -> bool:
        """Whether a version is meant."""
        if self.field.kind == "alias":
            return (self.value in row.aliases) is (self.operator == "=")
        found = value_of(self.field, row, params)
        if self.field.kind == "mixed" and isinstance(self.value, float):
            found = number(found if isinstance(found, str) else None)
        if found is None:
            return self.operator == "!="
        return OPERATORS[self.operator](found, self.value)


@dataclass(frozen=True)
class Not:
    """The opposite."""

    part: Expression

    def holds(self, row: ModelVersion, params: Mapping[str, str] | None) -> bool:
        """Whether a version is meant."""
        return not self.part.holds(row, params)


@dataclass(frozen=True)
class Junction:
    """All of several, or one of them."""

    word: Literal["and", "or"]
    parts: tuple[Expression, ...]

    def holds(self, row: ModelVersion, params: Mapping[str, str] | None) -> bool:
        """Whether a version is meant."""
        held = (part.holds(row, params) for part in self.parts)
        return all(held) if self.word == "and" else any(held)


Expression = Comparison | Not | Junction


@dataclass(frozen=True)
class SortKey:
    """Order by one field; versions without it come last."""

    field: Field
    descending: bool


@dataclass(frozen=True)
class Query:
    """Which versions, in which order.

    Attributes:
        where: None for all.
        sort: none for the newest first, which also decides between equals.
        texts: what `parse_query` makes the same query from.
    """

    where: Expression | None = None
    sort: tuple[SortKey, ...] = ()
    texts: tuple[str | None, str | None] = (None, None)

    def fields(self) -> Iterator[Field]:
        """Every field that it looks at."""
        yield from _fields(self.where)
        yield from (key.field for key in self.sort)

    def wants_run(self, row: ModelVersion) -> bool:
        """Whether this version's run must be read too, to judge it."""
        tagged = any(key.startswith(PREFIX + METRIC) for key in row.tags)
        return any(
            field.group == "param" or (field.group == "metric" and not tagged)
            for field in self.fields()
        )

    def holds(self, row: ModelVersion, params: Mapping[str, str] | None = None) -> bool:
        """Whether a version is meant."""
        return self.where is None or self.where.holds(row, params)

    def ordered(
        self, rows: Sequence[ModelVersion], params: Mapping[str, Mapping[str, str]]
    ) -> list[ModelVersion]:
        """Rows, newest first, in the wanted order; `params` by run id."""
        found = list(rows)
        for key in reversed(self.sort):
            for part in reversed(("number", "text") if key.field.kind == "mixed" else ("value",)):
                found = _sorted(found, _sort_value(key.field, part, params), key.descending)
        return found


def after_cursor(after: int, rows: Sequence[Row], *, key: Callable[[Row], int]) -> Sequence[Row]:
    """The rows that follow version `after`.

    Raises:
        UsageError: it is not among them.
    """
    for place, row in enumerate(rows):
        if key(row) == after:
            return rows[place + 1 :]
    raise UsageError(
        f"cursor: version {after} is not among these versions any more",
        hint="begin again without a cursor",
    )


def _fields(expression: Expression | None) -> Iterator[Field]:
    if isinstance(expression, Comparison):
        yield expression.field
    elif isinstance(expression, Not):
        yield from _fields(expression.part)
    elif expression is not None:
        for part in expression.parts:
            yield from _fields(part)


def _sort_value(
    field: Field, part: str, params: Mapping[str, Mapping[str, str]]
) -> Callable[[ModelVersion], Any]:
    def value(row: ModelVersion) -> Any:
        found = value_of(field, row, params.get(row.run_id or ""))
        return number(found) if part == "number" and isinstance(found, str) else found

    return value


def _sorted(
    rows: Sequence[ModelVersion], value: Callable[[ModelVersion], Any], descending: bool
) -> list[ModelVersion]:
    """Equal rows keep their order; those without a value follow at the end."""
    present = [row for row in rows if value(row) is not None]
    missing = [row for row in rows if value(row) is None]
    return [*sorted(present, key=value, reverse=descending), *missing]
