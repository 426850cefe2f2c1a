"""What is in the images of a source and what is wrong with them, without training on them."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mindtrace.bundle.predictions import pairs_digest
from mindtrace.data.datamodule import ImageDataModule
from mindtrace.data.decode import HASHES, examine_files, reporter
from mindtrace.data.folder import ImageFolder, class_notes, divide, group_notes, labels_of
from mindtrace.data.listing import STAGES, Stage
from mindtrace.data.split import made_by
from mindtrace.errors import VerdictError

# Photos look alike where their hashes differ in so many of 64 bits. Chosen on bursts of photos
# that were moved, brightened and compressed again: among 5,000 photos at least 92 of 100 copies
# are found, and 99 of 100 pairs are right.
_LARGEST_DISTANCE = 3
# A hash with fewer zeros or ones says only that a picture is plain.
_FEWEST_BITS = 6
_ROWS = 256


@dataclass(frozen=True)
class ImagePlace:
    """One image: `path` is in the folder, or `train[5]` where the source has no files."""

    split: Stage
    path: str
    class_name: str

    @property
    def name(self) -> str:
        """The path, and the split where the path does not begin with it."""
        return self.path if self.path.startswith(self.split) else f"{self.path} ({self.split})"


@dataclass(frozen=True)
class UnreadableImage(ImagePlace):
    """An image that cannot be decoded, and why."""

    message: str


@dataclass(frozen=True)
class ImageSize:
    """How many images have a size, upright."""

    height: int
    width: int
    images: int


@dataclass(frozen=True)
class SplitClass:
    """A class of a split."""

    split: Stage
    class_name: str


class _Together:
    """Images that belong into one split."""

    images: tuple[ImagePlace, ...]

    def refused(self, made_by: Mapping[Stage, str]) -> bool:
        """Whether they are in more than one split that the user made."""
        user = {stage for stage, maker in made_by.items() if maker == "user"}
        # What was drawn came from the user's train.
        return len({one.split if one.split in user else "train" for one in self.images}) > 1


@dataclass(frozen=True)
class SharedGroup(_Together):
    """Images of one group."""

    group: str
    images: tuple[ImagePlace, ...]


@dataclass(frozen=True)
class Duplicates(_Together):
    """Images with the same pixels."""

    digest: str
    images: tuple[ImagePlace, ...]

    @property
    def leak(self) -> bool:
        """Whether they are in more than one split."""
        return len({image.split for image in self.images}) > 1

    @property
    def contradict(self) -> bool:
        """Whether they have different classes."""
        return len({image.class_name for image in self.images}) > 1


@dataclass(frozen=True)
class Similar:
    """A photo that looks like one of another split; `distance` counts bits of 64."""

    image: ImagePlace
    like: ImagePlace
    distance: int


@dataclass(frozen=True)
class SuspectLabel(ImagePlace):
    """An image whose class is probably `suggested`; `confidence` is the probability of its own."""

    suggested: str
    confidence: float


@dataclass(frozen=True, kw_only=True)
class DataCheck:
    """What was found; its fields are the JSON of `mindtrace data check`."""

    source: str
    dir: str | None = None
    images: int
    class_names: tuple[str, ...]
    counts: Mapping[Stage, Mapping[str, int]]
    made_by: Mapping[Stage, str]  # of each split: user, source or mindtrace
    sizes: tuple[ImageSize, ...]
    modes: Mapping[str, int]
    formats: Mapping[str, int] = field(default_factory=dict)
    unreadable: tuple[UnreadableImage, ...]
    missing_classes: tuple[SplitClass, ...] = ()  # training classes that val or test lacks
    added_classes: tuple[SplitClass, ...] = ()  # that val or test has and train does not
    leakage: tuple[Duplicates, ...]  # in several splits
    group_leakage: tuple[SharedGroup, ...]  # in several splits that the user made
    conflicts: tuple[Duplicates, ...]  # under several class names
    duplicates: tuple[Duplicates, ...]  # in one split and class
    similar: tuple[Similar, ...] = ()  # photos of several splits that look alike
    suspects: tuple[SuspectLabel, ...] | None  # None where labels were not compared
    notes: tuple[str, ...]
    data_digest: str | None  # as a training has it; None where it would refuse these images
    test_digest: str | None
    sheet: str | None = None


class CheckedImage(NamedTuple):
    """An image, its file or its number in a split without files, its digest or its error."""

    place: ImagePlace
    at: str | int
    digest: bytes
    error: str = ""
    group: str | None = None


def check(
    data: ImageDataModule, find_suspects: Callable[[], tuple[SuspectLabel, ...]] | None = None
) -> tuple[DataCheck, list[CheckedImage]]:
    """Decode all images of a source and say what is wrong with them."""
    images, fields = _check_files(data) if isinstance(data, ImageFolder) else _check_source(data)
    added = [one.class_name for one in fields.get("added_classes", ())]
    names = dict.fromkeys([*fields["class_names"], *added])
    seen = Counter((image.place.split, image.place.class_name) for image in images)
    same, broken = duplicates_of(images), [one for one in images if one.error]
    fields["notes"] = (*fields["notes"], *remarks(same, fields["made_by"]))
    return DataCheck(
        source=data.source,
        images=len(images),
        counts={stage: {name: seen[stage, name] for name in names} for stage in STAGES},
        unreadable=tuple(UnreadableImage(**vars(one.place), message=one.error) for one in broken),
        leakage=tuple(one for one in same if one.leak),
        group_leakage=parted_groups(images, fields["made_by"]),
        conflicts=tuple(one for one in same if one.contradict),
        duplicates=tuple(one for one in same if not one.leak and not one.contradict),
        # A training would refuse what has no digest.
        suspects=find_suspects() if find_suspects and fields["data_digest"] else None,
        **fields,
    ), images


def duplicates_of(images: Iterable[CheckedImage]) -> tuple[Duplicates, ...]:
    """Sets of two and more images with the same pixels."""
    groups: defaultdict[bytes, list[ImagePlace]] = defaultdict(list)
    for image in images:
        if not image.error:
            groups[image.digest].append(image.place)
    return tuple(Duplicates(key.hex(), tuple(own)) for key, own in groups.items() if len(own) > 1)


def parted_groups(
    images: Iterable[CheckedImage], made_by: Mapping[Stage, str]
) -> tuple[SharedGroup, ...]:
    """The groups with images in more than one split that the user made."""
    groups: defaultdict[str, list[ImagePlace]] = defaultdict(list)
    for image in images:
        if image.group is not None:
            groups[image.group].append(image.place)
    found = (SharedGroup(name, tuple(own)) for name, own in groups.items())
    return tuple(one for one in found if one.refused(made_by))


def remarks(same: Iterable[Duplicates], made_by: Mapping[Stage, str]) -> Iterator[str]:
    """One line for each kind of twins that is not refused and may still be wrong."""
    if leaks := [one for one in same if one.leak and not one.refused(made_by)]:
        yield _sentence(leaks, "split")
    if conflicts := [one for one in same if one.contradict]:
        yield _sentence(conflicts, "class")


def leakage_error(
    same: Iterable[Duplicates], groups: Sequence[SharedGroup], made_by: Mapping[Stage, str]
) -> VerdictError | None:
    """What `train` and `data check` end with where the user's own splits share images."""
    found = [one for one in same if one.refused(made_by)]
    parts = [_sentence(some, "split") for some in (found, groups) if some]
    if not parts:
        return None
    hint = "--allow-leakage  # or leave each in one split; data check lists all"
    return VerdictError(f"leakage: {'; '.join(parts)}", hint=hint)


