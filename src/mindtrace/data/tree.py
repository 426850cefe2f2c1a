"""Room data: a folder with one sub-folder a class comes in, its files by stage and class go out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mindtrace.data.images import STAGES, Stage
from mindtrace.errors import DataFolderError, listed
from mindtrace.preprocess import IMAGE_SUFFIXES

_LAYOUT = "one sub-folder a class, in the folder itself or in train, val and test"


@dataclass(frozen=True)
class Survey:
    """What is in a folder of classes, fit to be trained on or not.

    Attributes:
        homes: the folder with the classes of each stage that has one of its own.
        class_names: sorted; those of the training images.
        images: of the same stages, the files of each class, sorted; a tree without
            stages is all `train`.
    """

    homes: Mapping[Stage, Path]
    class_names: tuple[str, ...]
    images: Mapping[Stage, Mapping[str, Sequence[str]]]

    @property
    def added(self) -> list[tuple[Stage, str]]:
        """The classes that val or test has and train does not."""
        return [
            (stage, name)
            for stage, classes in self.images.items()
            for name in classes
            if name not in self.class_names
        ]

    @property
    def missing(self) -> list[tuple[Stage, str]]:
        """The classes that a stage with a folder of its own has no image of."""
        return [
            (stage, name)
            for stage, classes in self.images.items()
            for name in self.class_names
            if not classes.get(name)
        ]

    def tree(self) -> ImageTree:
        """The images that have a label."""
        labels = {name: label for label, name in enumerate(self.class_names)}
        files: dict[Stage, list[tuple[str, int]]] = {
            stage: [
                (path, labels[name])
                for name, paths in classes.items()
                if name in labels
                for path in paths
            ]
            for stage, classes in self.images.items()
        }
        return ImageTree(self.class_names, files)


@dataclass(frozen=True)
class ImageTree:
    """The image files of a folder.

    Attributes:
        class_names: sorted; those of the training images.
        files: of each stage that has a folder of its own, (path, label) in a fixed
            order; a tree without stages is all `train`.
    """

    class_names: tuple[str, ...]
    files: dict[Stage, list[tuple[str, int]]]


def read_tree(folder: Path) -> ImageTree:
    """Find the images under `folder`, to train on them.

    Args:
        folder: has one sub-folder a class, or such trees in train, val and test.

    Returns:
        Classes and files; nothing is opened yet.

    Raises:
        DataFolderError: see `survey`; also a class without images, and one that only
            val or test has.
    """
    found = survey(folder)
    demand_trainable(folder, found)
    return found.tree()


def demand_trainable(folder: Path, found: Survey) -> None:
    """Refuse a folder that lacks images where there should be some.

    Raises:
        DataFolderError: see `read_tree`.
    """
    for stage, classes in found.images.items():
        home = found.homes[stage]
        if foreign := [name for name in classes if name not in found.class_names]:
            raise DataFolderError(
                folder,
                f"class {listed(foreign)} is in {stage} and not in train",
                hint=f"train has {listed(found.class_names)}",
            )
        if not classes:
            raise DataFolderError(
                folder, f"{stage} has no classes", hint=f"fill {home}, or remove it"
            )
        for name, images in classes.items():
            if not images:
                raise _empty_class(folder, home / name)


def survey(folder: Path) -> Survey:
    """Find the images under `folder`.

    Sub-folders of a class belong to the class; hidden names are passed over.

    Args:
        folder: as for `read_tree`.

    Returns:
        What is there.

    Raises:
        DataFolderError: no such folder, no images, a single class, no train folder
            beside val or test, another folder beside them.
    """
    names = _subfolders(folder)
    staged = [stage for stage in STAGES if stage in names and _subfolders(folder / stage)]
    if "train" not in staged:
        if staged:
            raise DataFolderError(
                folder, f"has {listed(staged)} but no train", hint=f"expected {_LAYOUT}"
            )
        return _survey(folder, {"train": folder})
    if foreign := [name for name in names if name not in STAGES]:
        raise DataFolderError(
            folder,
            f"beside train there is {listed(foreign)}",
            hint="with a train folder the others are val and test; rename or move what is not",
        )
    return _survey(folder, {stage: folder / stage for stage in STAGES if stage in names})


def _survey(folder: Path, homes: Mapping[Stage, Path]) -> Survey:
    class_names = _subfolders(homes["train"])
    if len(class_names) < 2:
        raise DataFolderError(
            folder,
            _too_few_classes(homes["train"], class_names),
            hint=f"two or more classes are needed: {_LAYOUT}",
        )
    images = {
        stage: {name: _images(home / name) for name in _subfolders(home)}
        for stage, home in homes.items()
    }
    return Survey(homes, tuple(class_names), images)


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


def _images(home: Path) -> list[str]:
    """All image files of one class, sorted."""
    images: list[str] = []
    for place, below, names in os.walk(home, onerror=_raise):
        below[:] = [name for name in below if not name.startswith(".")]
        images += [
            os.path.join(place, name)  # noqa: PTH118 - 70,000 times
            for name in names
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        ]
    return sorted(images)


def _empty_class(folder: Path, home: Path) -> DataFolderError:
    others = sum(path.is_file() and not path.name.startswith(".") for path in home.rglob("*"))
    reason = f"class '{home.name}' has no images"
    return DataFolderError(
        folder,
        f"{reason}: {others:,} other files in {home}" if others else f"{reason} in {home}",
        hint=f"fill or remove it; images end in {' '.join(IMAGE_SUFFIXES)}",
    )


def _raise(error: OSError) -> None:
    raise DataFolderError(Path(error.filename), f"cannot be read: {error.strerror}") from error
