"""Where a verb's words go: documents, tables and errors come in, lines of text go out.

The mode is chosen once, when the verb starts. Results go to stdout: Rich tables on a
terminal, tab-separated and whole in a pipe, JSON with `--json`. All else goes to stderr.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from mindtrace.cli.exits import exit_code
from mindtrace.cli.light import is_terminal
from mindtrace.documents import document
from mindtrace.errors import ConfigError, MindtraceError

_RED, _CYAN, _RESET = "\033[1;31m", "\033[36m", "\033[0m"
_ESCAPES = str.maketrans({"\t": "\\t", "\n": "\\n", "\r": "\\r"})

Cell = str | int | float | None


def dumps(fields: Mapping[str, Any]) -> str:
    """One line of JSON; a number that is none (NaN, infinity) becomes null."""
    try:
        return json.dumps(fields, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(fields))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not (abs(value) < float("inf")):
        return None
    return value


def plain(cell: Cell) -> str:
    """A cell as text without tabs and line ends; nothing for None."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return "" if cell is None else str(cell).translate(_ESCAPES)


def short(cell: Cell) -> str:
    """The same for a person's eyes: of a fraction, what one would say aloud."""
    if not isinstance(cell, float) or not math.isfinite(cell):
        return plain(cell)
    return f"{cell:.4f}" if abs(cell) >= 0.001 or cell == 0 else f"{cell:.2e}"


class Console:
    """The one object that prints.

    Attributes:
        json: results are JSON documents, one a line.
        quiet: no progress, no notes, no headers; errors and results stay.
        verbose: notes on what is being done.
        debug: an error brings its traceback.
        terminal: a person reads stdout.
        live: a person reads stderr, so a bar may move there.
    """

    def __init__(
        self,
        *,
        json: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        debug: bool = False,
    ) -> None:
        self.json = json
        self.quiet = quiet
        self.verbose = verbose
        self.debug = debug
        self.terminal = is_terminal(sys.stdout) and not json
        self.live = is_terminal(sys.stderr) and not json and not quiet
        for stream in (sys.stdout, sys.stderr):
            _let_any_name_through(stream)

    def document(self, fields: Mapping[str, Any]) -> None:
        """One JSON document on one line of stdout."""
        sys.stdout.write(dumps(fields) + "\n")

    def line(self, text: str) -> None:
        """One line of a result, for people."""
        sys.stdout.write(text + "\n")

    def header(self, columns: Sequence[str]) -> None:
        """The names above tab-separated rows; left out with -q."""
        if not self.quiet:
            self.line("\t".join(columns))

    def row(self, cells: Sequence[Cell]) -> None:
        """One tab-separated line of stdout."""
        self.line("\t".join(plain(cell) for cell in cells))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
        """A table of results: boxed on a terminal, tab-separated and whole in a pipe."""
        if self.terminal:
            from mindtrace.cli.rendering import print_table

            print_table(columns, [[short(cell) for cell in row] for row in rows])
            return
        self.header(columns)
        for row in rows:
            self.row(row)

    def fields(self, pairs: Sequence[tuple[str, Cell]]) -> None:
        """Names and values, one pair a line."""
        if self.terminal:
            from mindtrace.cli.rendering import print_fields

            print_fields([(name, short(value)) for name, value in pairs])
            return
        for name, value in pairs:
            self.line(f"{name}\t{plain(value)}")

    def note(self, text: str) -> None:
        """Something that a person may want to know, on stderr; silent with -q."""
        if self.quiet:
            return
        self.event("note", text=text) if self.json else self._complain(text)

    def next_step(self, command: str) -> None:
        """What to type next, for a person who reads along; no part of the result."""
        if not self.json and not self.quiet:
            self._complain(f"{self._paint('next:', _CYAN)} {command}")

    def event(self, name: str, **fields: Any) -> None:
        """One JSON document on stderr: what happens while the result is made."""
        self._complain(dumps(document({"event": name, **fields})))

    def fail(self, error: BaseException) -> int:
        """Say on stderr what went wrong and what to type next.

        Returns:
            The exit code that belongs to `error`.
        """
        if self.debug:
            import traceback

            traceback.print_exception(error)
        message, hint = _told(error)
        if self.json:
            self._complain(dumps(document({"error": _error_fields(error, message, hint)})))
        else:
            for text in message.splitlines() or [""]:
                self._complain(f"{self._paint('error:', _RED)} {text}")
            if hint:
                self._complain(f"{self._paint('hint:', _CYAN)} {hint}")
        return exit_code(error)

    def _complain(self, text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def _paint(self, text: str, colour: str) -> str:
        if os.environ.get("NO_COLOR") or not is_terminal(sys.stderr):
            return text
        return f"{colour}{text}{_RESET}"


def _told(error: BaseException) -> tuple[str, str | None]:
    if isinstance(error, MindtraceError):
        return error.message, error.hint
    text = " ".join(str(error).split())
    kind = type(error).__name__
    return (
        f"internal: {kind}: {text}" if text else f"internal: {kind}",
        "the same command with --debug shows where; please report it",
    )


def _error_fields(error: BaseException, message: str, hint: str | None) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": type(error).__name__, "message": message, "hint": hint}
    if isinstance(error, ConfigError):
        fields["faults"] = [
            {
                "file": fault.file,
                "line": fault.line,
                "section": fault.section,
                "key": fault.key,
                "message": fault.message,
            }
            for fault in error.faults
        ]
    return fields


def _let_any_name_through(stream: TextIO) -> None:
    """File names may be bytes that are no text; printing one must not be an error."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        utf8 = (stream.encoding or "").lower().replace("-", "") == "utf8"
        reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")
