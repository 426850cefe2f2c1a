"""The one walk below a folder of images: for training, `data check` and `predict`. No torch."""

from __future__ import annotations

import heapq
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence

from mindtrace.config.formats import FORMATS, reads_heic

#: Paths of what is no image to read, by kind: a suffix, or one of these.
LeftOut = Mapping[str, Sequence[str]]
HIDDEN = "hidden"
KNOWN_FOLDER = "read under another name"
OUTSIDE = "outside the classes"
NO_FILE = "not a file"
_KINDS_SHOWN = 8


def find_images(folder: str, suffixes: tuple[str, ...]) -> tuple[list[str], dict[str, list[str]]]:
    """The image files below `folder`, sorted, and what is left out; OSError as it comes."""
    images: list[str] = []
    left_out: defaultdict[str, list[str]] = defaultdict(list)
    # Links come last: a folder is read once, under its own name where it is below `folder`.
    waiting, seen = [(False, folder)], set()
    while waiting:
        _, place = heapq.heappop(waiting)
        state = os.stat(place)  # noqa: PTH116 - the paths stay text, a Path each costs more
        if (state.st_dev, state.st_ino) in seen:
            left_out[KNOWN_FOLDER].append(place)
            continue
        seen.add((state.st_dev, state.st_ino))
        with os.scandir(place) as entries:
            for entry in entries:
                linked = entry.is_symlink()
                if entry.name.startswith("."):
                    left_out[HIDDEN].append(entry.path)
                elif os.path.isdir(entry.path) if linked else entry.is_dir():  # noqa: PTH112
                    heapq.heappush(waiting, (linked, entry.path))
                elif not entry.name.lower().endswith(suffixes):
                    kind = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122
                    left_out[kind or "without a suffix"].append(entry.path)
                elif linked or entry.is_file():
                    images.append(entry.path)
                else:
                    left_out[NO_FILE].append(entry.path)
    return sorted(images), left_out


def left_out_line(left_out: LeftOut, folder: str | None = None) -> str | None:
    """`3 left out: 2 .heic (cat/1.heic), 1 hidden (._a.jpg)`, or None for nothing."""
    kinds = sorted(left_out, key=lambda kind: (-len(left_out[kind]), kind))
    if not kinds:
        return None
    shown = []
    for kind in kinds[:_KINDS_SHOWN]:
        example = min(left_out[kind])
        if folder is not None:
            example = os.path.relpath(example, folder)
        shown.append(f"{len(left_out[kind]):,} {kind} ({example})")
    if more := len(kinds) - len(shown):
        shown.append(f"{more} more kinds")
    heic = FORMATS["heic"].suffixes
    hint = (
        "; pip install 'mindtrace[heif]' for HEIC"
        if {*heic} & {*kinds} and not reads_heic()
        else ""
    )
    return f"{sum(map(len, left_out.values())):,} left out: {', '.join(shown)}{hint}"
