"""`mindtrace data`: a folder or a source comes in, what is in its images goes out."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from mindtrace.cli.command import Call, command, group
from mindtrace.cli.console import Cell, Console
from mindtrace.cli.progress import progress_of

_MOST_SHOWN = 20  # findings on a terminal; nobody reads more there
_FINDING = ("finding", "split", "class_name", "path", "message")

app = group("Look at images before training.")


# Without a callback a group of one verb would be that verb.
@app.callback()
def _group() -> None:
    """Look at images before training."""


@command(app)
def check(
    call: Call,
    *,
    dir: Annotated[
        str | None,
        typer.Argument(
            metavar="DIR", help="A folder with one sub-folder a class; else the data.source."
        ),
    ] = None,
    sheet: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Draw some images of each class into this picture."),
    ] = None,
) -> None:
    """Count and decode all images; find what would spoil a training.

    Unreadable files, missing and added classes and images with two class names are
    faults (exit 1); an image in more than one split is leakage (exit 3); an image twice
    in one split is only told.
    """
    source = None if dir is None else "folder"
    settings = call.settings({"data.source": source, "data.dir": dir})
    from mindtrace.service.data_check import check as service

    with progress_of(call.console) as progress:
        report = service(settings, sheet=sheet, progress=progress)
    if call.console.json:
        call.console.document(report.document())
    else:
        _show(call.console, report.document(), report.findings())
    error = report.error()
    if error is not None:
        raise error
    if dir is not None:
        folder = shlex.quote(dir)
        call.console.next_step(f"mindtrace train --source folder --set data.dir={folder}")


def _show(
    console: Console, document: Mapping[str, Any], findings: Sequence[Sequence[Cell]]
) -> None:
    counts: Mapping[str, Mapping[str, int]] = document["counts"]
    columns = ("class_name", *counts)
    rows: list[list[Cell]] = [
        [name, *(counts[split][name] for split in counts)] for name in counts["train"]
    ]
    if console.terminal:
        rows.append(["", *(sum(counts[split].values()) for split in counts)])
    console.table(columns, rows)
    _separate(console)
    console.fields(list(_fields(document)))
    if findings:
        _separate(console)
        shown = findings[:_MOST_SHOWN] if console.terminal else findings
        console.table(_FINDING, shown)
        if len(shown) < len(findings):
            console.note(f"and {len(findings) - len(shown):,} more: --json lists all")
    for note in document["notes"]:
        console.note(f"note: {note}")


def _separate(console: Console) -> None:
    if not console.terminal:
        console.line("")


def _fields(document: Mapping[str, Any]) -> Iterator[tuple[str, Cell]]:
    for name in ("source", "dir", "images"):
        if document[name] is not None:
            yield name, document[name]
    sizes = [f"{one['height']}x{one['width']}: {one['images']}" for one in document["sizes"]]
    more = [f"and {len(sizes) - 8} more"] if len(sizes) > 8 else []
    yield "sizes", ", ".join([*sizes[:8], *more])
    for name in ("modes", "formats"):
        if document[name]:
            yield name, ", ".join(f"{kind}: {count}" for kind, count in document[name].items())
    for name in ("data_digest", "test_digest", "sheet"):
        if document[name] is not None:
            yield name, document[name]
