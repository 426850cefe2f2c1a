"""`mindtrace registry compare`: two references come in, a document, a table or a page goes out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mindtrace.cli.common import Call
from mindtrace.cli.console import Cell
from mindtrace.errors import UsageError

if TYPE_CHECKING:
    from mindtrace.registry.compare import Comparison

Margin = Annotated[
    float, typer.Option(metavar="M", help="How much worse, in accuracy, is still as good.")
]


def compare(
    call: Call,
    *,
    a: Annotated[
        str, typer.Argument(metavar="A", help="A version: NAME (its champion), NAME/VERSION, ...")
    ],
    b: Annotated[
        str, typer.Argument(metavar="B", help="The version beside it; a number is one of A's.")
    ],
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page with the images that changed."),
    ] = None,
    margin: Margin = 0.01,
) -> None:
    """Compare two versions image by image on their test set.

    Prints the difference of their accuracies with its interval, what changed by class, and
    whether B might replace A.
    """
    settings = call.settings()
    from mindtrace.service import compare as service

    if html is None:
        comparison = service.compare(settings, a, b, margin=margin)
    else:
        comparison, page = service.compare_page(settings, a, b, margin=margin)
        _write(html, page)
    if call.console.json:
        call.console.document(comparison.document())
        return
    call.console.fields(figures(comparison, short=call.console.terminal))
    if call.console.terminal:
        columns = ("class", "images", "acc_a", "acc_b", "diff")
        call.console.table(columns, class_rows(comparison))
    if html is not None:
        call.console.note(f"wrote {html}")


def figures(comparison: Comparison, *, short: bool) -> list[tuple[str, Cell]]:
    """A comparison as names and values; the classes are left out for a person's eyes."""

    def number(value: float, sign: str = "") -> Cell:
        return f"{value:{sign}.4f}" if short else value

    low, high = comparison.ci
    pairs: list[tuple[str, Cell]] = [
        ("a", comparison.a),
        ("b", comparison.b),
        ("test_digest", comparison.test_digest[:12] if short else comparison.test_digest),
        ("n", comparison.n),
        ("acc_a", number(comparison.acc_a)),
        ("acc_b", number(comparison.acc_b)),
        ("diff", number(comparison.diff, "+")),
        ("ci", f"{low:+.4f} to {high:+.4f}" if short else f"{low}, {high}"),
        ("mcnemar_p", number(comparison.mcnemar_p)),
        ("wrong_to_right", comparison.wrong_to_right),
        ("right_to_wrong", comparison.right_to_wrong),
        ("minimum_detectable", number(comparison.minimum_detectable)),
        ("verdict", comparison.verdict),
        ("reasons", "; ".join(comparison.reasons)),
    ]
    if not short:
        pairs += [(f"per_class.{one.class_name}", one.diff) for one in comparison.per_class]
    return pairs


def class_rows(comparison: Comparison) -> list[list[Cell]]:
    """The classes as rows of a table."""
    return [
        [
            one.class_name,
            one.n,
            *("" if share is None else f"{share:.4f}" for share in (one.acc_a, one.acc_b)),
            "" if one.diff is None else f"{one.diff:+.4f}",
        ]
        for one in comparison.per_class
    ]


def _write(file: Path, page: str) -> None:
    try:
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--html {file}: {error.strerror}") from error
