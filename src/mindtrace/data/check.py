"""Room data: a data module comes in, what is in its images and what is wrong with them goes out.

Nothing is changed and nothing is trained. Unreadable files and missing classes are
collected; only a folder that is no folder of classes at all is an error.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from numpy.typing import NDArray

from mindtrace.bundle.predictions import pairs_digest
from mindtrace.data.base import ImageDataModule
from mindtrace.data.decoding import examine_files
from mindtrace.data.folder import ImageFolder, class_notes
from mindtrace.data.images import STAGES, Stage
from mindtrace.data.loading import Rows, teller
from mindtrace.data.tree import Survey, demand_trainable, survey
from mindtrace.data.workers import processes_worth
from mindtrace.errors import DataFolderError
from mindtrace.utils.system import available_cores

_Item = TypeVar("_Item")


class CheckedImage(NamedTuple):
    """One image.

    Attributes:
        split: train, val or test.
        place: its number in the split; -1 if its class is none that trains.
        path: in the folder; `train[5]` where the source has no files.
        class_name: of its folder, or of its label.
        digest: 32 bytes; empty if the file cannot be read.
        error: why not.
    """

    split: Stage
    place: int
    path: str
    class_name: str
    digest: bytes
    error: str = ""


class Gap(NamedTuple):
    """A class and a split that do not go together."""

    split: Stage
    class_name: str


@dataclass(frozen=True)
class Twins:
    """Images with the same pixels."""

    images: tuple[CheckedImage, ...]

    @property
    def leak(self) -> bool:
        """Whether they are in more than one split: what is learnt there is asked here."""
        return len({image.split for image in self.images}) > 1

    @property
    def contradict(self) -> bool:
        """Whether they have different classes."""
        return len({image.class_name for image in self.images}) > 1


@dataclass(frozen=True)
class DataCheck:
    """What was found.

    Attributes:
        source: of the images.
        folder: of the images, where they have one.
        class_names: by label.
        images: all of them: train, val, test.
        sizes: how many images have a size, (height, width), upright.
        modes: how many images have a mode, as Pillow names them.
        formats: how many files have a format.
        missing: classes that a split with a folder of its own has no image of.
        added: classes that val or test has and train does not.
        twins: every set of images with the same pixels.
        notes: what a person should know, one line each.
        data_digest: as a training has it; None where it would refuse these images.
        test_digest: like `data_digest`.
    """

    source: str
    folder: Path | None
    class_names: tuple[str, ...]
    images: tuple[CheckedImage, ...]
    sizes: Mapping[tuple[int, int], int]
    modes: Mapping[str, int]
    formats: Mapping[str, int]
    missing: tuple[Gap, ...]
    added: tuple[Gap, ...]
    twins: tuple[Twins, ...]
    notes: tuple[str, ...]
    data_digest: str | None
    test_digest: str | None

    @property
    def unreadable(self) -> list[CheckedImage]:
        """The images that cannot be decoded."""
        return [image for image in self.images if image.error]

    def counts(self) -> dict[Stage, dict[str, int]]:
        """How many images each split has of each class, those that cannot be read too."""
        found = Counter((image.split, image.class_name) for image in self.images)
        names = dict.fromkeys([*self.class_names, *(gap.class_name for gap in self.added)])
        return {stage: {name: found[stage, name] for name in names} for stage in STAGES}


def check(data: ImageDataModule) -> DataCheck:
    """Look at all images of a source.

    Args:
        data: not used by anybody yet; downloads what it must.

    Returns:
        What was found.

    Raises:
        DataError: the source cannot be read at all.
        UsageError: `[data]` asks for a split that these images cannot give.
    """
    return _check_folder(data) if isinstance(data, ImageFolder) else _check_source(data)


def twins_of(images: Iterable[CheckedImage]) -> tuple[Twins, ...]:
    """Sets of two and more images with the same pixels; those that cannot be read have none."""
    groups: defaultdict[bytes, list[CheckedImage]] = defaultdict(list)
    for image in images:
        if image.digest:
            groups[image.digest].append(image)
    return tuple(Twins(tuple(group)) for group in groups.values() if len(group) > 1)


def _check_source(data: ImageDataModule) -> DataCheck:
    images: list[CheckedImage] = []
    for stage in STAGES:
        split = data.split(stage)
        names = [data.class_names[label] for label in split.labels.tolist()]
        images += [
            CheckedImage(stage, index, f"{stage}[{index}]", name, digest)
            for index, (name, digest) in enumerate(zip(names, split.digests(), strict=True))
        ]
    digests = data.digests()
    return DataCheck(
        source=data.source,
        folder=None,
        class_names=data.class_names,
        images=tuple(images),
        sizes={(data.spec.height, data.spec.width): len(images)},
        modes={data.spec.mode: len(images)},
        formats={},
        missing=(),
        added=(),
        twins=twins_of(images),
        notes=data.notes,
        data_digest=digests.data_digest,
        test_digest=digests.test_digest,
    )


def _check_folder(data: ImageFolder) -> DataCheck:
    found = survey(data.dir)
    trainable = True
    try:
        demand_trainable(data.dir, found)
    except DataFolderError:
        if not any(found.images["train"].values()):
            raise
        trainable = False
    rows = data.rows(found.tree())
    strangers = [
        (gap, path) for gap in _added(found) for path in found.images[gap.split][gap.class_name]
    ]
    facts = _examined(data, [*rows.paths, *(path for _, path in strangers)])
    images = _images(data.dir, rows, found.class_names, strangers, facts)
    readable = facts[facts["error"] == b""]
    trainable = trainable and len(readable) == len(facts)
    pairs = list(zip((image.digest for image in images), rows.labels.tolist(), strict=False))
    return DataCheck(
        source=data.source,
        folder=data.dir,
        class_names=found.class_names,
        images=images,
        sizes=_counted(zip(readable["height"].tolist(), readable["width"].tolist(), strict=True)),
        modes=_counted(text.decode() for text in readable["mode"].tolist()),
        formats=_counted(text.decode() for text in readable["format"].tolist()),
        missing=tuple(Gap(*pair) for pair in found.missing),
        added=tuple(_added(found)),
        twins=twins_of(images),
        notes=(*_notes(found, rows), *_remarks(readable)),
        data_digest=pairs_digest(pairs) if trainable else None,
        test_digest=pairs_digest(pairs[rows.parts()["test"]]) if trainable else None,
    )


def _added(found: Survey) -> list[Gap]:
    return [Gap(*pair) for pair in found.added]


def _examined(data: ImageFolder, paths: Sequence[str]) -> NDArray[Any]:
    count = len(paths)
    # Reading the headers is as much work again as decoding small images.
    workers = processes_worth(2 * count, 0, data.num_workers or available_cores())
    return examine_files(paths, workers, teller(data.progress, f"checking {count:,} images", count))


def _images(
    folder: Path,
    rows: Rows,
    class_names: Sequence[str],
    strangers: Sequence[tuple[Gap, str]],
    facts: NDArray[Any],
) -> tuple[CheckedImage, ...]:
    """Those with a label in the order of `rows`, then the strangers."""
    labels = rows.labels.tolist()
    places = [
        (stage, index, rows.paths[row], class_names[labels[row]])
        for stage, part in rows.parts().items()
        for index, row in enumerate(range(part.start, part.stop))
    ]
    places += [(gap.split, -1, path, gap.class_name) for gap, path in strangers]
    start = len(str(folder)) + 1
    errors = [text.decode(errors="replace") for text in facts["error"].tolist()]
    return tuple(
        CheckedImage(stage, index, path[start:], name, b"" if error else digest.tobytes(), error)
        for (stage, index, path, name), digest, error in zip(
            places, facts["digest"], errors, strict=True
        )
    )


def _counted(items: Iterable[_Item]) -> dict[_Item, int]:
    """How often each is there, the most frequent first."""
    return dict(Counter(items).most_common())


def _notes(found: Survey, rows: Rows) -> tuple[str, ...]:
    """What a draw left out; what a split's own folder lacks is a fault, not a note."""
    labels = {stage: rows.labels[part] for stage, part in rows.parts().items()}
    drawn = [stage for stage in STAGES if stage not in found.images]
    return class_notes(found.class_names, labels, drawn)


def _remarks(facts: NDArray[Any]) -> Iterator[str]:
    """What is done with images of unusual kinds, in training as in predict and serve."""
    deep = sum(mode.startswith(b"I") for mode in facts["mode"].tolist())
    for count, what in (
        (int(facts["rotated"].sum()), "turned upright, as EXIF says"),
        (int(facts["transparent"].sum()), "transparent parts become black"),
        (int(facts["animated"].sum()), "animated, the first frame counts"),
        (deep, "16 bits a channel, scaled to 8"),
    ):
        if count:
            yield f"{count:,} of {len(facts):,} images: {what}"
