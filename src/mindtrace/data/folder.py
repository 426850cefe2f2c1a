"""A folder of image files, one sub-folder a class: finds, splits and loads them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from torch import Tensor

from mindtrace.config.formats import suffixes
from mindtrace.data.batches import ImageSplit, channel_statistics, to_images
from mindtrace.data.datamodule import ImageDataModule, ImageStats, SourceImages
from mindtrace.data.decode import (
    CACHE_FORMAT,
    CacheKey,
    decode_files,
    examine_files,
    find_or_make,
    new_array,
    reorder,
    reporter,
    workers_for,
)
from mindtrace.data.split import STAGES, Division, Stage
from mindtrace.data.walk import (
    HIDDEN,
    KNOWN_FOLDER,
    OUTSIDE,
    LeftOut,
    find_images,
    left_out_line,
)
from mindtrace.errors import DataFolderError, ImageError, listed
from mindtrace.utils.system import available_cores

# Images of about one size up to this many pixels a side keep it; others become DEFAULT_SIDE.
LARGEST_OWN_SIDE = 224
DEFAULT_SIDE = 64
_MOST, _ABOUT = 0.75, 0.1  # so many images differ by at most so much of a side

_ARRAYS = ("images", "digests", "order")
# How people write them: `Train`, `valid`, `training_set`, `TEST`.
_SPELLINGS = {"train": r"train(ing)?", "val": r"val(id(ation)?)?", "test": r"test(ing)?"}
_LAYOUT = "one sub-folder a class, in the folder itself or in train, val and test"


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
        scan = self.scan()
        require_trainable(self.dir, scan)
        images = load_rows(self, self.rows(scan), scan.class_names, self.cache_dir)
        labels = {stage: split.labels for stage, split in images.splits.items()}
        notes = (*scan.notes, *class_notes(scan.class_names, labels), *images.notes)
        return replace(images, notes=notes)

    def scan(self) -> FolderScan:
        """Find the images, decoding none."""
        return scan_folder(self.dir, self.accepted.formats)

    def name_of(self, path: str) -> str:
        """The path in the folder."""
        return path[len(str(self.dir)) + 1 :]

    def group_of(self, path: str) -> str | None:
        """What `group` finds in the relative path."""
        found = re.search(self.group, self.name_of(path)) if self.group else None
        return None if found is None else found[1 if found.re.groups else 0]

    def weight_of(self, path: str) -> float:
        """How often an epoch draws the image, relative to the others."""
        return 1.0

    def rows(self, scan: FolderScan) -> Rows:
        """The images with a label, in the order of their stages."""
        label_of = {name: label for label, name in enumerate(scan.class_names)}
        files = [
            (stage, path, label_of[name])
            for stage, classes in scan.images.items()
            for name, paths in classes.items()
            if name in label_of
            for path in paths
        ]
        labels = torch.tensor([label for _, _, label in files])
        counts = Counter(stage for stage, _, _ in files)
        given = {stage: counts[stage] for stage in scan.images}
        paths = [path for _, path, _ in files]
        return Rows(
            self.dir,
            paths,
            labels,
            given,
            names=[self.name_of(path) for path in paths],
            groups=[self.group_of(path) for path in paths],
            weights=torch.tensor([self.weight_of(path) for path in paths]),
        )


@dataclass(frozen=True)
class Rows:
    """Image files with labels; `counts` are of the stages that are given."""

    folder: Path  # or the table that lists them
    paths: list[str]
    labels: Tensor
    counts: dict[Stage, int]
    names: list[str]  # of the images, in the folder or the table
    groups: list[str | None]
    weights: Tensor

    def notes(self) -> tuple[str, ...]:
        """One line if only some images have a group."""
        alone = [name for name, own in zip(self.names, self.groups, strict=True) if own is None]
        if len(alone) in (0, len(self.names)):
            return ()
        return (f"{len(alone):,} images have no group and are drawn alone: {listed(alone, 2)}",)

    def divided(self, data: ImageDataModule, digests: NDArray[np.uint8]) -> Division:
        """The rows of each stage; what is not given is drawn."""
        keys = [
            one.tobytes() if own is None else b"group " + own.encode(errors="surrogateescape")
            for one, own in zip(digests, self.groups, strict=True)
        ]
        division = data.divide(self.labels, self.counts, keys)
        if not all(len(division.parts[stage]) for stage in STAGES if stage not in self.counts):
            groups = len({own for own in self.groups if own is not None})
            found = f" and {groups:,} groups" if groups else ""
            raise DataFolderError(
                self.folder,
                f"{len(self.paths):,} images{found} are too few to split",
                hint="a class needs three different images, or groups, to be in each split",
            )
        return division


def load_rows(
    data: ImageDataModule, rows: Rows, class_names: tuple[str, ...], cache_dir: Path | None
) -> SourceImages:
    """Take the images from the cache, or decode them into it or into memory."""
    about: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    if cache_dir is not None:
        key = _cache_key(data, rows)
        about = find_or_make(
            cache_dir,
            key,
            lambda folder: _decode(data, rows, folder)[0],
            lambda: data.progress.stage("waiting for another process that decodes images"),
        )
        if about is None:
            notes = (f"{cache_dir} cannot be written: images are decoded anew each time",)
    if cache_dir is None or about is None:
        about, *arrays = _decode(data, rows, None)
    else:
        arrays = [np.load(cache_dir / key.name / f"{name}.npy", mmap_mode="r") for name in _ARRAYS]
    images, digests, order = arrays
    own = about["stats"]
    stats = ImageStats(**{**own, "mean": tuple(own["mean"]), "std": tuple(own["std"])})
    spec = data.resolve_spec(stats)
    if stats.note and data.image_size is None and data.demand.height is None:
        size = f"{spec.height} x {spec.width} pixels: {stats.note}"
        notes += (f"the network reads {size}; [data] image_size sets another",)
    tensor = to_images(images).expand(-1, spec.channels, -1, -1)
    splits, end = {}, 0
    for stage in STAGES:
        part = slice(end, end := end + about["counts"][stage])
        places = order[part].tolist()
        splits[stage] = ImageSplit(
            tensor[part],
            rows.labels[places],
            spec,
            digests[part],
            [rows.names[place] for place in places],
            [rows.groups[place] for place in places],
            None if bool((rows.weights == 1).all()) else rows.weights[places],
        )
    notes = (*rows.notes(), *about["notes"], *notes)
    return SourceImages(splits, spec, class_names, notes, rows.counts.keys())


def _decode(
    data: ImageDataModule, rows: Rows, into: Path | None
) -> tuple[dict[str, Any], Any, Any, Any]:
    """Facts on all images, and `_ARRAYS` in the order of the stages, in `into` or in memory."""
    data.shares(rows.counts)  # refuses before the work what `divided` would refuse
    count, limit = len(rows.paths), data.num_workers or available_cores()
    report = reporter(data.progress, f"reading the headers of {count:,} images", count)
    workers = workers_for(count, 0, limit)
    facts = examine_files(rows.paths, workers, report, headers_only=True, accepted=data.accepted)
    height, width, note = _common_size(facts["height"], facts["width"])
    grey = facts["grey"]
    stats = ImageStats("L" if grey.all() else "RGB", height, width, note=note)
    spec = data.resolve_spec(stats)
    # Three equal channels are decoded and kept once.
    stored = replace(spec, mode="L") if grey.all() else spec
    shape = (count, stored.channels, spec.height, spec.width)
    images = new_array(into and into / "images.npy", shape)
    digests = new_array(into and into / "digests.npy", (count, 32))
    pixels = int((facts["height"].astype(np.int64) * facts["width"]).sum())
    report = reporter(data.progress, f"decoding {count:,} images", count)
    workers = workers_for(count, pixels, limit)
    decode_files(
        rows.paths, grey.tolist(), stored, images, digests, workers, report, accepted=data.accepted
    )
    division = rows.divided(data, digests)
    order = torch.cat([division.parts[stage] for stage in STAGES]).numpy()
    counts = {stage: len(division.parts[stage]) for stage in STAGES}
    unused = np.setdiff1d(np.arange(count), order)  # where `num_train` takes some
    for array in (images, digests):
        reorder(array, np.concatenate([order, unused]))
    if into is not None:
        np.save(into / "order.npy", order)
    mean, std = channel_statistics(to_images(images[: counts["train"]]))
    about = {
        "stats": asdict(replace(stats, mean=mean, std=std)),
        "counts": counts,
        "notes": division.notes(rows.names.__getitem__),
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


def _cache_key(data: ImageDataModule, rows: Rows) -> CacheKey:
    """What the decoded images depend on: each file's path, size and time of its last change."""
    files = [f"{name}\0{_state(path)}" for name, path in zip(rows.names, rows.paths, strict=True)]
    demand = {**asdict(data.demand), "mean": None, "std": None}
    rules = [CACHE_FORMAT, PIL.__version__, LARGEST_OWN_SIDE, DEFAULT_SIDE]
    split = [data.split_rule, data.split_seed, data.test_fraction, data.num_val, data.num_train]
    wanted = json.dumps([rules, data.image_size, data.accepted, demand, split, rows.counts])
    labels = json.dumps([rows.labels.tolist(), rows.groups])
    listing = _digest([str(CACHE_FORMAT), *sorted(files)])
    return CacheKey(_digest([wanted, labels, *files]), str(rows.folder), listing)


