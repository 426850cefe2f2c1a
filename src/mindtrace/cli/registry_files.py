"""`mindtrace registry export|verify|gc`: what happens to the files of versions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mindtrace.cli.common import Call
from mindtrace.errors import UsageError

_FOUND = ("subject", "state", "bundle_digest", "faults")
_GONE = ("model_name", "version", "created_at", "removed")


def export(
    call: Call,
    *,
    ref: Annotated[str, typer.Argument(metavar="REF", help="The version, or a bundle's folder.")],
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A new or empty folder.")],
) -> None:
    """Write a version's bundle into a folder, checked.

    Before and after: what is written is what was registered.
    """
    settings = call.settings()
    from mindtrace.service.export import export as service

    done = service(settings, ref, Path(folder))
    console = call.console
    if console.json:
        console.document(done.document())
        return
    console.line(done.folder)
    console.next_step(f"mindtrace serve {done.folder}")


def verify(
    call: Call,
    *,
    ref: Annotated[
        str | None,
        typer.Argument(metavar="REF", help="A version or a bundle's folder; else the champion."),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every version of every model.")] = False,
) -> None:
    """Check that a version is what was registered.

    Digests of all files and of the weights, the golden images through the path of
    predictions, files that do not belong there, pickles, and aliases that name what is
    gone or not what the history says. Exit code 3 if anything is wrong.
    """
    if all_ and ref is not None:
        raise UsageError("give REF or --all, not both", hint="mindtrace registry verify --help")
    settings = call.settings()
    from mindtrace.service import verify as service

    console = call.console
    found = []
    if not console.json:
        console.header(_FOUND)
    for one in service.verify_all(settings) if all_ else service.verify(settings, ref):
        found.append(one)
        if console.json:
            console.document(one.document())
        else:
            digest = "-" if one.bundle_digest is None else one.bundle_digest[:12]
            console.row((one.subject, one.state, digest, "; ".join(one.faults)))
    service.demand_verified(found, named=not all_)


def gc(
    call: Call,
    *,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One model; all of them without it.")
    ] = None,
    keep: Annotated[int, typer.Option(metavar="N", min=1, help="The newest N of each model stay.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go, delete nothing.")
    ] = False,
) -> None:
    """Delete old versions and their bundles.

    What an alias or the last ten entries of the history name always stays, and so does
    what mindtrace did not register. Runs and their metrics stay.
    """
    settings = call.settings()
    from mindtrace.service.gc import gc as service

    console = call.console
    count = 0
    if not console.json:
        console.header(_GONE)
    for one in service(settings, name, keep=keep, dry_run=dry_run):
        count += 1
        if console.json:
            console.document(one.document())
        else:
            console.row((one.model_name, one.version, one.created_at, one.removed))
    if dry_run:
        console.note(f"{count} would go; without --dry-run they are deleted")
