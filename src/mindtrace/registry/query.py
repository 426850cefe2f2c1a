"""The language of `registry list --where`, `--sort` and `--columns`: text in, SQL out.

    expression  = conjunction {"or" conjunction}
    conjunction = negation {"and" negation}
    negation    = "not" negation | "(" expression ")" | comparison
    comparison  = field ("=" | "!=" | ">" | ">=" | "<" | "<=") value
    value       = word | "text" | 'text'

as in `val_acc > 0.97 and not alias = champion`. A value that a version does not have equals
nothing and is neither more nor less than anything; `!=` is the opposite of `=`.

The SQL is a condition and an order for a select from `versions v` (see `reader.py`). Texts
become numbers by the function `mindtrace_number`, because SQLite's own conversion makes
numbers of words.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, NoReturn

from mindtrace.errors import UsageError, listed, meant
from mindtrace.registry.names import LATEST, METRIC, PREFIX

Kind = Literal["number", "text", "time", "alias", "mixed"]
Group = Literal["column", "metric", "tag", "param"]

NUMBER_FUNCTION = "mindtrace_number"
MAX_COMPARISONS = 200
# SQLite's own limit on the depth of an expression is 1000.
MAX_DEPTH = 50

_OF_VERSION = "name = v.name and version = v.version"
_SQL_ALIASES = (
    "coalesce((select group_concat(alias, ',') from"
    f" (select alias from version_aliases where {_OF_VERSION} order by alias)), '')"
)
# Of each its kind, and its value for `versions v`.
COLUMNS: Mapping[str, tuple[Kind, str]] = {
    "model_name": ("text", "v.name"),
    "version": ("number", "v.version"),
    "alias": ("alias", _SQL_ALIASES),
    "created_at": ("time", "v.creation_time"),
    "run_id": ("text", "v.run_id"),
}
METRICS = (
    *("train_loss", "val_loss", "val_acc", "val_balanced_accuracy", "val_f1_macro"),
    *("test_loss", "test_acc", "test_balanced_accuracy", "test_f1_macro"),
)
_NUMBERS = ("seed", "best_epoch", "duration_s")
OUR_TAGS = (
    *("data_digest", "test_digest", "bundle_digest", "weights_digest", "config_digest"),
    *(*_NUMBERS, "parent", "job_id", "who", "git_commit", "platform"),
)
NAMES = (*COLUMNS, *METRICS, *OUR_TAGS)
# Whatever a run or another tool has written.
FREE: Mapping[str, tuple[Group, Kind]] = {
    "metrics": ("metric", "number"),
    "params": ("param", "mixed"),
    "tags": ("tag", "mixed"),
}
OPERATORS = ("=", "!=", ">", ">=", "<", "<=")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HINTS = {
    "where": '--where "val_acc > 0.97 and alias = champion"  # for example',
    "sort": "--sort -val_acc,version  # for example; - is for the largest first",
    "columns": "--columns version,val_acc,params.train.lr  # for example",
}
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<paren>[()]) |
        (?P<operator>[=!<>]+|&&|\|\|) |
        (?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*') |
        (?P<word>(?:metrics|params|tags)\."[^"]+"|[^\s()=!<>"']+)
    )""",
    re.VERBOSE | re.DOTALL,
)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_SURROGATE = re.compile("[\ud800-\udfff]")

_SQL_TAG = f"(select value from version_tags where {_OF_VERSION} and key = ?)"
_SQL_PARAM = "(select value from params where run_uuid = v.run_id and key = ?)"
_SQL_HAS_ALIAS = f"exists (select 1 from version_aliases where {_OF_VERSION} and alias = ?)"
# The metrics of the best epoch are tags of ours; a version without any has those of its run.
# "/" follows "." in ASCII, so this range holds the keys that begin with "mindtrace.metric.".
_SQL_METRIC = f"""coalesce({NUMBER_FUNCTION}({_SQL_TAG}), (
    select value from latest_metrics where run_uuid = v.run_id and key = ? and is_nan = 0
    and not exists (select 1 from version_tags where {_OF_VERSION}
        and key >= '{PREFIX}{METRIC}' and key < '{(PREFIX + METRIC)[:-1]}/')))"""


