"""`mindtrace data`: what is in the images, before a training."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mindtrace import service
from mindtrace.cli.command import ALLOW_LEAKAGE, PATH, Call, command, flag, group, option
from mindtrace.cli.console import Cell, Console, Pair
from mindtrace.cli.progress import progress_of
from mindtrace.config.sections import images_at

if TYPE_CHECKING:
    from mindtrace.data.check import DataCheck, Duplicates

_MOST_SHOWN = 20  # findings on a terminal
_FINDING = ("finding", "split", "class_name", "path", "message")

app = group("Check images before training.")


@command(app, "data check photos/", "data check labels.csv --labels")
def check(
    call: Call,
    path: str | None = PATH,
    sheet: str | None = option("FILE", "Draw some images of each class into this picture."),
    labels: bool = flag("--labels", "Also name images whose label is probably wrong."),
    allow_leakage: bool = ALLOW_LEAKAGE,
) -> None:
    """Count and decode all images; find what would spoil a training.

    Unreadable files, missing and added classes are faults (exit 1); an image in more than one
    split that you made is leakage (exit 3); images with two class names, twice in one split, or
    in several splits that you did not make are only listed. So are suspect labels: of features of
    a pretrained network, classifiers trained on other images find another class ten times as
    probable.
    """
    settings = call.settings(images_at(path))
    checking = service.data_check
    with progress_of(call.console) as progress:
        found = checking.check(settings, sheet=sheet, labels=labels, progress=progress)
    if call.console.json:
        call.console.document(found)
    else:
        _show(call.console, found)
    error = checking.verdict(found, allow_leakage=allow_leakage)
    if error is not None:
        raise error
    if path is not None:
        call.console.next_step(f"mindtrace train {shlex.quote(path)}")


def _show(console: Console, found: DataCheck) -> None:
    rows: list[list[Cell]] = [
        [name, *(counts[name] for counts in found.counts.values())]
        for name in found.counts["train"]
    ]
    if console.terminal:
        rows.append(["", *(sum(counts.values()) for counts in found.counts.values())])
    console.table(("class_name", *found.counts), rows)
    if not console.terminal:
        console.line("")
    console.fields(_fields(found))
    if findings := list(_findings(found)):
        if not console.terminal:
            console.line("")
        shown = findings[:_MOST_SHOWN] if console.terminal else findings
        console.table(_FINDING, shown)
        if len(shown) < len(findings):
            console.note(f"and {len(findings) - len(shown):,} more: --json lists all")
    for note in found.notes:
        console.note(f"note: {note}")


def _fields(found: DataCheck) -> list[Pair]:
    sizes = [f"{one.width} x {one.height}: {one.images}" for one in found.sizes]
    more = [f"and {len(sizes) - 8} more"] if len(sizes) > 8 else []
    kinds = {
        name: ", ".join(f"{kind}: {count}" for kind, count in counts.items()) or None
        for name, counts in (("modes", found.modes), ("formats", found.formats))
    }
    fields: dict[str, Cell] = {
        "source": found.source,
        "dir": found.dir,
        "images": found.images,
        "sizes": ", ".join([*sizes[:8], *more]),
        **kinds,
        "data_digest": found.data_digest,
        "test_digest": found.test_digest,
        "sheet": found.sheet,
    }
    return [(name, value) for name, value in fields.items() if value is not None]


def _findings(found: DataCheck) -> Iterator[list[Cell]]:
    """The worst first; duplicates within a split come last."""
    yield from _same_pixels("leakage", found.leakage)
    for parted in found.group_leakage:
        first, *others = parted.images
        message = f"group {parted.group}, also {', '.join(image.path for image in others)}"
        yield ["leakage", first.split, first.class_name, first.path, message]
    yield from _same_pixels("conflict", found.conflicts)
    for image in found.unreadable:
        yield ["unreadable", image.split, image.class_name, image.path, image.message]
    for missing in found.missing_classes:
        message = f"{missing.split} has no image of this class"
        yield ["missing", missing.split, missing.class_name, None, message]
    for added in found.added_classes:
        yield ["added", added.split, added.class_name, None, "train does not have this class"]
    for one in found.similar:
        message = f"looks like {one.like.name}"
        yield ["similar", one.image.split, one.image.class_name, one.image.path, message]
    for suspect in found.suspects or ():
        message = f"probably {suspect.suggested}; {suspect.class_name} has {suspect.confidence:.1%}"
        yield ["suspect", suspect.split, suspect.class_name, suspect.path, message]
    yield from _same_pixels("duplicate", found.duplicates)


def _same_pixels(kind: str, groups: tuple[Duplicates, ...]) -> Iterator[list[Cell]]:
    for one in groups:
        first, *others = one.images
        message = f"the same pixels as {', '.join(image.name for image in others)}"
        yield [kind, first.split, first.class_name, first.path, message]
