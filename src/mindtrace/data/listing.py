"""Which image files there are: the one walk below a folder, and a folder of classes. No torch."""

import heapq
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from mindtrace.config.formats import FORMATS, reads_heic, suffixes
from mindtrace.errors import DataFolderError, listed

Stage = Literal["train", "val", "test"]
STAGES: tuple[Stage, ...] = ("train", "val", "test")

#: Paths of what is no image to read, by kind: a suffix, or words.
LeftOut = dict[str, list[str]]
NO_FILE = "not a file"
_KINDS_SHOWN = 8

# How people write them: `Train`, `valid`, `training_set`, `TEST`.
_SPELLINGS = {"train": r"train(ing)?", "val": r"val(id(ation)?)?", "test": r"test(ing)?"}
_LAYOUT = "one sub-folder a class, in the folder itself or in train, val and test"


class ListedImage(NamedTuple):
    """An image file, and what its folder or table says of it."""

    file: str  # on this machine
    name: str  # in the folder or the table
    stage: Stage
    class_name: str
    group: str | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Listing:
    """The image files of a folder or a table, whether they can be trained on or not."""

    place: Path
    class_names: tuple[str, ...]  # by label; of the training images
    classes: Mapping[Stage, Sequence[str]]  # of the stages that are given
    images: Sequence[ListedImage]  # in the order of the stages
    notes: tuple[str, ...] = ()
    fault: DataFolderError | None = None  # why they cannot be trained on


def find_images(folder: str, endings: tuple[str, ...]) -> tuple[list[str], LeftOut]:
    """The image files below `folder`, sorted, and what is left out; OSError as it comes."""
    images: list[str] = []
    left_out: LeftOut = defaultdict(list)
    # Links come last: a folder is read once, under its own name where it is below `folder`.
    waiting, seen = [(False, folder)], set()
    while waiting:
        _, place = heapq.heappop(waiting)
        state = os.stat(place)  # noqa: PTH116 - the paths stay text, a Path each costs more
        if (state.st_dev, state.st_ino) in seen:
            left_out["read under another name"].append(place)
            continue
        seen.add((state.st_dev, state.st_ino))
        with os.scandir(place) as entries:
            for entry in entries:
                linked = entry.is_symlink()
                if entry.name.startswith("."):
                    left_out["hidden"].append(entry.path)
                elif os.path.isdir(entry.path) if linked else entry.is_dir():  # noqa: PTH112
                    heapq.heappush(waiting, (linked, entry.path))
                elif not entry.name.lower().endswith(endings):
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
    is_heic = {*FORMATS["heic"].suffixes} & {*kinds} and not reads_heic()
    hint = "; pip install 'mindtrace[heif]' for HEIC" if is_heic else ""
    return f"{sum(map(len, left_out.values())):,} left out: {', '.join(shown)}{hint}"


def list_folder(folder: Path, formats: Sequence[str], group: str | None) -> Listing:
    """The images of a folder of classes; sub-folders of a class belong to it."""
    roots = _roots(folder)
    classes = {stage: _subfolders(root) for stage, root in roots.items()}
    class_names = classes["train"]
    if odd := [name for name in class_names if re.search("[\ud800-\udfff]", name)]:
        reason = f"the name of class {odd[0]!a} is not UTF-8"
        raise DataFolderError(folder, reason, hint="rename its folder")
    try:
        found, left_out = find_images(str(folder), suffixes(formats))
    except OSError as error:
        raise DataFolderError(Path(error.filename), f"cannot be read: {error.strerror}") from error
    homes = {
        str(roots[stage] / name): (stage, name) for stage in classes for name in classes[stage]
    }
    depth = len(roots["train"].parts) + 1
    images = []
    for path in found:
        home = homes.get("/".join(path.split("/", depth + 1)[:depth]))
        if home is None:
            left_out["outside the classes"].append(path)
        else:
            name = path[len(str(folder)) + 1 :]
            images.append(ListedImage(path, name, *home, group_in(group, name)))
    images.sort(key=lambda one: (STAGES.index(one.stage), one.class_name))
    line = left_out_line(left_out, str(folder))
    notes = (line,) if line else ()
    if len(class_names) < 2:
        reason = f"only one class, '{class_names[0]}'" if class_names else "no sub-folders"
        hint = "; ".join((f"two or more classes are needed: {_LAYOUT}", *notes))
        raise DataFolderError(folder, reason, hint=hint)
    fault = foreign_class(folder, class_names, classes)
    fault = fault or _lack(folder, roots, classes, images, notes)
    return Listing(folder, tuple(class_names), classes, images, notes, fault)


