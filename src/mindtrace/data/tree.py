"""Room data: a folder with one sub-folder a class comes in, its files by stage and class go out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mindtrace.data.images import STAGES, Stage
from mindtrace.errors import DataFolderError, listed
from mindtrace.preprocess import IMAGE_SUFFIXES

_LAYOUT = "one sub-folder a class, in the folder itself or in train, val and test"


@dataclass(frozen=True)
class ImageTree:
    """The image files of a folder.

    Attributes:
        class_names: sorted; those of the training images.
        files: of each stage that has a folder of its own, (path, label) in a fixed
            order; a tree without stages is all `train`.
    """

    class_names: tuple[str, ...]
    files: dict[Stage, list[tuple[Path, int]]]


def read_tree(folder: Path) -> ImageTree:
    """Find the images under `folder`.

    Sub-folders of a class belong to the class; hidden names are passed over.

    Args:
        folder: has one sub-folder a class, or such trees in train, val and test.

    Returns:
        Classes and files; nothing is opened yet.

    Raises:
        DataFolderError: no such folder, no images, a class without any, a single class,
            a class that only val or test has.
    """
    names = _subfolders(folder)
    staged = [stage for stage in STAGES if stage in names and _subfolders(folder / stage)]
    if "train" not in staged:
        if staged:
            raise DataFolderError(
                folder, f"has {listed(staged)} but no train", hint=f"expected {_LAYOUT}"
            )
        return _tree_of(folder, {"train": folder})
    if foreign := [name for name in names if name not in STAGES]:
        raise DataFolderError(
            folder,
            f"beside train there is {listed(foreign)}",
            hint="with a train folder the others are val and test; rename or move what is not",
        )
    return _tree_of(folder, {stage: folder / stage for stage in STAGES if stage in names})


def _tree_of(folder: Path, homes: dict[Stage, Path]) -> ImageTree:
    class_names = _subfolders(homes["train"])
    if len(class_names) < 2:
        raise DataFolderError(
            folder,
            _too_few_classes(homes["train"], class_names),
            hint=f"two or more classes are needed: {_LAYOUT}",
        )
    labels = {name: label for label, name in enumerate(class_names)}
    files: dict[Stage, list[tuple[Path, int]]] = {}
    for stage, home in homes.items():
        found = _subfolders(home)
        if foreign := [name for name in found if name not in labels]:
            raise DataFolderError(
                folder,
                f"class {listed(foreign)} is in {stage} and not in train",
                hint=f"train has {listed(class_names)}",
            )
        if not found:
            raise DataFolderError(
                folder, f"{stage} has no classes", hint=f"fill {home}, or remove it"
            )
        files[stage] = [
            (path, labels[name]) for name in found for path in _images(folder, home / name)
        ]
    return ImageTree(tuple(class_names), files)


def _too_few_classes(home: Path, class_names: Sequence[str]) -> str:
    if class_names:
        return f"only one class, '{class_names[0]}'"
    loose = sum(path.suffix.lower() in IMAGE_SUFFIXES for path in home.iterdir())
    return f"no sub-folders; {loose:,} images directly in it" if loose else "no images"


def _subfolders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except FileNotFoundError as error:
        raise DataFolderError(folder, "no such folder", hint=_neighbours(folder)) from error
    except NotADirectoryError as error:
        raise DataFolderError(folder, "not a folder", hint=f"expected {_LAYOUT}") from error
    except OSError as error:
        raise DataFolderError(folder, f"cannot be read: {error.strerror}") from error


def _neighbours(folder: Path) -> str:
    parent = next((path for path in folder.parents if path.is_dir()), Path("/"))
    names = sorted(path.name for path in parent.iterdir() if not path.name.startswith("."))
    return f"{parent} has {listed(names)}"


def _images(folder: Path, home: Path) -> list[Path]:
    """All image files of one class, sorted."""
    images: list[str] = []
    others = 0
    for place, below, names in os.walk(home, onerror=_raise):
        below[:] = sorted(name for name in below if not name.startswith("."))
        shown = [name for name in names if not name.startswith(".")]
        chosen = [name for name in shown if name.lower().endswith(IMAGE_SUFFIXES)]
        others += len(shown) - len(chosen)
        images += [os.path.join(place, name) for name in chosen]  # noqa: PTH118 - 70,000 times
    if not images:
        reason = f"class '{home.name}' has no images"
        raise DataFolderError(
            folder,
            f"{reason}: {others:,} other files in {home}" if others else f"{reason} in {home}",
            hint=f"fill or remove it; images end in {' '.join(IMAGE_SUFFIXES)}",
        )
    return [Path(path) for path in sorted(images)]


def _raise(error: OSError) -> None:
    raise DataFolderError(Path(error.filename), f"cannot be read: {error.strerror}") from error
