"""`mindtrace predict`: classify image files, here or through a running server."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mindtrace.cli.command import Call
from mindtrace.cli.console import Cell, Console
from mindtrace.errors import DataError, UsageError

if TYPE_CHECKING:
    from mindtrace.config.settings import Settings
    from mindtrace.service.predict import Prediction, PredictionFailure

    Answer = Prediction | PredictionFailure

_BAR_FROM = 100  # images
_TABLE_UP_TO = 500  # images; longer results are printed as plain rows
_COLUMNS = ("path", "label", "class_name", "confidence", "top_k", "model_name", "version", "error")
_ON_TERMINAL = ("path", "class_name", "confidence", "then", "error")


def predict(
    call: Call,
    *,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            help="Image files, folders (with their sub-folders), globs; - for one on stdin.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="REF",
            help="NAME, NAME@ALIAS, NAME/VERSION or a bundle folder; the default is the champion.",
        ),
    ] = None,
    topk: Annotated[
        int, typer.Option("--topk", metavar="N", min=1, help="Show the N most probable classes.")
    ] = 1,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first image that fails.")
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Ask a running server, for example http://127.0.0.1:8000."
        ),
    ] = None,
    token_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="File with the server's token (serve.token_file)."),
    ] = None,
) -> None:
    """Classify images.

    A file that cannot be read is a row with the error; the others go on, and the exit code is 1.
    """
    if url is not None and model is not None:
        raise UsageError(
            "--url and --model exclude each other: a server uses its own version",
            hint="mindtrace predict --model REF PATH",
        )
    if url is None and token_file is not None:
        raise UsageError("--token-file needs --url", hint="mindtrace predict --url URL PATH")
    settings = call.settings({"serve.token_file": token_file})
    from mindtrace.service.predict import collect

    files = collect(paths)
    answers = (
        _by_server(settings, url, files, topk, fail_fast)
        if url is not None
        else _by_model(settings, model, files, topk, fail_fast)
    )
    documents = (answer.document() for answer in answers)
    failed = _Failures(documents)
    _show(call.console, failed, len(files))
    if failed.count:
        raise DataError(f"{failed.count} of {len(files)} images could not be predicted")


def _by_model(
    settings: Settings, model: str | None, files: Sequence[str], topk: int, fail_fast: bool
) -> Iterator[Answer]:
    from mindtrace.service.predict import load_model, predict_paths

    loaded = load_model(settings, model)
    return predict_paths(
        loaded, files, top_k=topk, stdin=sys.stdin.buffer.read, fail_fast=fail_fast
    )


def _by_server(
    settings: Settings, url: str, files: Sequence[str], topk: int, fail_fast: bool
) -> Iterator[Answer]:
    from mindtrace.service.remote import Link, predict_remote
    from mindtrace.service.serve import read_token

    file = settings.serve.token_file
    link = Link(url, None if file is None else read_token(file))
    return predict_remote(link, files, top_k=topk, stdin=sys.stdin.buffer.read, fail_fast=fail_fast)


class _Failures:
    """Passes documents on and counts those with an error."""

    def __init__(self, documents: Iterable[Mapping[str, Any]]) -> None:
        self._documents = documents
        self.count = 0

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for document in self._documents:
            self.count += "error" in document
            yield document


def _show(console: Console, documents: Iterable[Mapping[str, Any]], total: int) -> None:
    draw = console.terminal and total <= _TABLE_UP_TO
    if console.live and total >= _BAR_FROM and (draw or not console.terminal):
        from mindtrace.cli.progress import counted

        documents = counted(documents, total, "predicting")
    if console.json:
        for document in documents:
            console.document(document)
    elif draw:
        _draw(console, documents)
    else:
        console.header(_COLUMNS)
        for document in documents:
            console.row(_cells(document))


def _draw(console: Console, documents: Iterable[Mapping[str, Any]]) -> None:
    """A table for a terminal; the version, the same in every row, is printed once above it."""
    rows: list[list[Cell]] = []
    version: str | None = None
    try:
        for document in documents:
            version = version or _version(document)
            rows.append(_short_cells(document))
    finally:  # with --fail-fast the rows before the failure are printed too
        if version:
            console.note(f"by {version}")
        if rows:
            console.table(*_without_empty(rows))


def _version(document: Mapping[str, Any]) -> str | None:
    if document.get("model_name") is None:
        return None
    return f"{document['model_name']}/{document['version']}"


def _short_cells(document: Mapping[str, Any]) -> list[Cell]:
    if "error" in document:
        return [document["path"], None, None, None, document["error"]["message"]]
    others = [f"{one['class_name']} {one['confidence']:.4f}" for one in document["top_k"][1:]]
    confidence = f"{document['confidence']:.4f}"
    return [document["path"], document["class_name"], confidence, ", ".join(others) or None, None]


def _cells(document: Mapping[str, Any]) -> list[Cell]:
    if "error" in document:
        blank: list[Cell] = [None] * (len(_COLUMNS) - 2)
        return [document["path"], *blank, document["error"]["message"]]
    ranked = [f"{one['class_name']}:{one['confidence']}" for one in document["top_k"]]
    return [
        document["path"],
        document["label"],
        document["class_name"],
        document["confidence"],
        " ".join(ranked) if len(ranked) > 1 else None,
        document["model_name"],
        document["version"],
        None,
    ]


def _without_empty(rows: Sequence[Sequence[Cell]]) -> tuple[list[str], list[list[Cell]]]:
    """The columns with a value in some row."""
    kept = [
        index for index, _ in enumerate(_ON_TERMINAL) if any(row[index] is not None for row in rows)
    ]
    return [_ON_TERMINAL[index] for index in kept], [[row[index] for index in kept] for row in rows]
