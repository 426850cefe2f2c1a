"""Output of the command line: results on stdout, everything else on stderr, and exit codes."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from pydantic_core import to_jsonable_python

from mindtrace import errors
from mindtrace.documents import document

if TYPE_CHECKING:
    from rich.table import Table

DONE, FAILED, USAGE, VERDICT_NO, NOT_FOUND, CONFLICT = range(6)
BROKEN_PIPE = 128 + signal.SIGPIPE

EXIT_CODES: dict[type[errors.MindtraceError], int] = {
    errors.MindtraceError: FAILED,
    errors.ConfigError: USAGE,
    errors.UsageError: USAGE,
    errors.DataError: FAILED,
    errors.DataFolderError: USAGE,
    errors.NotFoundError: NOT_FOUND,
    errors.BundleError: FAILED,
    errors.TrainingError: FAILED,
    errors.StoreError: FAILED,
    errors.ConflictError: CONFLICT,
    errors.VerdictError: VERDICT_NO,
}
#: The table that `mindtrace --help` prints.
EXIT_CODE_MEANINGS: tuple[tuple[str, str], ...] = (
    ("0", "done"),
    ("1", "failed: an image that could not be predicted, a bad bundle, a crash"),
    ("2", "usage or configuration: an option, the INI, data.dir"),
    ("3", "the verdict is no: HOLD, REJECT, DIVERGED, verify, a job cancelled"),
    ("4", "not found: a model, version, alias or job"),
    ("5", "busy or conflict: a port, a full queue, a concurrent change"),
    ("129", "stopped by SIGHUP (its terminal was closed)"),
    ("130", "stopped by SIGINT (Ctrl-C)"),
    ("143", "stopped by SIGTERM"),
)

_RED, _CYAN, _RESET = "\033[1;31m", "\033[36m", "\033[0m"
# Minutes are enough in a table.
_TIME = re.compile(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d):[\d.:]+\+00:00$")
_ESCAPES = str.maketrans({"\t": "\\t", "\n": "\\n", "\r": "\\r"})

Cell = str | int | float | None
Pair = tuple[str, Cell]
T = TypeVar("T")


def exit_code(error: BaseException) -> int:
    """The exit code of an error: that of its nearest class in the table."""
    if isinstance(error, errors.InterruptedByUser):
        return 128 + error.signum
    codes = (EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)
    return next(codes, FAILED)


def is_terminal(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that can do more than plain lines."""
    return bool(stream.isatty()) and os.environ.get("TERM") != "dumb"


def dumps(value: Any) -> str:
    """One line of JSON; NaN and infinity become null."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(to_jsonable_python(value, inf_nan_mode="null"))


def plain(cell: Cell) -> str:
    """A cell as text without tabs and line ends; empty for None."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return "" if cell is None else str(cell).translate(_ESCAPES)


def short(cell: Cell) -> str:
    """A cell for a terminal: a fraction has four decimals."""
    if not isinstance(cell, float) or not math.isfinite(cell):
        return plain(cell)
    return f"{cell:.4f}" if abs(cell) >= 0.001 or cell == 0 else f"{cell:.2e}"


def flatten(fields: Mapping[str, Any], *, unprefixed: str = "", prefix: str = "") -> list[Pair]:
    """Names and values of a JSON document, dotted; those in `unprefixed` without its name."""
    pairs: list[Pair] = []
    for name, value in fields.items():
        if isinstance(value, Mapping):
            inner = "" if name == unprefixed else f"{prefix}{name}."
            pairs += flatten(value, unprefixed=unprefixed, prefix=inner)
        elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
            pairs.append((prefix + name, dumps(value)))
        elif isinstance(value, list | tuple):
            pairs.append((prefix + name, ", ".join(str(item) for item in value)))
        elif prefix or name != "schema_version":
            pairs.append((prefix + name, value))
    return pairs


