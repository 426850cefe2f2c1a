"""Rich's part of the console: columns and cells come in, tables for a person's eyes go out.

Imported only when a terminal is there to draw on.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Draw a table on stdout; columns of numbers stand right, long cells fold."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold")
    for index, name in enumerate(columns):
        numbers = _are_numbers([row[index] for row in rows])
        table.add_column(
            name,
            justify="right" if numbers else "left",
            overflow="fold",
            no_wrap=0 < index < len(columns) - 1,  # names and reasons fold, values do not
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(table)


def print_fields(pairs: Sequence[tuple[str, str]]) -> None:
    """Draw names and values in two columns on stdout."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, Text(value))
    Console(highlight=False).print(table)


def _are_numbers(cells: Sequence[str]) -> bool:
    try:
        return [float(cell) for cell in cells if cell] != []
    except ValueError:
        return False
