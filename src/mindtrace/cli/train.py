"""`mindtrace train`: settings come in, a registered version goes out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mindtrace.cli.common import Call
from mindtrace.cli.console import Cell, Console
from mindtrace.cli.progress import progress_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_SHORT = 12
_WEAKEST = 3  # classes; the report has all of them


def train(
    call: Call,
    *,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Images: mnist, fashion_mnist, digits, folder (data.source)."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Network: mlp, cnn, or a listed one of torchvision (model.name)."
        ),
    ] = None,
    max_epochs: Annotated[
        str | None, typer.Option(metavar="INT", help="Times through the images (train.max_epochs).")
    ] = None,
    lr: Annotated[
        str | None, typer.Option(metavar="FLOAT", help="Learning rate (train.lr).")
    ] = None,
    batch_size: Annotated[
        str | None, typer.Option(metavar="INT", help="Images in one step (data.batch_size).")
    ] = None,
    seed: Annotated[
        str | None,
        typer.Option(
            metavar="INT", help="Seed of weights and order, not of the split (train.seed)."
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Where to compute: auto, cpu, cuda, mps (compute.device)."
        ),
    ] = None,
    model_name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name to register under (registry.model_name)."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, train nothing.")
    ] = False,
    no_register: Annotated[
        bool, typer.Option("--no-register", help="Train and test, register no version.")
    ] = False,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Go on from the last epoch of an interrupted training: last, or a run id.",
        ),
    ] = None,
    job_id: Annotated[str | None, typer.Option(hidden=True, help="The job this is.")] = None,
    attempt: Annotated[int, typer.Option(hidden=True, help="Which hold on the job.")] = 0,
    parent: Annotated[
        str | None, typer.Option(hidden=True, help="The version this starts from.")
    ] = None,
    warm_start: Annotated[
        bool, typer.Option("--warm-start", hidden=True, help="Begin with the parent's weights.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", hidden=True, help="Train the same once more.")
    ] = False,
) -> None:
    """Train a classifier and register it as a version.

    The best weights by the monitored metric are tested and registered; the first version
    of a name becomes its champion.
    """
    if job_id is not None:
        from mindtrace.jobs.child import end_with_parent

        end_with_parent()
    settings = call.settings(
        {
            "data.source": source,
            "data.batch_size": batch_size,
            "model.name": model,
            "train.max_epochs": max_epochs,
            "train.lr": lr,
            "train.seed": seed,
            "compute.device": device,
            "registry.model_name": model_name,
        }
    )
    from mindtrace.service import train as service

    if dry_run:
        _show(call.console, service.plan(settings).document())
        return
    ticket = None
    if job_id is not None:
        from mindtrace.jobs.ticket import ticket_for

        ticket = ticket_for(settings, job_id, attempt, force=force)
    service.prepare_process(settings)
    progress = progress_for(call.console)
    try:
        outcome = service.train(
            settings,
            progress=progress,
            register=not no_register,
            ticket=ticket,
            parent=parent,
            warm_start=warm_start,
            resume=resume,
        )
    finally:
        progress.closed()
    _show(call.console, outcome.document())
    if not no_register:
        call.console.next_step(f"mindtrace predict IMAGE --model {_reference(outcome.document())}")


def _reference(document: Mapping[str, Any]) -> str:
    return f"{document['model_name']}/{document['version']}"


def _show(console: Console, document: Mapping[str, Any]) -> None:
    if console.json:
        console.document(document)
        return
    if console.quiet and document.get("version") is not None:
        console.line(_reference(document))
        return
    console.fields(list(_pairs(document, short=console.terminal)))
    if console.terminal and document.get("classes"):
        _show_classes(console, document["classes"])


def _show_classes(console: Console, scores: Sequence[Mapping[str, Any]]) -> None:
    """The classes that are found least often, the weakest first; with -v all of them."""
    weakest = sorted(scores, key=lambda score: 1.0 if score["recall"] is None else score["recall"])
    shown = weakest if console.verbose else weakest[:_WEAKEST]
    console.table(
        list(shown[0]), [[_shortened("", value) for value in row.values()] for row in shown]
    )


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _pairs(document: Mapping[str, Any], *, short: bool) -> Iterator[tuple[str, Cell]]:
    """The document as names and values: as they are for a program, shortened for eyes."""
    for name, value in document.items():
        if isinstance(value, dict):
            prefix = "" if name == "metrics" else f"{name}."
            yield from _pairs({prefix + key: inner for key, inner in value.items()}, short=short)
        elif name != "schema_version" and not (short and (value is None or _is_table(value))):
            yield name, _shortened(name, value) if short else _text(value)


def _text(value: Any) -> Cell:
    if _is_table(value):
        return json.dumps(value)
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return value if isinstance(value, str | int | float | None) else str(value)


def _shortened(name: str, value: Any) -> Cell:
    if name.endswith("_digest"):
        return str(value)[:_SHORT]
    if isinstance(value, float):
        return f"{value:.1f} s" if name.endswith("_s") else f"{value:.4f}"
    return _text(value)
