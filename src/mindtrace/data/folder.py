"""Room data: a folder of image files, one sub-folder a class."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mindtrace.data.base import ImageDataModule, SourceImages
from mindtrace.data.cache import ImageCache
from mindtrace.data.images import STAGES, ImageSplit, Stage
from mindtrace.data.loading import Loading, Rows
from mindtrace.data.split import hold_out, seeded
from mindtrace.data.tree import ImageTree, read_tree
from mindtrace.errors import DataFolderError
from mindtrace.preprocess import InputRequirements
from mindtrace.utils.system import available_cores


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
        cache_dir: where decoded images are kept and, the next time, mapped from, so that
            they need not fit into memory; None decodes them into memory each time.

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
        demand: InputRequirements | None = None,
        cache_dir: str | Path | None = None,
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
        self.cache_dir = None if cache_dir is None else Path(cache_dir)

    def read(self) -> SourceImages:
        """Find, inspect, decode and split the images.

        Returns:
            The three splits and what belongs to them.

        Raises:
            DataFolderError: the folder does not hold what it must.
            ImageError: a file that cannot be decoded.
            DataError: the decoded images could not be kept.
        """
        tree = read_tree(self.dir)
        rows = self.rows(tree)
        loading = Loading(
            folder=self.dir,
            demand=self.demand,
            image_size=self.image_size,
            workers=self.num_workers or available_cores(),
            progress=self.progress,
        )
        cache = None if self.cache_dir is None else ImageCache(self.cache_dir)
        loaded = loading.load(rows, cache)
        splits = {
            stage: ImageSplit(loaded.images[part], rows.labels[part], loaded.digests[part])
            for stage, part in rows.parts().items()
        }
        labels = {stage: split.labels for stage, split in splits.items()}
        return SourceImages(
            train=splits["train"],
            val=splits["val"],
            test=splits["test"],
            spec=loaded.spec,
            class_names=tree.class_names,
            notes=(*class_notes(tree.class_names, labels), *loaded.notes),
        )

    def rows(self, tree: ImageTree) -> Rows:
        """Share out the images of a tree: what has no folder of its own is drawn.

        Raises:
            UsageError: an amount that leaves nothing.
            DataFolderError: too few images.
        """
        files = [file for stage in tree.files for file in tree.files[stage]]
        labels = torch.tensor([label for _, label in files])
        division = self._division(tree, labels)
        order = torch.cat([division[stage] for stage in STAGES])
        return Rows(
            paths=[files[index][0] for index in order.tolist()],
            labels=labels[order],
            counts={stage: len(division[stage]) for stage in STAGES},
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


def class_notes(
    class_names: Sequence[str], labels: Mapping[Stage, Tensor], stages: Collection[Stage] = STAGES
) -> tuple[str, ...]:
    """What there is too little of, one line each.

    Args:
        class_names: by label.
        labels: int64, of the images of every stage.
        stages: where a class that is missing is worth a line.

    Returns:
        The classes of one image, then those that a split does not have.
    """
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
