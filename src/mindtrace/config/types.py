"""Kinds of values that pydantic does not know: paths, URLs, sizes, host names, counts."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Kind:
    """One kind: in words, text -> value (ValueError), value -> text, paths made absolute."""

    words: str
    parse: Callable[[str], Any]
    render: Callable[[Any], str] = str
    anchor: Callable[[str, Path], str] | None = None


def require_one_line(text: str) -> None:
    """Refuse control characters."""
    if any(ord(sign) < 32 or ord(sign) == 127 for sign in text):
        raise ValueError("must be one line without control characters")


def _anchored(text: str, folder: Path) -> str:
    """A path made absolute: `~` expanded, else below `folder` where relative."""
    require_one_line(text)
    text = os.path.expanduser(text)  # noqa: PTH111 - Path would raise RuntimeError
    if text.startswith("~"):
        raise ValueError("that home folder is not known; set HOME or write the whole path")
    return str(folder / text) if text else text


def path(words: str, type_: Callable[[str], Any] = Path, names: Sequence[str] = ()) -> Kind:
    """A path, which becomes absolute, or one of `names`."""

    def parse(text: str) -> Any:
        if not text:
            raise ValueError(f"must be {words}")
        return type_(text)

    def anchor(text: str, folder: Path) -> str:
        return text if text in names else _anchored(text, folder)

    return Kind(words, parse, str, anchor)


PATH = path("a path")


def url(*schemes: str) -> Kind:
    """A URL of one of `schemes`; a dialect such as `postgresql+psycopg2` is one of them."""
    names = [f"{scheme}://" for scheme in schemes]
    words = f"a URL that begins with {', '.join(names[:-1])} or {names[-1]}"

    def parse(text: str) -> str:
        scheme, separator, rest = text.partition("://")
        if not separator or not rest or scheme.lower().partition("+")[0] not in schemes:
            raise ValueError(f"must be {words}")
        require_one_line(text)
        if not scheme.lower().startswith("sqlite"):
            if " " in text:
                raise ValueError("must not hold a blank; write it as %20")
            return text
        # A database in memory would not be the same one in two processes.
        file = rest.removeprefix("/").partition("?")[0]
        if not rest.startswith("/") or file in ("", ":memory:"):
            raise ValueError("must name a file: sqlite:///FILE")
        return text

    def anchor(text: str, folder: Path) -> str:
        match = re.fullmatch(r"(sqlite(?:\+\w+)?:///)([^/?][^?]*)(.*)", text, re.DOTALL)
        if match is None or match[2] == ":memory:":
            return text
        return f"{match[1]}{_anchored(match[2], folder)}{match[3]}"

    return Kind(words, parse, str, anchor)


_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)(:[0-9]{1,5})?")
_HOSTS = "names such as example.org or example.org:8000, separated by commas"


def _hosts(text: str) -> tuple[str, ...]:
    names = tuple(name for name in re.split(r"[\s,]+", text) if name)
    for name in names:
        if not _HOST.fullmatch(name):
            raise ValueError(f"'{name}' is no host name; must be {_HOSTS}, without * or /")
    return names


HOSTS = Kind(_HOSTS, _hosts, ", ".join)

_UNITS = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SIZE = "a size such as 262144, 256 KiB or 16 MiB"


def _size(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,15})\s*([a-z]*)", text.lower())
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"must be {_SIZE}")
    value = int(match[1]) * _UNITS[match[2]]
    if value < 1024:
        raise ValueError("must be 1 KiB or more")
    return value


def _size_text(value: int) -> str:
    for name, unit in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value and value % unit == 0:
            return f"{value // unit} {name}"
    return str(value)


SIZE = Kind(_SIZE, _size, _size_text)

WHOLE = re.compile(r"[+-]?[0-9](_?[0-9]){0,17}")
_PART = "a whole number of images, or a fraction above 0 and below 1"


def _count_or_fraction(text: str) -> int | float:
    try:
        value = int(text) if WHOLE.fullmatch(text) else float(text)
    except ValueError:
        value = 0
    if not (value >= 1 if isinstance(value, int) else 0 < value < 1):
        raise ValueError(f"must be {_PART}")
    return value


def number_text(value: float) -> str:
    """A number as short as it can be read back: `30`, not `30.0`."""
    return repr(value).removesuffix(".0")


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"must be a regular expression: {error}") from None
    return text


REGEX = Kind("a regular expression", _regex)
COUNT_OR_FRACTION = Kind(_PART, _count_or_fraction, number_text)