class QueryError(UsageError):
    """A query that cannot be read, with a caret below the text; `column` counts from 0."""

    def __init__(self, option: str, text: str, column: int, reason: str, width: int = 1) -> None:
        shown = text.translate({ord(blank): " " for blank in "\t\n\r\v\f"})
        caret = " " * column + "^" * max(1, width)
        super().__init__(f"--{option}: {reason}\n  {shown}\n  {caret}", hint=_HINTS[option])
        self.text = text
        self.column = column
        self.reason = reason


class Sql(NamedTuple):
    """SQL text and the values of its `?`."""

    text: str
    values: tuple[float | str, ...] = ()


class Field(NamedTuple):
    """A value that versions have; `name` of a tag is with its prefix, `mixed` is text or number."""

    group: Group
    name: str
    kind: Kind

    @property
    def sql(self) -> Sql:
        """Its value for `versions v`; of `alias` all of them, with commas between."""
        if self.group == "column":
            return Sql(COLUMNS[self.name][1])
        if self.group == "param":
            return Sql(_SQL_PARAM, (self.name,))
        if self.group == "metric":
            return Sql(_SQL_METRIC, (PREFIX + METRIC + self.name, self.name))
        text = f"{NUMBER_FUNCTION}({_SQL_TAG})" if self.kind == "number" else _SQL_TAG
        return Sql(text, (self.name,))


class Query(NamedTuple):
    """Which versions, in which order; `order` is empty, or SQL that ends with a comma."""

    where: Sql = Sql("1")
    order: Sql = Sql("")
    fields: tuple[Field, ...] = ()


def parse_query(where: str | None = None, sort: str | None = None) -> Query:
    """Read a query; a QueryError points at the column where it goes wrong."""
    fields: list[Field] = []
    condition = Sql("1") if where is None else _Where(where, fields).sql()
    order = ""
    values: list[float | str] = []
    for text, column in () if sort is None else _listed_names(sort):
        name = text.removeprefix("-")
        field = _known_field(name, "sort", sort or "", column + (name != text))
        if field.kind == "alias":
            reason = "versions have no order by alias"
            raise QueryError("sort", sort or "", column, reason, len(text))
        fields.append(field)
        value = field.sql.text
        # Numbers come before texts.
        keys = [f"{NUMBER_FUNCTION}({value})", value] if field.kind == "mixed" else [value]
        for key in keys:
            order += f"{key} {'asc' if name == text else 'desc'} nulls last, "
            values += field.sql.values
    return Query(condition, Sql(order, tuple(values)), tuple(fields))


def parse_columns(text: str) -> list[tuple[str, Field]]:
    """The names in `--columns a,b` and their fields; `aliases` is a name of `alias` here."""
    return [
        (name, _known_field("alias" if name == "aliases" else name, "columns", text, column))
        for name, column in _listed_names(text)
    ]


def find_field(text: str) -> Field | None:
    """The field of that name, or None: `val_acc`, `metrics.f1`, `params.train.lr`, `tags.x`."""
    if text in COLUMNS:
        return Field("column", text, COLUMNS[text][0])
    if text in METRICS:
        return Field("metric", text, "number")
    if text in OUR_TAGS:
        return Field("tag", PREFIX + text, "number" if text in _NUMBERS else "text")
    group, _, name = text.partition(".")
    if name and group in FREE:
        return Field(FREE[group][0], name, FREE[group][1])
    return None


class _Token(NamedTuple):
    kind: str
    text: str
    column: int


