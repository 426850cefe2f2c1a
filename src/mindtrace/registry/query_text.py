"""The language of `registry list --where` and `--sort`: text in, a `Query` out; light.

    expression  = conjunction {"or" conjunction}
    conjunction = negation {"and" negation}
    negation    = "not" negation | "(" expression ")" | comparison
    comparison  = field ("=" | "!=" | ">" | ">=" | "<" | "<=") value
    value       = word | "text" | 'text'

as in `val_acc > 0.97 and not alias = champion`. What a version does not have equals
nothing and is neither more nor less than anything; `!=` is the opposite of `=`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from mindtrace.errors import UsageError, listed, nearest
from mindtrace.registry.fields import FREE, NAMES, Field, find_field, milliseconds
from mindtrace.registry.names import LATEST
from mindtrace.registry.query import (
    OPERATORS,
    Comparison,
    Expression,
    Junction,
    Not,
    Query,
    SortKey,
)

MAX_COMPARISONS = 200
# SQLite's own limit on the depth of an expression is 1000.
MAX_DEPTH = 50

_MEANT = {"==": "=", "<>": "!=", "=>": ">=", "=<": "<=", "!": "not", "&&": "and", "||": "or"}
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


class QueryError(UsageError):
    """A query that cannot be read; the text with a caret below is part of the message.

    `column` counts from 0.
    """

    def __init__(self, option: str, text: str, column: int, reason: str, width: int = 1) -> None:
        shown = text.translate({ord(blank): " " for blank in "\t\n\r\v\f"})
        caret = " " * column + "^" * max(1, width)
        super().__init__(f"--{option}: {reason}\n  {shown}\n  {caret}", hint=_HINTS[option])
        self.text = text
        self.column = column
        self.reason = reason


_HINTS = {
    "where": 'write it as in --where "val_acc > 0.97 and alias = champion"',
    "sort": "write it as in --sort -val_acc,version; - is for the largest first",
    "columns": "write them as in --columns version,val_acc,params.train.lr",
}


def parse_query(where: str | None = None, sort: str | None = None) -> Query:
    """Read a query.

    Raises:
        QueryError: with the column where it goes wrong.
    """
    expression = None if where is None else _Parser(where).whole()
    keys = () if sort is None else tuple(_sort_keys(sort))
    return Query(expression, keys, (where, sort))


def parse_columns(text: str) -> list[tuple[str, Field | None]]:
    """The names in `--columns a,b` and their fields; None for `aliases`, which are many.

    Raises:
        QueryError: one that is not.
    """
    columns: list[tuple[str, Field | None]] = []
    for name, column in _listed_names(text):
        aliases = name in ("alias", "aliases")
        columns.append((name, None if aliases else _known_field(name, "columns", text, column)))
    return columns


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    column: int


class _Parser:
    """Recursive descent, one function a rule of the grammar."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._tokenized())
        self._at = 0
        self._depth = 0
        self._comparisons = 0

    def whole(self) -> Expression:
        found = self._expression()
        if self._token.kind != "end":
            self._fail(f"expected 'and' or 'or', found '{self._token.text}'")
        return found

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

    @property
    def _token(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._token
        self._at += 1
        return token

    def _is_word(self, word: str) -> bool:
        return self._token.kind == "word" and self._token.text.lower() == word

    def _expression(self) -> Expression:
        return self._joined("or", self._conjunction)

    def _conjunction(self) -> Expression:
        return self._joined("and", self._negation)

    def _joined(self, word: Literal["and", "or"], part: Callable[[], Expression]) -> Expression:
        parts = [part()]
        while self._is_word(word):
            self._take()
            parts.append(part())
        return parts[0] if len(parts) == 1 else Junction(word, tuple(parts))

    def _negation(self) -> Expression:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"nested more than {MAX_DEPTH} deep")
        try:
            if self._is_word("not"):
                self._take()
                return Not(self._negation())
            if self._token.text == "(" and self._token.kind == "paren":
                return self._parenthesised()
            return self._comparison()
        finally:
            self._depth -= 1

    def _parenthesised(self) -> Expression:
        self._take()
        found = self._expression()
        if self._token.text != ")" or self._token.kind != "paren":
            self._fail(f"expected ')', found '{self._token.text}'")
        self._take()
        return found

    def _comparison(self) -> Expression:
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            self._fail(f"more than {MAX_COMPARISONS} comparisons")
        if self._token.kind != "word":
            self._fail(f"expected a field, found '{self._token.text}'")
        name = self._take()
        field = _known_field(name.text, "where", self._text, name.column)
        sign = self._token
        if sign.kind != "operator" or sign.text not in OPERATORS:
            meant = _MEANT.get(sign.text)
            tail = f", write '{meant}'" if meant else f": one of {' '.join(OPERATORS)}"
            self._fail(f"expected an operator after {name.text}, found '{sign.text}'{tail}")
        if field.kind in ("alias", "text") and sign.text not in ("=", "!="):
            self._fail(f"{name.text} is compared with = or != only")
        self._take()
        if self._token.kind not in ("word", "quoted"):
            self._fail(f"expected a value after '{sign.text}', found '{self._token.text}'")
        value = self._value(field, name.text)
        self._take()
        return Comparison(field, sign.text, value)

    def _value(self, field: Field, name: str) -> float | str:
        token = self._token
        quoted = token.kind == "quoted"
        text = re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL) if quoted else token.text
        is_number = not quoted and _NUMBER.fullmatch(text) is not None
        if field.kind == "number" and not is_number:
            self._fail(f"{name} is a number, '{text}' is none")
        if field.kind == "time":
            try:
                return milliseconds(datetime.fromisoformat(text))
            except (ValueError, OverflowError):
                self._fail(f"'{text}' is no time; write 2026-01-31 or 2026-01-31T12:00:00+01:00")
        if field.kind == "alias" and text.lower() == LATEST:
            self._fail("'latest' is no alias that is kept; --limit 1 gives the latest version")
        return float(text) if is_number and field.kind in ("number", "mixed") else text

    def _fail(self, reason: str) -> None:
        token = self._token
        width = 1 if token.kind == "end" else len(token.text)
        raise QueryError("where", self._text, token.column, reason, width)


def _known_field(name: str, option: str, text: str, column: int) -> Field:
    group, dot, own = name.partition(".")
    if dot and own.startswith('"'):
        name = f"{group}.{own[1:-1]}"
    field = find_field(name)
    if field is None:
        close = nearest(name, NAMES)
        meant = f", did you mean '{close}'?" if close else ";"
        known = [*NAMES, *(f"{free}.NAME" for free in FREE)]
        reason = f"unknown field '{name}'{meant} there are: {listed(known, len(known))}"
        raise QueryError(option, text, column, reason, len(name))
    return field


def _listed_names(text: str) -> Iterator[tuple[str, int]]:
    """Names between commas, and the column of each."""
    at = 0
    for part in text.split(","):
        yield part.strip(), at + len(part) - len(part.lstrip())
        at += len(part) + 1


def _sort_keys(text: str) -> Iterator[SortKey]:
    for name, column in _listed_names(text):
        descending = name.startswith("-")
        bare = name.removeprefix("-")
        field = _known_field(bare, "sort", text, column + descending)
        if field.kind == "alias":
            raise QueryError("sort", text, column, "versions have no order by alias", len(name))
        yield SortKey(field, descending)