@dataclass(kw_only=True, eq=False)
class Console:
    """The one object that prints; `terminal`: stdout is one, `live`: stderr is one."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False

    def __post_init__(self) -> None:
        self.out = sys.stdout  # alone: while a command runs, `print` goes to stderr
        self.terminal = is_terminal(self.out) and not self.json
        self.live = is_terminal(sys.stderr) and not self.json and not self.quiet
        for stream in (self.out, sys.stderr):
            _accept_any_file_name(stream)

    def result(
        self, found: Any, pairs: Iterable[Pair] | None = None, *, quiet: Cell = None
    ) -> None:
        """One result: its document with --json, `quiet` alone with -q, else names and values."""
        if self.json:
            self.document(found)
        elif self.quiet and quiet is not None:
            self.line(plain(quiet))
        else:
            self.fields(flatten(document(found)) if pairs is None else [*pairs])

    def text(self, found: Any, text: str) -> None:
        """A result that is text: its document with --json, else the text as it stands."""
        self.document(found) if self.json else self.write(text)

    def results(
        self, documents: Iterable[Any], columns: Sequence[str], rows: Iterable[Sequence[Cell]]
    ) -> None:
        """Many results: one document a line with --json, else a table."""
        if self.json:
            for fields in documents:
                self.document(fields)
        else:
            self.table(columns, rows)

    def stream(
        self, results: Iterable[T], columns: Sequence[str], cells: Callable[[T], Sequence[Cell]]
    ) -> Iterator[T]:
        """Print each result as it comes, a document or a tab-separated row, and pass it on."""
        if not self.json:
            self.header(columns)
        for result in results:
            if self.json:
                self.document(result)
            else:
                self.row(cells(result))
            yield result

    def document(self, result: Any) -> None:
        """A mapping or a dataclass as a JSON document on one line of stdout."""
        self.line(dumps(document(result)))

    def line(self, text: str) -> None:
        """One line of a result."""
        self.write(text + "\n")

    def write(self, text: str, *, flush: bool = False) -> None:
        """A part of a result; BrokenPipeError if the reader is gone."""
        try:
            self.out.write(text)
            if flush:
                self.out.flush()
        except OSError as error:
            # Nor may the interpreter try to write the rest at its end.
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, self.out.fileno())
            os.close(devnull)
            if isinstance(error, BrokenPipeError):
                raise
            raise errors.MindtraceError(f"cannot write to stdout: {error.strerror}") from error

    def header(self, columns: Sequence[str]) -> None:
        """The names above tab-separated rows; left out with -q."""
        if not self.quiet:
            self.line("\t".join(columns))

    def row(self, cells: Sequence[Cell]) -> None:
        """One tab-separated line of stdout."""
        self.line("\t".join(plain(cell) for cell in cells))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
        """A table of results: drawn on a terminal, tab-separated and untruncated in a pipe."""
        if self.terminal:
            texts = [[_TIME.sub(r"\1 \2", short(cell)) for cell in row] for row in rows]
            _print_table(self.out, columns, texts)
            return
        self.header(columns)
        for row in rows:
            self.row(row)

    def fields(self, pairs: Sequence[Pair]) -> None:
        """Names and values, one pair a line."""
        if self.terminal:
            _print_fields(self.out, [(name, short(value)) for name, value in pairs])
            return
        for name, value in pairs:
            self.line(f"{name}\t{plain(value)}")

    def note(self, text: str) -> None:
        """A remark on stderr; silent with -q."""
        if self.quiet:
            return
        self.event("note", text=text) if self.json else self._stderr(text)

    def ready(self, result: Mapping[str, Any], text: str) -> None:
        """The result of a command that goes on: at once with --json, else a remark."""
        if self.json:
            self.document(result)
            self.write("", flush=True)
        else:
            self.note(text)

    def next_step(self, command: str) -> None:
        """What to type next, on stderr; not with --json or -q."""
        if not self.json and not self.quiet:
            self._stderr(f"{self._paint('next:', _CYAN)} {command}")

    def event(self, name: str, **fields: Any) -> None:
        """One JSON document on stderr: progress while the result is made."""
        self._stderr(dumps(document({"event": name, **fields})))

    def fail(self, error: BaseException) -> int:
        """Report an error on stderr with its hint; returns its exit code."""
        if self.debug:
            import traceback

            traceback.print_exception(error)
        if isinstance(error, OSError) and error.strerror:
            error = errors.of_system(error)
        elif isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            reason = f"not enough memory: {error}".partition("\n")[0]
            error = errors.MindtraceError(
                reason, hint="set a smaller [data] batch_size or image_size"
            )
        if isinstance(error, errors.MindtraceError):
            message, hint = error.message, error.hint
        else:
            text = " ".join(str(error).split())
            message = ": ".join(filter(None, ("internal", type(error).__name__, text)))
            hint = "please report it" if self.debug else "--debug  # shows where; please report it"
        if self.json:
            kind = type(error).__name__
            fields: dict[str, Any] = {"type": kind, "message": message, "hint": hint}
            if isinstance(error, errors.ConfigError):
                fields["faults"] = [asdict(fault) for fault in error.faults]
            self._stderr(dumps(document({"error": fields})))
        else:
            for text in message.splitlines() or [""]:
                self._stderr(f"{self._paint('error:', _RED)} {text}")
            if hint:
                hint = _typed_with(hint) if hint.startswith("--") else hint
                self._stderr(f"{self._paint('hint:', _CYAN)} {hint}")
        return exit_code(error)

    def _stderr(self, text: str) -> None:
        try:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
        except OSError as error:
            if isinstance(error, BrokenPipeError):  # a log on a full disk ends no training
                raise

    def _paint(self, text: str, colour: str) -> str:
        if os.environ.get("NO_COLOR") or not is_terminal(sys.stderr):
            return text
        return f"{colour}{text}{_RESET}"


def _typed_with(options: str) -> str:
    """The command that was typed, with these options."""
    words, (option, *value) = sys.argv[1:], options.partition("  #")[0].split()
    if value and option in words and option != "--set":
        place = words.index(option)
        del words[place : place + 2]
    return f"{shlex.join(['mindtrace', *words])} {options}"


def _accept_any_file_name(stream: TextIO) -> None:
    """File names may be bytes that are no text; printing one must not be an error."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        utf8 = (stream.encoding or "").lower().replace("-", "") == "utf8"
        reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")


def _print_table(out: TextIO, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Draw a table with Rich: numbers right-aligned, long cells folded, no empty columns."""
    from rich import box
    from rich.table import Table

    filled = [index for index in range(len(columns)) if not rows or any(row[index] for row in rows)]
    columns = [columns[index] for index in filled]
    rows = [[row[index] for index in filled] for row in rows]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold")
    for index, name in enumerate(columns):
        table.add_column(
            name,
            justify="right" if _are_numbers(row[index] for row in rows) else "left",
            overflow="fold",
            min_width=min(20, max(len(row[index]) for row in rows)) if rows else None,
            no_wrap=0 < index < len(columns) - 1,  # names and reasons fold, values do not
        )
    _print_rows(out, table, rows)


def _print_fields(out: TextIO, pairs: Sequence[tuple[str, str]]) -> None:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    _print_rows(out, table, pairs)


def _print_rows(out: TextIO, table: Table, rows: Iterable[Sequence[str]]) -> None:
    from rich.console import Console as RichConsole
    from rich.text import Text

    for row in rows:
        table.add_row(*map(Text, row))
    RichConsole(file=out, highlight=False).print(table)


def _are_numbers(cells: Iterable[str]) -> bool:
    try:
        return [float(cell) for cell in cells if cell] != []
    except ValueError:
        return False
