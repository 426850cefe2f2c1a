"""A folder of image files, one sub-folder a class: split, decoded once, kept on disk."""

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from torch import Tensor

from mindtrace.data import decode
from mindtrace.data.batches import ImageSplit, channel_statistics, to_images
from mindtrace.data.datamodule import ImageDataModule, SourceImages
from mindtrace.data.listing import STAGES, ListedImage, Listing, Stage, list_folder
from mindtrace.data.split import Division
from mindtrace.errors import DataFolderError, ImageError, listed
from mindtrace.preprocess import ImageSpec

# Images of about one size up to this many pixels a side keep it; others become DEFAULT_SIDE.
LARGEST_OWN_SIDE = 224
DEFAULT_SIDE = 64
_MOST, _ABOUT = 0.75, 0.1  # so many images differ by at most so much of a side


class ImageFolder(ImageDataModule):
    """The images of a folder: `train/CLASS/*.png` with val and test beside, or `CLASS/*.png`.

    A split without a folder of its own is drawn from the training images. Without `image_size`
    or a network with a size of its own, all images take the median size if it is at most 224 x 224
    and three of four images have it within a tenth, else 64 x 64. The network reads grey if all
    images are grey, else colour; mean and deviation are those of the training images.

    Args:
        dir: the folder.
        *arguments: of `ImageDataModule`.
        group: a regular expression; images in whose relative paths it finds the same text (its
            first group, or the whole match) are never parted. None draws each image by itself.
        cache_dir: keeps decoded images, which are mapped from there the next time, so that they
            need not fit into memory; None decodes them into memory each time.
        **options: of `ImageDataModule`.
    """

    source = "folder"
    owner = "user"

    def __init__(
        self,
        dir: str | Path,
        *arguments: Any,
        group: str | None = None,
        cache_dir: str | Path | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.group = group
        self.dir = Path(dir).expanduser().absolute()
        self.cache_dir = None if cache_dir is None else Path(cache_dir)

    def read(self) -> SourceImages:
        """Find, inspect, decode and split the images."""
        listing = self.listing()
        if listing.fault is not None:
            raise listing.fault
        images = load(self, listing, self.cache_dir)
        labels = {stage: split.labels for stage, split in images.splits.items()}
        notes = (*listing.notes, *class_notes(listing.class_names, labels), *images.notes)
        return replace(images, notes=notes)

    def listing(self) -> Listing:
        """Find the images, decoding none."""
        return list_folder(self.dir, self.accepted.formats, self.group)


def labels_of(images: Iterable[ListedImage], class_names: Sequence[str]) -> Tensor:
    """The label of each image, int64, (n,)."""
    label_of = {name: label for label, name in enumerate(class_names)}
    return torch.tensor([label_of[one.class_name] for one in images])


def divide(
    data: ImageDataModule,
    listing: Listing,
    images: Sequence[ListedImage],
    labels: Tensor,
    digests: NDArray[np.uint8],
) -> Division:
    """The images of each stage; drawn by digest or group where the listing has none."""
    counts = Counter(one.stage for one in images)
    keys = [
        digest.tobytes()
        if one.group is None
        else b"group " + one.group.encode(errors="surrogateescape")
        for one, digest in zip(images, digests, strict=True)
    ]
    division = data.divide(labels, {stage: counts[stage] for stage in listing.classes}, keys)
    if not all(len(division.parts[stage]) for stage in STAGES if stage not in listing.classes):
        groups = len({one.group for one in images} - {None})
        found = f" and {groups:,} groups" if groups else ""
        reason = f"{len(images):,} images{found} are too few to split"
        hint = "a class needs three different images, or groups, to be in each split"
        raise DataFolderError(listing.place, reason, hint=hint)
    return division


def group_notes(images: Sequence[ListedImage]) -> tuple[str, ...]:
    """One line if only some images have a group."""
    alone = [one.name for one in images if one.group is None]
    if len(alone) in (0, len(images)):
        return ()
    return (f"{len(alone):,} images have no group and are drawn alone: {listed(alone, 2)}",)


def load(data: ImageDataModule, listing: Listing, cache_dir: Path | None) -> SourceImages:
    """Take the images from the cache, or decode them into it or into memory."""
    found: decode.Decoded | None = None
    notes: tuple[str, ...] = ()
    labels = labels_of(listing.images, listing.class_names)
    if cache_dir is not None:
        name, state = _cache_key(data, listing, labels)
        found = decode.find_or_make(
            cache_dir / name,
            (str(listing.place), state),
            lambda folder: _decode(data, listing, labels, folder)[0],
            lambda: data.progress.stage("waiting for another process that decodes images"),
        )
        if found is None:
            notes = (f"{cache_dir} cannot be written: images are decoded anew each time",)
    about, images, digests, order = found or _decode(data, listing, labels, None)
    stats = dict(about["stats"])
    why = stats.pop("note")
    spec = data.resolve_spec(ImageSpec(**stats))
    if why and data.image_size is None and data.requirements.height is None:
        size = f"{spec.width} x {spec.height} pixels: {why}"
        notes += (f"the network reads {size}; [data] image_size sets another",)
    tensor = to_images(images).expand(-1, spec.channels, -1, -1)
    weights = torch.tensor([one.weight for one in listing.images])
    splits, end = {}, 0
    for stage in STAGES:
        part = slice(end, end := end + about["counts"][stage])
        places = order[part].tolist()
        here = [listing.images[place] for place in places]
        files, groups = [one.name for one in here], [one.group for one in here]
        drawn = None if bool((weights == 1).all()) else weights[places]
        splits[stage] = ImageSplit(
            tensor[part], labels[places], spec, digests[part], files, groups, drawn
        )
    notes = (*group_notes(listing.images), *about["notes"], *notes)
    return SourceImages(splits, spec, listing.class_names, notes, listing.classes.keys())


def _decode(
    data: ImageDataModule, listing: Listing, labels: Tensor, into: Path | None
) -> decode.Decoded:
    """The images in the order of the stages, in memory or in files of the folder `into`."""
    data.shares(listing.classes)  # refuses before the work what `divide` would refuse
    paths = [one.file for one in listing.images]
    count = len(paths)
    report = decode.reporter(data.progress, f"reading the headers of {count:,} images", count)
    facts = decode.headers_of(paths, report, data.accepted)
    grey = facts["grey"]
    height, width, note = _common_size(facts["height"], facts["width"])
    own = ImageSpec("L" if grey.all() else "RGB", height, width, mean=(0.0,), std=(1.0,))
    spec = data.resolve_spec(own)
    # Three equal channels are decoded and kept once.
    stored = replace(spec, mode="L") if grey.all() else spec
    shape = (count, stored.channels, spec.height, spec.width)
    if into is not None:
        size = decode.require_space(into, math.prod(shape) + 32 * count)
        data.progress.note(f"decoded images are kept in {into.parent}: {size}")
    images = decode.new_array(into and into / "images.npy", shape)
    digests = decode.new_array(into and into / "digests.npy", (count, 32))
    report = decode.reporter(data.progress, f"decoding {count:,} images", count)
    work = (paths, facts, stored, images, digests, report, data.accepted)
    decode.decode_files(*work, threads=data.num_workers)
    division = divide(data, listing, listing.images, labels, digests)
    order = torch.cat([division.parts[stage] for stage in STAGES]).numpy()
    counts = {stage: len(division.parts[stage]) for stage in STAGES}
    unused = np.setdiff1d(np.arange(count), order)  # where `num_train` takes some
    for array in (images, digests):
        decode.reorder(array, np.concatenate([order, unused]))
    if into is not None:
        np.save(into / "order.npy", order)
    mean, std = channel_statistics(to_images(images[: counts["train"]]))
    sizes = {"mode": own.mode, "height": height, "width": width}
    about = {
        "stats": {**sizes, "mean": mean, "std": std, "note": note},
        "counts": counts,
        "notes": division.notes([one.name for one in listing.images].__getitem__),
    }
    return about, images, digests, order


def _common_size(heights: NDArray[Any], widths: NDArray[Any]) -> tuple[int, int, str]:
    """The height and width for images of these sizes, and why, if they are not those of all."""
    count = len(heights)
    height, width = (int(np.sort(sides)[count // 2]) for sides in (heights, widths))
    near = (abs(heights - height) <= _ABOUT * height) & (abs(widths - width) <= _ABOUT * width)
    if max(height, width) <= LARGEST_OWN_SIDE and near.sum() >= _MOST * count:
        same = int(((heights == height) & (widths == width)).sum())
        return height, width, f"that of {same:,} of {count:,} images" if same < count else ""
    low, high = min(heights.min(), widths.min()), max(heights.max(), widths.max())
    return DEFAULT_SIDE, DEFAULT_SIDE, f"the images' sides are {low} to {high} pixels"


def _cache_key(data: ImageDataModule, listing: Listing, labels: Tensor) -> tuple[str, str]:
    """Digests of what decoded images depend on, and of each file's path, size and change time."""
    images = listing.images
    counts = Counter(one.stage for one in images)
    files = [f"{one.name}\0{_state(one.file)}" for one in images]
    required = {**asdict(data.requirements), "mean": None, "std": None}
    rules = [decode.CACHE_FORMAT, PIL.__version__, LARGEST_OWN_SIDE, DEFAULT_SIDE]
    split = [data.split_rule, data.split_seed, data.test_fraction, data.num_val, data.num_train]
    given = {stage: counts[stage] for stage in listing.classes}
    wanted = json.dumps([rules, data.image_size, data.accepted, required, split, given])
    grouped = json.dumps([labels.tolist(), [one.group for one in images]])
    of_files = _digest([str(decode.CACHE_FORMAT), *sorted(files)])
    return _digest([wanted, grouped, *files]), of_files


def _state(path: str) -> str:
    try:
        found = os.stat(path)  # noqa: PTH116 - 70,000 times
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from error
    return f"{found.st_size}\0{found.st_ctime_ns}"  # a copy or an archive may keep st_mtime


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def class_notes(
    class_names: Sequence[str], labels: Mapping[Stage, Tensor], stages: Collection[Stage] = STAGES
) -> tuple[str, ...]:
    """One line for each class of one image, and for each of `stages` that lacks classes."""
    counts = {
        stage: torch.bincount(of_stage, minlength=len(class_names))
        for stage, of_stage in labels.items()
    }
    single = sum(counts.values(), torch.tensor(0)) == 1
    notes = [
        f"class {name} has one image, to train on, and none to judge it by: "
        "add images or remove the class"
        for name, alone in zip(class_names, single.tolist(), strict=True)
        if alone
    ]
    for stage in stages:
        lacking = ((counts[stage] == 0) & ~single).tolist()
        if missing := [name for name, lacks in zip(class_names, lacking, strict=True) if lacks]:
            notes.append(f"{stage} has no image of class {', '.join(missing)}")
    return tuple(notes)
