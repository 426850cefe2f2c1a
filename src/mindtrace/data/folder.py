"""Room data: a folder of image files, one sub-folder a class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mindtrace.data.base import ImageDataModule, SourceImages
from mindtrace.data.decoding import Decoded, Facts, decode_files, inspect_files, processes_worth
from mindtrace.data.images import STAGES, ImageSplit, Stage, to_images
from mindtrace.data.spec import settle_spec
from mindtrace.data.split import hold_out, seeded
from mindtrace.data.tree import ImageTree, read_tree
from mindtrace.errors import DataFolderError
from mindtrace.preprocess import ImageSpec, Mode, SpecDemand
from mindtrace.utils.system import available_cores

# Images of one size up to this many pixels a side keep it; others become DEFAULT_SIDE.
LARGEST_OWN_SIDE = 224
DEFAULT_SIDE = 64


class ImageFolder(ImageDataModule):
    """The images of a folder: `train/CLASS/*.png` with val and test beside, or `CLASS/*.png`.

    What has no folder of its own is drawn from the training images. Without
    `image_size` or a network that insists, images that all have one size of at most
    224 x 224 keep it and all others become 64 x 64. The network reads grey if all
    images are grey, else colour; mean and deviation are those of the training images.

    Args:
        dir: the folder.
        batch_size: training images a step.
        num_workers: processes that decode; None or 0 for all cores we may use.
        num_val: validation images, or the fraction of those that are no test
            images; where there is no val folder.
        pin_memory: page-locked batches where a CUDA device is.
        test_fraction: of the training images; where there is no test folder.
        split_seed: decides what is drawn.
        image_size: pixels a side to scale to.
        demand: what a network insists on.

    Attributes:
        source: the name that `[data] source` knows it by.
    """

    source = "folder"

    def __init__(
        self,
        dir: str | Path,
        batch_size: int = 64,
        num_workers: int | None = None,
        num_val: int | float = 0.1,
        pin_memory: bool = False,
        *,
        test_fraction: float = 0.2,
        split_seed: int = 0,
        image_size: int | None = None,
        demand: SpecDemand | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            num_workers=num_workers,
            pin_memory=pin_memory,
            split_seed=split_seed,
            image_size=image_size,
            demand=demand,
        )
        self.dir = Path(dir).expanduser().absolute()
        self.num_val = num_val
        self.test_fraction = test_fraction

    def read(self) -> SourceImages:
        """Find, inspect, decode and split the images.

        Returns:
            The three splits and what belongs to them.

        Raises:
            DataFolderError: the folder does not hold what it must.
            ImageError: a file that cannot be decoded.
        """
        tree = read_tree(self.dir)
        paths = [path for stage in tree.files for path, _ in tree.files[stage]]
        labels = torch.tensor([label for stage in tree.files for _, label in tree.files[stage]])
        division = self._division(tree, labels)
        limit = self.num_workers or available_cores()
        facts = inspect_files(paths, processes_worth(len(paths), 0, limit))
        spec = self._spec(facts)
        # Three equal channels need not be decoded or kept.
        stored = replace(spec, mode="L") if facts.grey.all() else spec
        pixels = int(facts.sizes.prod(axis=1).sum())
        decoded = decode_files(paths, facts, stored, processes_worth(len(paths), pixels, limit))
        splits = {
            stage: _split(decoded, labels, division[stage], spec.channels) for stage in STAGES
        }
        return SourceImages(
            train=splits["train"],
            val=splits["val"],
            test=splits["test"],
            spec=self._with_statistics(spec, splits["train"]),
            class_names=tree.class_names,
            notes=_notes(tree.class_names, splits),
        )

    def _spec(self, facts: Facts) -> ImageSpec:
        """The spec but for mean and deviation, which need the pixels."""
        mode: Mode = "L" if facts.grey.all() else "RGB"
        height, width = (int(side) for side in facts.sizes[0])
        alike = bool((facts.sizes == facts.sizes[0]).all())
        if not alike or max(height, width) > LARGEST_OWN_SIDE:
            height = width = DEFAULT_SIDE
        return settle_spec(
            mode, (height, width), (0.0,), (1.0,), demand=self.demand, image_size=self.image_size
        )

    def _with_statistics(self, spec: ImageSpec, train: ImageSplit) -> ImageSpec:
        mean, std = channel_statistics(train.images)
        return replace(
            spec,
            mean=mean if self.demand.mean is None else spec.mean,
            std=std if self.demand.std is None else spec.std,
        )

    def _division(self, tree: ImageTree, labels: Tensor) -> dict[Stage, Tensor]:
        """The indices of each stage: its own folder's, else drawn from the training images."""
        counts = [len(files) for files in tree.files.values()]
        division = dict(
            zip(tree.files, torch.split(torch.arange(len(labels)), counts), strict=True)
        )
        generator = seeded(self.split_seed)
        held_out: tuple[tuple[Stage, int | float, str], ...] = (
            ("test", self.test_fraction, "test_fraction"),
            ("val", self.num_val, "num_val"),
        )
        for stage, amount, key in held_out:
            if stage not in division:
                division[stage], division["train"] = hold_out(
                    labels, division["train"], amount, key, generator
                )
            if not len(division[stage]):
                raise DataFolderError(
                    self.dir,
                    f"{len(labels):,} images are too few to split",
                    hint="a class needs two images to give one to another split",
                )
        return division


def _split(decoded: Decoded, labels: Tensor, indices: Tensor, channels: int) -> ImageSplit:
    images = to_images(decoded.pixels[indices.numpy()])
    return ImageSplit(
        images.expand(-1, channels, -1, -1),
        labels[indices],
        tuple(decoded.digests[index] for index in indices.tolist()),
    )


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation a channel, on the scale of [0, 1], rounded to six digits.

    From counts of the 256 levels, so that they do not depend on threads or order. The
    deviation of images that are all of one level is given as 1.

    Args:
        images: uint8, (n, channels, height, width).

    Returns:
        Means and deviations.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(images.shape[1]):
        counts = torch.zeros(256, dtype=torch.int64)
        for part in torch.split(images[:, channel], 1024):
            counts += torch.bincount(part.flatten(), minlength=256)
        share = counts / counts.sum()
        mean = (share * levels).sum()
        means.append(round(mean.item(), 6))
        stds.append(round((share * (levels - mean) ** 2).sum().sqrt().item(), 6) or 1.0)
    return tuple(means), tuple(stds)


def _notes(class_names: tuple[str, ...], splits: dict[Stage, ImageSplit]) -> tuple[str, ...]:
    """The classes that a split does not have."""
    notes = []
    for stage, split in splits.items():
        counts = torch.bincount(split.labels, minlength=len(class_names)).tolist()
        missing = [name for name, count in zip(class_names, counts, strict=True) if not count]
        if missing:
            notes.append(f"{stage} has no image of class {', '.join(missing)}")
    return tuple(notes)