def _sentence(found: Sequence[Duplicates | SharedGroup], what: Literal["split", "class"]) -> str:
    first, *others = found[0].images
    attribute = "split" if what == "split" else "class_name"
    own = getattr(first, attribute)
    second = next(one for one in others if getattr(one, attribute) != own)
    kind, sign = ("image", "=") if isinstance(found[0], Duplicates) else ("group", "and")
    count = f"1 {kind} is" if len(found) == 1 else f"{len(found):,} {kind}s are"
    return f"{count} in more than one {what}, {first.name} {sign} {second.name}"


def listed_images(data: ImageDataModule, *, alone: bool = True) -> list[CheckedImage]:
    """The images of a module that has read them, or those that share pixels or a group."""
    images = []
    seen = Counter(digest for stage in STAGES for digest in data.split(stage).digests())
    for stage in STAGES:
        split = data.split(stage)
        names = [data.class_names[label] for label in split.labels.tolist()]
        paths = split.files or [f"{stage}[{index}]" for index in range(len(split))]
        groups = split.groups or [None] * len(split)
        images += [
            CheckedImage(ImagePlace(stage, path, name), index, digest, group=group)
            for index, (path, name, digest, group) in enumerate(
                zip(paths, names, split.digests(), groups, strict=True)
            )
            if alone or seen[digest] > 1 or group is not None
        ]
    return images


def _check_source(data: ImageDataModule) -> tuple[list[CheckedImage], dict[str, Any]]:
    images = listed_images(data)
    digests = data.digests()
    return images, {
        "class_names": data.class_names,
        "sizes": (ImageSize(data.spec.height, data.spec.width, len(images)),),
        "modes": {data.spec.mode: len(images)},
        "made_by": data.made_by,
        "notes": data.notes,
        "data_digest": digests.data_digest,
        "test_digest": digests.test_digest,
    }


