"""Typer's classes made lighter: commands in, the same commands with a quick start out.

Typer checks each value through pydantic, which costs 70 ms to import, and draws help
with Rich, which costs 55 ms. Words, numbers and flags need no pydantic, and a pipe needs
no boxes. Anything else goes the way that Typer made for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(value)
    return value


_PLAIN_TYPES: dict[Any, Callable[[Any], Any]] = {
    bool: _flag,
    float: float,
    int: int,
    list[str]: tuple,
    str: str,
}


def is_terminal(stream: Any) -> bool:
    """Whether a person with a terminal that can do more than plain lines reads `stream`."""
    return bool(stream.isatty()) and os.environ.get("TERM") != "dumb"


def _converted(param: Any, kind: Any, value: Any) -> Any:
    if value is None:
        return () if param.multiple or param.nargs == -1 else None
    plain = _PLAIN_TYPES[kind](value)
    low, high = getattr(param, "min", None), getattr(param, "max", None)
    if (low is not None and plain < low) or (high is not None and plain > high):
        raise ValueError(plain)
    return plain


def lighten(params: Sequence[Any]) -> None:
    """Give parameters of plain types a conversion of our own; wrong values stay Typer's."""
    for param in params:
        kind = getattr(getattr(param, "type_descriptor", None), "annotation", None)
        if kind in _PLAIN_TYPES and "process_value" not in vars(param):
            _shortcut(param, kind)


def _shortcut(param: Any, kind: Any) -> None:
    thorough = param.process_value

    def process_value(context: Any, value: Any) -> Any:
        try:
            plain = _converted(param, kind, value)
        except ValueError:
            return thorough(context, value)  # words the refusal
        if param.required and param.value_is_missing(plain):
            return thorough(context, value)
        return plain if param.callback is None else param.callback(context, param, plain)

    param.process_value = process_value


def _one_line_a_paragraph(text: str | None) -> str | None:
    return text and "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


class LightCommand(TyperCommand):
    """A verb: plain types convert without pydantic, help in a pipe is plain text."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, made light."""
        params = super().get_params(ctx)
        lighten(params)
        return params

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Boxes and colours on a terminal, text that can be searched in a pipe."""
        self.help = _one_line_a_paragraph(self.help)
        if not is_terminal(sys.stdout):
            self.rich_markup_mode = None
        super().format_help(ctx, formatter)


class LightGroup(TyperGroup):
    """A group of verbs, light in the same two ways."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, made light."""
        params = super().get_params(ctx)
        lighten(params)
        return params

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Boxes and colours on a terminal, text that can be searched in a pipe."""
        if not is_terminal(sys.stdout):
            self.rich_markup_mode = None
        super().format_help(ctx, formatter)
