"""Room core: the kinds of values; a text goes in, a typed value or a reason comes out.

A `Kind` parses a text, writes the value back as the same text, and says in words what it
takes. Reasons are ValueErrors that read on after `key = value:`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindtrace.errors import nearest


@dataclass(frozen=True)
class Kind:
    """One kind of value.

    Attributes:
        allowed: what it takes, in words: `a whole number, 1 or more`.
        parse: text -> value; raises ValueError with a reason.
        render: value -> text that parses to the same value.
        anchor: (text, folder) -> text with relative paths made absolute, or None where
            the text is no path.
        nothing: how None is written, or None where it is no value.
    """

    allowed: str
    parse: Callable[[str], Any]
    render: Callable[[Any], str] = str
    anchor: Callable[[str, Path], str] | None = None
    nothing: str | None = None


def whole(low: int, high: int | None = None) -> Kind:
    """An int from `low` to `high`, both included."""
    span = f"between {low} and {high}" if high is not None else f"{low} or more"

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9](_?[0-9]){0,17}", text):
            raise ValueError(f"must be a whole number, {span}")
        value = int(text)
        if value < low or (high is not None and value > high):
            raise ValueError(f"must be {span}")
        return value

    return Kind(f"a whole number, {span}", parse)


def _finite(text: str, allowed: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"must be {allowed}") from None
    if not math.isfinite(value):
        raise ValueError(f"must be {allowed}")
    return value


def positive() -> Kind:
    """A float above 0."""
    allowed = "a number above 0"

    def parse(text: str) -> float:
        value = _finite(text, allowed)
        if value <= 0:
            raise ValueError("must be above 0")
        return value

    return Kind(allowed, parse, _number)


def fraction(*, zero: bool) -> Kind:
    """A float in [0, 1) if `zero`, else in (0, 1)."""
    span = "0 or more and below 1" if zero else "above 0 and below 1"

    def parse(text: str) -> float:
        value = _finite(text, f"a number, {span}")
        if not (0 <= value < 1) or (value == 0 and not zero):
            raise ValueError(f"must be {span}")
        return value

    return Kind(f"a number, {span}", parse, _number)


def count_or_fraction() -> Kind:
    """An int from 1, or a float in (0, 1): a number of images or a part of them."""
    allowed = "a whole number of images, or a fraction above 0 and below 1"
    count, part = whole(1), fraction(zero=False)

    def parse(text: str) -> int | float:
        try:
            return int(count.parse(text))
        except ValueError:
            pass  # not a count; perhaps a fraction
        try:
            return float(part.parse(text))
        except ValueError:
            raise ValueError(f"must be {allowed}") from None

    return Kind(allowed, parse, _number)


def _number(value: float) -> str:
    return repr(value).removesuffix(".0")


_FLAGS = {"true": True, "yes": True, "on": True, "1": True}
_FLAGS |= {"false": False, "no": False, "off": False, "0": False}


def flag() -> Kind:
    """A bool."""

    def parse(text: str) -> bool:
        value = _FLAGS.get(text.lower())
        if value is None:
            raise ValueError("must be true or false")
        return value

    return Kind("true or false", parse, lambda value: "true" if value else "false")


def choice(*names: str) -> Kind:
    """One of `names`."""
    allowed = f"one of {', '.join(names)}"

    def parse(text: str) -> str:
        if text in names:
            return text
        close = nearest(text.lower(), names)
        meant = f", did you mean '{close}'?" if close else ""
        raise ValueError(f"must be {allowed}{meant}")

    return Kind(allowed, parse)


def matching(pattern: str, allowed: str) -> Kind:
    """A text that matches all of `pattern`."""
    compiled = re.compile(pattern)

    def parse(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(f"must be {allowed}")
        return text

    return Kind(allowed, parse)


_UNITS = {"": 1, "b": 1, "kib": 1024, "mib": 1024**2, "gib": 1024**3}


def size(low: int) -> Kind:
    """A number of bytes as an int, written with or without KiB, MiB, GiB."""
    allowed = "a size such as 262144, 256 KiB or 16 MiB"

    def parse(text: str) -> int:
        match = re.fullmatch(r"([0-9]{1,15})\s*([a-z]*)", text.lower())
        if match is None or match[2] not in _UNITS:
            raise ValueError(f"must be {allowed}")
        value = int(match[1]) * _UNITS[match[2]]
        if value < low:
            raise ValueError(f"must be {_size_text(low)} or more")
        return value

    return Kind(allowed, parse, _size_text)


def _size_text(value: int) -> str:
    for name, unit in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if value and value % unit == 0:
            return f"{value // unit} {name}"
    return str(value)


def optional(kind: Kind, word: str = "", *words: str) -> Kind:
    """`kind`, or None where the text is `word`, blank, or one of `words`.

    `word` is how None is written.
    """
    nothing = {"", word, *words}
    named = word or "blank"

    def parse(text: str) -> Any:
        return None if text in nothing else kind.parse(text)

    def render(value: Any) -> str:
        return word if value is None else kind.render(value)

    def anchor(text: str, folder: Path) -> str:
        return text if text in nothing or kind.anchor is None else kind.anchor(text, folder)

    return Kind(f"{named}, or {kind.allowed}", parse, render, anchor if kind.anchor else None, word)
