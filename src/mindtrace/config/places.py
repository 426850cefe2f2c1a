"""Room core: the kinds of values that name a place: paths, URLs, hosts.

A text goes in; out comes a value with every path in it absolute, or a reason.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from mindtrace.config.values import Kind


def expanded(text: str) -> str:
    """Put the home folder in the place of a leading `~`.

    Args:
        text: a path.

    Returns:
        the path without `~`.

    Raises:
        ValueError: nobody knows whose home folder that is.
    """
    if not text.startswith("~"):
        return text
    whole_path = os.path.expanduser(text)  # noqa: PTH111 - Path would raise RuntimeError
    if whole_path.startswith("~"):
        raise ValueError("that home folder is not known; set HOME or write the whole path")
    return whole_path


def anchored(text: str, folder: Path) -> str:
    """A path's text made absolute: `~` expanded, else below `folder` where relative."""
    return str(folder / expanded(text)) if text else text


def path() -> Kind:
    """An absolute Path."""
    return Kind("a path", _path, str, anchored)


def _path(text: str) -> Path:
    if not text:
        raise ValueError("must be a path")
    _demand_one_line(text)
    return Path(text)


def _demand_one_line(text: str) -> None:
    if any(ord(sign) < 32 or ord(sign) == 127 for sign in text):
        raise ValueError("must be one line without control characters")


def path_or(*words: str) -> Kind:
    """One of `words`, or the text of an absolute path."""

    def parse(text: str) -> str:
        if not text:
            raise ValueError(f"must be {allowed}")
        _demand_one_line(text)
        return text

    def anchor(text: str, folder: Path) -> str:
        return text if text in words else anchored(text, folder)

    allowed = f"{', '.join(words)} or a path"
    return Kind(allowed, parse, str, anchor)


def url(*schemes: str) -> Kind:
    """A URL of one of `schemes`; a dialect such as `postgresql+psycopg2` is one of them."""
    names = [f"{scheme}://" for scheme in schemes]
    allowed = f"a URL that begins with {', '.join(names[:-1])} or {names[-1]}"

    def parse(text: str) -> str:
        scheme, separator, rest = text.partition("://")
        if not separator or not rest or scheme.lower().partition("+")[0] not in schemes:
            raise ValueError(f"must be {allowed}")
        _demand_one_line(text)
        if scheme.lower().startswith("sqlite"):
            _demand_file(rest)
        elif " " in text:
            raise ValueError("must not hold a blank; write it as %20")
        return text

    return Kind(allowed, parse, str, _anchored_sqlite)


def _demand_file(rest: str) -> None:
    """Refuse a SQLite database in memory: two processes would not see the same one."""
    name = rest.removeprefix("/").partition("?")[0]
    if not rest.startswith("/") or name in ("", ":memory:"):
        raise ValueError("must name a file: sqlite:///FILE")


def _anchored_sqlite(text: str, folder: Path) -> str:
    """`sqlite:///file.db` made absolute; any other URL as it is."""
    match = re.fullmatch(r"(sqlite(?:\+\w+)?:///)([^/?][^?]*)(.*)", text, re.DOTALL)
    if match is None or match[2] == ":memory:":
        return text
    return f"{match[1]}{anchored(match[2], folder)}{match[3]}"


_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)(:[0-9]{1,5})?")


def hosts() -> Kind:
    """A tuple of `name` or `name:port`, separated by commas or white space; may be empty."""
    allowed = "names such as example.org or example.org:8000, separated by commas"

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(name for name in re.split(r"[\s,]+", text) if name)
        for name in names:
            if not _HOST.fullmatch(name):
                raise ValueError(f"'{name}' is no host name; must be {allowed}, without * or /")
        return names

    return Kind(allowed, parse, ", ".join)
