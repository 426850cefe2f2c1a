"""`mindtrace registry diff|evaluate`: a version beside another, or on other images."""

from __future__ import annotations

from typing import Annotated

import typer

from mindtrace.cli.common import Call


def diff(
    call: Call,
    *,
    a: Annotated[str, typer.Argument(metavar="A", help="A version, or a bundle's folder.")],
    b: Annotated[
        str, typer.Argument(metavar="B", help="Another; a number is a version of A's model.")
    ],
) -> None:
    """Show what differs between two versions.

    In configuration, data, environment and metrics.
    """
    settings = call.settings()
    from mindtrace.service.diff import diff as service

    found = service(settings, a, b)
    console = call.console
    if console.json:
        console.document(found.document())
        return
    console.table(("part", "name", found.a, found.b), list(found.rows()))


def evaluate(
    call: Call,
    *,
    ref: Annotated[str, typer.Argument(metavar="REF", help="The version, or a bundle's folder.")],
) -> None:
    """Test a version on the test images of --config.

    The images take the path of predictions. The answers are kept with the version's run,
    as evaluations/TEST_DIGEST.npz.
    """
    settings = call.settings()
    from mindtrace.service.evaluate import evaluate as service

    outcome = service(settings, ref)
    console = call.console
    if console.json:
        console.document(outcome.document())
        return
    fields = outcome.document()
    console.fields([(name, fields[name]) for name in fields if name != "schema_version"])