def _state(path: str) -> str:
    try:
        found = os.stat(path)  # noqa: PTH116 - 70,000 times
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from error
    return f"{found.st_size}\0{found.st_mtime_ns}"


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
        missing = [name for name, lacks in zip(class_names, lacking, strict=True) if lacks]
        if missing:
            notes.append(f"{stage} has no image of class {', '.join(missing)}")
    return tuple(notes)


@dataclass(frozen=True)
class FolderScan:
    """The files of a folder of classes, whether it can be trained on or not."""

    roots: Mapping[Stage, Path]  # of the stages that have a folder; a plain tree is all `train`
    class_names: tuple[str, ...]  # sorted; of the training images
    images: Mapping[Stage, Mapping[str, Sequence[str]]]
    left_out: LeftOut
    notes: tuple[str, ...]


def scan_folder(folder: Path, formats: tuple[str, ...]) -> FolderScan:
    """Find the images; sub-folders of a class belong to it."""
    names = _subfolders(folder)
    spelled = {
        stage: own
        for stage in STAGES
        if (own := [name for name in names if split_of(name) == stage])
    }
    meant = [name for own in spelled.values() for name in own]
    roots: dict[Stage, Path] = {"train": folder}
    # One such name without sub-folders may be a class: toy trains.
    if len(spelled) > 1 or any(_subfolders(folder / name) for name in meant):
        foreign = [name for name in names if name not in meant]
        if "train" in spelled and foreign:
            raise DataFolderError(
                folder,
                f"beside {spelled['train'][0]} there is {listed(foreign)}",
                hint="with a train folder the others are val and test; rename or move what is not",
            )
        if "train" not in spelled or len(meant) > len(spelled):
            fault = "two for one split" if "train" in spelled else "no train"
            raise DataFolderError(
                folder, f"has {listed(meant)} but {fault}", hint=f"expected {_LAYOUT}"
            )
        roots = {stage: folder / own[0] for stage, own in spelled.items()}
    class_names = _subfolders(roots["train"])
    try:
        found, left_out = find_images(str(folder), suffixes(formats))
    except OSError as error:
        raise DataFolderError(Path(error.filename), f"cannot be read: {error.strerror}") from error
    if len(class_names) < 2:
        if class_names:
            reason = f"only one class, '{class_names[0]}'"
        else:
            loose = sum(Path(path).parent == roots["train"] for path in found)
            reason = f"no sub-folders; {loose:,} images directly in it" if loose else "no images"
        line = left_out_line(left_out, str(folder))
        hint = f"two or more classes are needed: {_LAYOUT}" + (f"; {line}" if line else "")
        raise DataFolderError(folder, reason, hint=hint)
    images: dict[Stage, dict[str, list[str]]] = {
        stage: {name: [] for name in _subfolders(root)} for stage, root in roots.items()
    }
    class_of = {
        str(roots[stage] / name): paths
        for stage, classes in images.items()
        for name, paths in classes.items()
    }
    depth = len(roots["train"].parts) + 1
    for path in found:
        home = class_of.get("/".join(path.split("/", depth + 1)[:depth]))
        (left_out.setdefault(OUTSIDE, []) if home is None else home).append(path)
    line = left_out_line(left_out, str(folder))
    return FolderScan(roots, tuple(class_names), images, left_out, (line,) if line else ())


