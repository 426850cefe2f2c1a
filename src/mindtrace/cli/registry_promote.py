"""`mindtrace registry promote|rollback|history`: who is champion, and who said so."""

from __future__ import annotations

from typing import Annotated

import typer

from mindtrace.cli.common import Call
from mindtrace.cli.console import Cell
from mindtrace.cli.registry_compare import Margin, figures

_COLUMNS = ("revision", "at", "by", "action", "from", "to", "verdict", "reason")
_ALL = ("model_name", *_COLUMNS)
_ON_TERMINAL = ("revision", "at (UTC)", *_COLUMNS[2:])

Name = Annotated[
    str | None, typer.Argument(metavar="NAME", help="The model; may be left out if there is one.")
]
Reason = Annotated[str | None, typer.Option(metavar="TEXT", help="Why; kept in the history.")]
IfRevision = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=0, help="Only if the history is still at revision N; else exit 5."
    ),
]


def promote(
    call: Call,
    *,
    ref: Annotated[
        str, typer.Argument(metavar="REF", help="The challenger: NAME/VERSION or VERSION.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would happen, change nothing.")
    ] = False,
    margin: Margin = 0.01,
    force: Annotated[
        bool, typer.Option("--force", help="Promote whatever the gate says; wants --reason.")
    ] = False,
    reason: Reason = None,
    if_revision: IfRevision = None,
) -> None:
    """Make a version champion, if it is as good as the champion.

    PROMOTE if it is not worse by more than the margin and no class falls by more than 0.05;
    HOLD and REJECT change nothing, are kept in the history and exit with 3.
    """
    settings = call.settings()
    from mindtrace.service.promote import promote as service

    outcome = service(
        settings,
        ref,
        dry_run=dry_run,
        margin=margin,
        force=force,
        reason=reason,
        if_revision=if_revision,
    )
    console = call.console
    if console.json:
        console.document(outcome.document())
    elif console.quiet:
        standing = outcome.version if outcome.promoted else outcome.champion
        console.line(outcome.model_name if standing is None else f"{outcome.model_name}/{standing}")
    else:
        compared = outcome.comparison
        pairs: list[tuple[str, Cell]] = [
            ("model_name", outcome.model_name),
            ("version", outcome.version),
            ("champion", outcome.champion),
            ("promoted", outcome.promoted),
            ("dry_run", outcome.dry_run),
            ("forced", outcome.forced),
            ("revision", outcome.revision),
        ]
        if compared is None:
            pairs += [("verdict", outcome.verdict), ("reasons", "; ".join(outcome.reasons))]
        else:
            pairs += [("times_used", outcome.times_used)]
            pairs += figures(compared, short=console.terminal)
        console.fields(pairs)
    outcome.demand()


def rollback(
    call: Call, *, name: Name = None, reason: Reason = None, if_revision: IfRevision = None
) -> None:
    """Put the last champion back; again, and it walks further."""
    settings = call.settings()
    from mindtrace.service.rollback import rollback as service

    entry = service(settings, name, reason=reason, if_revision=if_revision)
    document = entry.document()
    if call.console.json:
        call.console.document(document)
    elif call.console.quiet:
        call.console.line(f"{entry.model_name}/{entry.to}")
    else:
        call.console.fields([(column, document[column]) for column in _ALL])


def history(
    call: Call,
    *,
    name: Name = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, help="At most N entries, the newest first.")
    ] = 20,
) -> None:
    """Tell who made which version champion, when and why."""
    settings = call.settings()
    from mindtrace.service.history import history as service

    documents = [entry.document() for entry in service(settings, name)[: -limit - 1 : -1]]
    console = call.console
    if console.json:
        for document in documents:
            console.document(document)
        return
    rows = [[document[column] for column in _ALL] for document in documents]
    if console.terminal:
        # To the minute, and without the name, which the reader has just typed.
        rows = [[row[1], str(row[2])[:16].replace("T", " "), *row[3:]] for row in rows]
    console.table(_ON_TERMINAL if console.terminal else _ALL, rows)