class _Where:
    """A condition as SQL: `and`, `or`, `not` and parentheses mean the same there."""

    def __init__(self, text: str, fields: list[Field]) -> None:
        self._text = text
        self._fields = fields
        self._tokens = self._tokenized()
        self._token = next(self._tokens)

    def sql(self) -> Sql:
        """The condition; the fields that it names are added to `fields`."""
        parts: list[str] = []
        values: list[float | str] = []
        open_: list[str] = []  # each `(` and `not` whose operand is not complete
        while True:
            if len(open_) >= MAX_DEPTH:
                self._fail(f"nested more than {MAX_DEPTH} deep")
            word = self._token.text.lower() if self._token.kind in ("word", "paren") else ""
            if word in ("not", "("):
                open_.append(word)
                parts.append(word)
                self._next()
                continue
            comparison = self._comparison()
            parts.append(comparison.text)
            values += comparison.values
            while open_ and (open_[-1] == "not" or self._token[:2] == ("paren", ")")):
                if open_.pop() == "(":
                    parts.append(")")
                    self._next()
            if self._token.kind == "end" and not open_:
                return Sql(f"({' '.join(parts)})", tuple(values))
            word = self._token.text.lower()
            if self._token.kind != "word" or word not in ("and", "or"):
                wanted = "')'" if open_ else "'and' or 'or'"
                self._fail(f"expected {wanted}, found '{self._token.text}'")
            parts.append(word)
            self._next()

    def _comparison(self) -> Sql:
        if len(self._fields) == MAX_COMPARISONS:
            self._fail(f"more than {MAX_COMPARISONS} comparisons")
        name = self._token
        if name.kind != "word":
            self._fail(f"expected a field, found '{name.text}'")
        field = _known_field(name.text, "where", self._text, name.column)
        self._fields.append(field)
        sign = self._next()
        if sign.kind != "operator" or sign.text not in OPERATORS:
            known = " ".join(OPERATORS)
            self._fail(f"expected one of {known} after {name.text}, found '{sign.text}'")
        if field.kind in ("alias", "text") and sign.text not in ("=", "!="):
            self._fail(f"{name.text} is compared with = or != only")
        if self._next().kind not in ("word", "quoted"):
            self._fail(f"expected a value after '{sign.text}', found '{self._token.text}'")
        value = self._value(field, name.text)
        self._next()
        return _compared(field, sign.text, value)

    def _value(self, field: Field, name: str) -> float | str:
        token = self._token
        quoted = token.kind == "quoted"
        text = re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL) if quoted else token.text
        is_number = not quoted and _NUMBER.fullmatch(text) is not None
        if field.kind == "number" and not is_number:
            self._fail(f"{name} is a number, '{text}' is none")
        if field.kind == "time":
            try:
                moment = datetime.fromisoformat(text)
                aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
                return (aware - _EPOCH) / timedelta(milliseconds=1)
            except (ValueError, OverflowError):
                self._fail(f"'{text}' is no time; write 2026-01-31 or 2026-01-31T12:00:00+01:00")
        if field.kind == "alias" and text.lower() == LATEST:
            self._fail("'latest' is no alias that is kept; --limit 1 gives the latest version")
        return float(text) if is_number and field.kind in ("number", "mixed") else text

    def _next(self) -> _Token:
        self._token = next(self._tokens)
        return self._token

    def _tokenized(self) -> Iterator[_Token]:
        odd = _SURROGATE.search(self._text)
        if odd:
            raise QueryError("where", _SURROGATE.sub("?", self._text), odd.start(), "no text")
        at, end = 0, len(self._text.rstrip())
        while at < end:
            match = _TOKEN.match(self._text, at)
            if match is None:
                at += len(self._text[at:]) - len(self._text[at:].lstrip())
                raise QueryError("where", self._text, at, "a quote that is never closed")
            kind = str(match.lastgroup)
            yield _Token(kind, match[kind], match.start(kind))
            at = match.end()
        yield _Token("end", "the end", end)

    def _fail(self, reason: str) -> NoReturn:
        kind, text, column = self._token
        raise QueryError("where", self._text, column, reason, 1 if kind == "end" else len(text))


def _compared(field: Field, sign: str, value: float | str) -> Sql:
    operator = "=" if sign == "!=" else sign
    if field.kind == "alias":
        found = Sql(_SQL_HAS_ALIAS, (value,))
    else:
        text = field.sql.text
        if field.kind == "mixed" and isinstance(value, float):
            text = f"{NUMBER_FUNCTION}({text})"
        found = Sql(f"coalesce({text} {operator} ?, 0)", (*field.sql.values, value))
    return Sql(f"(not {found.text})", found.values) if sign == "!=" else found


def _known_field(name: str, option: str, text: str, column: int) -> Field:
    group, dot, own = name.partition(".")
    if dot and own.startswith('"'):
        name = f"{group}.{own[1:-1]}"
    field = find_field(name)
    if field is None:
        close = meant(name, NAMES, otherwise=";")
        known = [*NAMES, *(f"{free}.NAME" for free in FREE)]
        reason = f"unknown field '{name}'{close} there are: {listed(known, len(known))}"
        raise QueryError(option, text, column, reason, len(name))
    return field


def _listed_names(text: str) -> Iterator[tuple[str, int]]:
    """Names between commas, and the column of each."""
    at = 0
    for part in text.split(","):
        yield part.strip(), at + len(part) - len(part.lstrip())
        at += len(part) + 1