def group_in(pattern: str | None, name: str) -> str | None:
    """What `[data] group` finds in the name of an image: its first group, or the whole match."""
    found = re.search(pattern, name) if pattern else None
    return None if found is None else found[1 if found.re.groups else 0]


def split_of(name: str) -> Stage | None:
    """The split that a name means, also in another spelling; None for another name."""
    for stage in STAGES:
        if re.fullmatch(rf"{_SPELLINGS[stage]}([ _-]?(set|data|images))?", name, re.I):
            return stage
    return None


def foreign_class(
    place: Path, class_names: Sequence[str], classes: Mapping[Stage, Sequence[str]]
) -> DataFolderError | None:
    """The error for classes that only val or test has."""
    for stage, names in classes.items():
        if foreign := [name for name in names if name not in class_names]:
            reason = f"class {listed(foreign)} is in {stage} and not in train"
            return DataFolderError(place, reason, hint=f"train has {listed(class_names)}")
    return None


def _roots(folder: Path) -> dict[Stage, Path]:
    """The folder of each stage that has one; a plain tree is all `train`."""
    names = _subfolders(folder)
    spelled = {
        stage: own
        for stage in STAGES
        if (own := [name for name in names if split_of(name) == stage])
    }
    meant = [name for own in spelled.values() for name in own]
    # One such name without sub-folders may be a class: toy trains.
    if len(spelled) < 2 and not any(_subfolders(folder / name) for name in meant):
        return {"train": folder}
    foreign = [name for name in names if name not in meant]
    if "train" in spelled and foreign:
        reason = f"beside {spelled['train'][0]} there is {listed(foreign)}"
        hint = "with a train folder the others are val and test; rename or move what is not"
        raise DataFolderError(folder, reason, hint=hint)
    if "train" not in spelled or len(meant) > len(spelled):
        fault = "two for one split" if "train" in spelled else "no train"
        reason = f"has {listed(meant)} but {fault}"
        raise DataFolderError(folder, reason, hint=f"expected {_LAYOUT}")
    return {stage: folder / own[0] for stage, own in spelled.items()}


def _lack(
    folder: Path,
    roots: Mapping[Stage, Path],
    classes: Mapping[Stage, Sequence[str]],
    images: Sequence[ListedImage],
    notes: tuple[str, ...],
) -> DataFolderError | None:
    """The error for a split without classes, or a class without images."""
    filled = {(one.stage, one.class_name) for one in images}
    for stage, root in roots.items():
        if not classes[stage]:
            hint = f"fill {root}, or remove it"
            return DataFolderError(folder, f"{stage} has no classes", hint=hint)
        for name in (name for name in classes[stage] if (stage, name) not in filled):
            hint = "fill or remove it; [data] formats says which files are read"
            reason = f"class '{name}' has no images in {root / name}"
            return DataFolderError(folder, reason, hint="; ".join((hint, *notes)))
    return None


def _subfolders(folder: Path) -> list[str]:
    try:
        found = [path for path in folder.iterdir() if not path.name.startswith(".")]
        return sorted(path.name for path in found if path.is_dir())
    except FileNotFoundError as error:
        parent = next((path for path in folder.parents if path.is_dir()), Path("/"))
        names = sorted(path.name for path in parent.iterdir() if not path.name.startswith("."))
        hint = f"{parent} has {listed(names)}"
        raise DataFolderError(folder, "no such folder", hint=hint) from error
    except NotADirectoryError as error:
        raise DataFolderError(folder, "not a folder", hint=f"expected {_LAYOUT}") from error
    except OSError as error:
        raise DataFolderError(folder, f"cannot be read: {error.strerror}") from error
