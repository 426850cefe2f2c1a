"""`mindtrace registry`: questions about versions come in, tables and documents go out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from mindtrace.cli.common import Call, command
from mindtrace.cli.console import Cell, Console
from mindtrace.cli.light import LightGroup
from mindtrace.cli.registry_compare import compare
from mindtrace.cli.registry_files import export, gc, verify
from mindtrace.cli.registry_look import diff, evaluate
from mindtrace.cli.registry_promote import history, promote, rollback
from mindtrace.documents import document as document_of

_METRICS = ("val_acc", "test_acc", "test_loss")
_CREATED = "created_at (UTC)"
_DIGESTS = ("data_digest", "test_digest", "bundle_digest")
_COLUMNS = ("model_name", "version", "aliases", *_METRICS, "created_at", "run_id", *_DIGESTS)
# A version that plain MLflow registered has no bundle: `-`.
_BUNDLE = "bundle"
_ON_TERMINAL = ("model_name", "version", "aliases", "val_acc", "test_acc", _CREATED, _BUNDLE)

app = typer.Typer(cls=LightGroup, help="Look at registered versions.", rich_markup_mode="rich")


@command(app, "list")
def list_versions(
    call: Call,
    *,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One model; all of them without it.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="QUERY",
            help="Only these, as in 'val_acc > 0.97 and not alias = champion'; see above.",
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(metavar="FIELDS", help="Another order, as in -val_acc,version; - is down."),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="At most N versions.")] = 20,
    columns: Annotated[
        str | None,
        typer.Option(metavar="FIELDS", help="These columns, as in version,val_acc,aliases."),
    ] = None,
) -> None:
    """List versions, the newest first.

    A QUERY compares fields with values by = != > >= < <= and joins comparisons with and,
    or, not and parentheses; a value with blanks wants quotes. Fields are model_name,
    version, alias, created_at (ISO 8601, UTC), run_id; the metrics of the weights, such as
    val_acc and test_acc; data_digest, test_digest, bundle_digest, weights_digest,
    config_digest, seed, best_epoch, duration_s, parent, job_id, who, git_commit, platform;
    and metrics.NAME, params.NAME (params.train.lr), tags.NAME. What a version does not
    have equals nothing, and comes last in any order.
    """
    settings = call.settings()
    console = call.console
    if columns is not None:
        from mindtrace.service.versions import list_columns

        names, table = list_columns(settings, columns, name, limit, where=where, sort=sort)
        _print_columns(console, names, table)
        return
    from mindtrace.service.versions import list_versions as service

    found = service(settings, name, limit, where=where, sort=sort)
    documents = [version.document() for version in found]
    if console.json:
        for document in documents:
            console.document(document)
        return
    shown = _ON_TERMINAL if console.terminal else _COLUMNS
    rows = [_cells(document, shown, short=console.terminal) for document in documents]
    if rows or not console.terminal:
        console.table(shown, rows)
    if not rows and where is not None:
        console.note("no version is like that")
    elif not rows:
        console.note("no versions yet")
        console.next_step("mindtrace train")


@command(app, "show")
def show_version(
    call: Call,
    *,
    ref: Annotated[
        str,
        typer.Argument(
            metavar="REF",
            help="NAME (its champion), NAME@ALIAS, NAME/VERSION or a bundle's folder.",
        ),
    ],
) -> None:
    """Show all that is known of one version."""
    settings = call.settings()
    from mindtrace.service.versions import show_version as service

    document = service(settings, ref).document()
    if call.console.json:
        call.console.document(document)
    else:
        call.console.fields(_flat(document))


command(app)(compare)
command(app)(promote)
command(app)(rollback)
command(app)(history)
command(app)(diff)
command(app)(evaluate)
command(app)(export)
command(app)(verify)
command(app)(gc)


def _print_columns(console: Console, names: Sequence[str], table: Sequence[Sequence[Cell]]) -> None:
    if not console.json:
        console.table(names, table)
        return
    for row in table:
        console.document(document_of(dict(zip(names, row, strict=True))))


def _cells(document: Mapping[str, Any], columns: tuple[str, ...], *, short: bool) -> list[Cell]:
    return [_cell(document, column, short=short) for column in columns]


def _cell(document: Mapping[str, Any], column: str, *, short: bool) -> Cell:
    if column in _METRICS:
        metric: float | None = document["metrics"].get(column)
        return f"{metric:.4f}" if short and metric is not None else metric
    if column == _CREATED:
        return str(document["created_at"])[:16].replace("T", " ")
    if column in (_BUNDLE, "bundle_digest"):
        digest: str | None = document["bundle_digest"]
        return "-" if digest is None else digest[: 12 if column == _BUNDLE else None]
    value = document.get(column)
    if column == "aliases":
        return ",".join(value or ())
    return value if isinstance(value, str | int | float | None) else str(value)


def _flat(document: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Cell]]:
    """Nested values as `outer.inner`, lists in one line."""
    pairs: list[tuple[str, Cell]] = []
    for name, value in document.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            pairs.append((prefix + name, ", ".join(str(item) for item in value)))
        elif prefix or name != "schema_version":
            pairs.append((prefix + name, value))
    return pairs