def split_of(name: str) -> Stage | None:
    """The split that a name means, also in another spelling; None for another name."""
    for stage in STAGES:
        if re.fullmatch(rf"{_SPELLINGS[stage]}([ _-]?(set|data|images))?", name, re.I):
            return stage
    return None


def require_trainable(folder: Path, scan: FolderScan) -> None:
    """Refuse a folder with empty splits or classes, or with classes that only val or test has."""
    for stage, classes in scan.images.items():
        root = scan.roots[stage]
        if foreign := [name for name in classes if name not in scan.class_names]:
            raise DataFolderError(
                folder,
                f"class {listed(foreign)} is in {stage} and not in train",
                hint=f"train has {listed(scan.class_names)}",
            )
        if not classes:
            raise DataFolderError(
                folder, f"{stage} has no classes", hint=f"fill {root}, or remove it"
            )
        for name in [name for name, images in classes.items() if not images]:
            home, left_out = str(root / name), scan.left_out
            kinds = [paths for kind, paths in left_out.items() if kind != HIDDEN]
            others = sum(path.startswith(f"{home}/") for paths in kinds for path in paths)
            more = f": {others:,} other files" if others else ""
            if home in left_out.get(KNOWN_FOLDER, ()):
                more = ": it links to a folder that has another name,"
            raise DataFolderError(
                folder,
                f"class '{name}' has no images{more} in {root / name}",
                hint="fill or remove it; [data] formats says which files are read",
            )


def _subfolders(folder: Path) -> list[str]:
    try:
        found = [path for path in folder.iterdir() if not path.name.startswith(".")]
        return sorted(path.name for path in found if path.is_dir())
    except FileNotFoundError as error:
        parent = next((path for path in folder.parents if path.is_dir()), Path("/"))
        names = sorted(path.name for path in parent.iterdir() if not path.name.startswith("."))
        raise DataFolderError(
            folder, "no such folder", hint=f"{parent} has {listed(names)}"
        ) from error
    except NotADirectoryError as error:
        raise DataFolderError(folder, "not a folder", hint=f"expected {_LAYOUT}") from error
    except OSError as error:
        raise DataFolderError(folder, f"cannot be read: {error.strerror}") from error
