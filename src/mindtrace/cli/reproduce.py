"""`mindtrace reproduce`: a reference comes in, how near a second training comes goes out."""

from __future__ import annotations

from typing import Annotated

import typer

from mindtrace.cli.common import Call
from mindtrace.cli.console import Cell
from mindtrace.cli.progress import progress_for


def reproduce(
    call: Call,
    *,
    ref: Annotated[
        str | None,
        typer.Argument(
            metavar="REF", help="A version: NAME (its champion), NAME/VERSION, VERSION, a folder."
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(metavar="T", help="How far a probability may be off for NUMERIC.")
    ] = 0.01,
) -> None:
    """Train a version again and say how near it comes.

    EXACT: the same weights. NUMERIC: the same probabilities within the tolerance. DIVERGED:
    another model, exit 3. Lists what is different here; registers nothing.
    """
    settings = call.settings()
    from mindtrace.service import reproduce as service
    from mindtrace.service.train import prepare_process

    prepare_process(settings)
    progress = progress_for(call.console)
    try:
        outcome = service.reproduce(settings, ref, tolerance=tolerance, progress=progress)
    finally:
        progress.closed()
    console = call.console
    if console.json:
        console.document(outcome.document())
    elif console.quiet:
        console.line(outcome.verdict)
    else:
        pairs: list[tuple[str, Cell]] = [
            ("model_name", outcome.model_name),
            ("version", outcome.version),
            ("verdict", outcome.verdict),
            ("registered_digest", outcome.registered_digest),
            ("weights_digest", outcome.weights_digest),
            ("max_difference", outcome.max_difference),
            ("changed_answers", outcome.changed_answers),
        ]
        pairs += [
            (f"different.{one.what}", f"{one.registered} -> {one.here}")
            for one in outcome.differences
        ]
        console.fields([*pairs, *outcome.metrics.items()])
    outcome.demand()
