"""`mindtrace predict`: classify image files, here or through a running server."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from mindtrace import service
from mindtrace.cli.command import MODEL, TOKEN_FILE, URL, Call, argument, flag, option
from mindtrace.cli.console import Cell, Console
from mindtrace.cli.progress import counted
from mindtrace.errors import DataError, UsageError

if TYPE_CHECKING:
    from mindtrace.service.predict import Document

_BAR_FROM = 100  # images
_TABLE_UP_TO = 500  # images; longer results are printed as plain rows
_COLUMNS = ("path", "label", "class_name", "confidence", "top_k", "model_name", "version", "error")
_ON_TERMINAL = ("path", "class_name", "confidence", "then", "error")


def predict(
    call: Call,
    paths: list[str] = argument(
        "PATH", "Image files, folders (with their sub-folders), globs; - for one on stdin."
    ),
    model: str | None = MODEL,
    topk: int = option("N", "Show the N most probable classes.", "--topk", default=1, min=1),
    out: str | None = option("FILE", "Write the rows into this .csv or .parquet file too."),
    fail_fast: bool = flag("--fail-fast", "Stop at the first image that fails."),
    url: str | None = URL,
    token_file: str | None = TOKEN_FILE,
) -> None:
    """Classify images.

    A file that cannot be read is a row with the error; the others go on, and the exit code is 1.
    """
    if url is not None and model is not None:
        message = "--url and --model exclude each other: a server uses its own version"
        raise UsageError(message, hint="mindtrace predict --model REF PATH")
    if url is None and token_file is not None:
        raise UsageError("--token-file needs --url", hint="mindtrace predict --url URL PATH")
    options = {"serve.token_file": token_file}
    settings = call.settings(options) if url else call.reading(model, options)
    predicting = service.predict
    if out is not None:
        predicting.require_table(out)
    files, left_out = predicting.collect(paths, settings.data.formats)
    if left_out is not None:
        call.console.note(f"note: {left_out}")
    stdin = sys.stdin.buffer.read
    if url is None:
        loaded = predicting.load_model(settings, model)
        answers = predicting.predict_paths(loaded, files, top_k=topk, stdin=stdin)
    else:
        from mindtrace.service.remote import Link, predict_remote

        link = Link(url, service.serve.read_token(settings.serve.token_file))
        answers = predict_remote(link, files, top_k=topk, stdin=stdin)
    answers = predicting.until_failure(answers) if fail_fast else answers
    failed, rows, classes = 0, [], dict[str, list[float]]()
    for shown in _show(call.console, answers, len(files)):
        failed += "error" in shown
        if "error" not in shown:
            classes.setdefault(shown["class_name"], []).append(shown["confidence"])
        if out is not None:
            rows.append(dict(zip(_COLUMNS, _cells(shown), strict=True)))
    if out is not None:
        predicting.write_table(out, _COLUMNS, rows)
    if call.console.terminal and len(files) > len(paths) and classes:
        counted = sorted(classes.items(), key=lambda found: -len(found[1]))
        summary: list[list[Cell]] = [
            [name, len(found), sum(found) / len(found)] for name, found in counted
        ]
        call.console.table(("class_name", "images", "mean_confidence"), summary)
    if failed:
        raise DataError(f"{failed} of {len(files)} images could not be predicted")


def _show(console: Console, documents: Iterable[Document], total: int) -> Iterator[Document]:
    """Print each document and pass it on."""
    draw = console.terminal and total <= _TABLE_UP_TO
    if console.live and total >= _BAR_FROM and (draw or not console.terminal):
        documents = counted(documents, total, "predicting")
    return _draw(console, documents) if draw else console.stream(documents, _COLUMNS, _cells)


def _draw(console: Console, documents: Iterable[Document]) -> Iterator[Document]:
    """A table for a terminal; the version, the same in every row, is printed once above it."""
    rows: list[list[Cell]] = []
    version: str | None = None
    try:
        for document in documents:
            if document.get("model_name") is not None:
                version = f"{document['model_name']}/{document['version']}"
            rows.append(_short_cells(document))
            yield document
    finally:  # with --fail-fast the rows before the failure are printed too
        if version:
            console.note(f"by {version}")
        if rows:
            named = zip(_ON_TERMINAL, zip(*rows, strict=True), strict=True)
            columns = {name: cells for name, cells in named if {*cells} != {None}}
            console.table([*columns], zip(*columns.values(), strict=True))


def _short_cells(document: Document) -> list[Cell]:
    if "error" in document:
        return [document["path"], None, None, None, document["error"]["message"]]
    others = [f"{one['class_name']} {one['confidence']:.4f}" for one in document["top_k"][1:]]
    confidence = f"{document['confidence']:.4f}"
    return [document["path"], document["class_name"], confidence, ", ".join(others) or None, None]


def _cells(document: Document) -> list[Cell]:
    if "error" in document:
        return [document["path"], *[None] * (len(_COLUMNS) - 2), document["error"]["message"]]
    ranked = [f"{one['class_name']}:{one['confidence']}" for one in document["top_k"]]
    cells = {**document, "top_k": " ".join(ranked) if len(ranked) > 1 else None}
    return [cells.get(column) for column in _COLUMNS]