def _check_files(data: ImageFolder) -> tuple[list[CheckedImage], dict[str, Any]]:
    listing = data.listing()
    names = listing.class_names
    if listing.fault and not any(one.stage == "train" for one in listing.images):
        raise listing.fault
    data.shares(listing.classes)  # refused before the work
    known = [one for one in listing.images if one.class_name in names]
    others = [one for one in listing.images if one.class_name not in names]
    count = len(listing.images)
    report = reporter(data.progress, f"checking {count:,} images", count)
    paths = [one.file for one in (*known, *others)]
    facts = examine_files(paths, report, data.accepted, threads=data.num_workers)
    labels = labels_of(known, names)
    division = divide(data, listing, known, labels, facts["digest"][: len(known)])
    order = torch.cat([division.parts[stage] for stage in STAGES])
    facts = facts[[*order.tolist(), *range(len(known), count)]]
    placed = [
        known[index]._replace(stage=stage)
        for stage in STAGES
        for index in division.parts[stage].tolist()
    ]
    images = []
    for one, fact in zip([*placed, *others], facts, strict=True):
        place, digest = ImagePlace(one.stage, one.name, one.class_name), fact["digest"].tobytes()
        error = fact["error"].decode(errors="replace")
        images.append(CheckedImage(place, one.file, digest, error, one.group))
    split_ids = np.array([STAGES.index(image.place.split) for image in images])
    similar = tuple(
        Similar(images[first].place, images[second].place, distance)
        for first, second, distance in similar_pairs(facts["hashes"], split_ids)
        if images[first].digest != images[second].digest
    )
    filled = {(one.stage, one.class_name) for one in listing.images}
    # What a draw left out; what a split's own folder lacks is a fault, not a note.
    drawn = [stage for stage in STAGES if stage not in listing.classes]
    readable = facts[facts["error"] == b""]
    sizes = Counter(zip(readable["height"].tolist(), readable["width"].tolist(), strict=True))
    trainable = listing.fault is None and len(readable) == count
    pairs = list(zip((image.digest for image in images), labels[order].tolist(), strict=False))
    tested = pairs[len(known) - len(division.parts["test"]) :]
    return images, {
        "dir": str(data.dir),
        "class_names": names,
        "sizes": tuple(ImageSize(*size, count) for size, count in sizes.most_common()),
        "modes": _counted(readable["mode"]),
        "formats": _counted(readable["format"]),
        "missing_classes": tuple(
            SplitClass(*one) for one in product(listing.classes, names) if one not in filled
        ),
        "added_classes": tuple(
            SplitClass(stage, name)
            for stage, own in listing.classes.items()
            for name in own
            if name not in names
        ),
        "made_by": made_by(listing.classes, data.owner),
        "similar": similar,
        "notes": (
            *listing.notes,
            *class_notes(names, {one: labels[division.parts[one]] for one in STAGES}, drawn),
            *group_notes(known),
            *division.notes(lambda index: known[index].name),
            *_remarks(readable),
            *_look_alikes(similar),
        ),
        "data_digest": pairs_digest(pairs) if trainable else None,
        "test_digest": pairs_digest(tested) if trainable else None,
    }


def similar_pairs(
    hashes: NDArray[np.uint64], split_ids: NDArray[np.int64]
) -> Iterator[tuple[int, int, int]]:
    """For each image the one of a lower split id that it looks like most, if any; its distance."""
    # Split ids: 0 for training images, 1 for validation, 2 for test.
    bits = np.bitwise_count(hashes[:, 0])
    telling = (bits >= _FEWEST_BITS) & (bits <= 64 - _FEWEST_BITS)
    for split in (1, 2):
        own = np.flatnonzero(telling & (split_ids == split))
        others = np.flatnonzero(telling & (split_ids < split))
        if not len(others):
            continue
        for start in range(0, len(own), _ROWS):
            part = own[start : start + _ROWS]
            distances = np.full((len(part), len(others)), 64, np.uint8)
            for place in range(HASHES):
                differing = hashes[part, None, place] ^ hashes[None, others, 0]
                np.minimum(distances, np.bitwise_count(differing), out=distances)
            nearest = distances.argmin(1)
            for row in np.flatnonzero(distances.min(1) <= _LARGEST_DISTANCE):
                column = nearest[row]
                yield int(part[row]), int(others[column]), int(distances[row, column])


def _look_alikes(similar: Sequence[Similar]) -> Iterator[str]:
    if similar:
        one = similar[0]
        count = "1 photo looks" if len(similar) == 1 else f"{len(similar):,} photos look"
        pair = f"{one.image.name} like {one.like.name}"
        hint = "if they show the same thing, [data] group keeps it in one split"
        yield f"{count} like one of another split, {pair}: {hint}"


def _counted(texts: NDArray[Any]) -> dict[str, int]:
    """How often each is there, the most frequent first."""
    return dict(Counter(text.decode() for text in texts.tolist()).most_common())


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
