"""Room data: the 1,797 handwritten digits that scikit-learn carries; no network needed."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mindtrace.data.base import ImageDataModule, SourceImages
from mindtrace.data.images import grey_split
from mindtrace.data.spec import settle_spec
from mindtrace.data.split import hold_out, seeded
from mindtrace.errors import DataError
from mindtrace.preprocess import InputRequirements

# Of the uncompressed table: 1,797 lines of 64 grey levels from 0 to 16 and a label.
_SHA256 = "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"
_MEAN = 0.3053
_STD = 0.3759


class Digits(ImageDataModule):
    """1,797 images of handwritten digits, 8 x 8, grey.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI;
    the part that scikit-learn's `load_digits` gives.

    Args:
        batch_size: training images a step.
        num_workers: taken for the sake of the interface; this file needs none.
        num_val: validation images, or the fraction of those that are no test images.
        pin_memory: page-locked batches where a CUDA device is.
        test_fraction: of all images.
        split_seed: decides the splits.
        image_size: pixels a side to scale to; None for the images' own.
        demand: what a network insists on.

    Attributes:
        source: the name that `[data] source` knows it by.
    """

    source = "digits"

    def __init__(
        self,
        batch_size: int = 64,
        num_workers: int | None = None,
        num_val: int | float = 0.1,
        pin_memory: bool = False,
        *,
        test_fraction: float = 0.2,
        split_seed: int = 0,
        image_size: int | None = None,
        demand: InputRequirements | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            num_workers=num_workers,
            pin_memory=pin_memory,
            split_seed=split_seed,
            image_size=image_size,
            demand=demand,
        )
        self.num_val = num_val
        self.test_fraction = test_fraction

    def read(self) -> SourceImages:
        """Read scikit-learn's file, without importing scikit-learn."""
        pixels, labels = read_digits(digits_file())
        spec = settle_spec(
            "L", (8, 8), (_MEAN,), (_STD,), demand=self.demand, image_size=self.image_size
        )
        generator = seeded(self.split_seed)
        targets = torch.from_numpy(labels)
        everything = torch.arange(len(targets))
        test, rest = hold_out(targets, everything, self.test_fraction, "test_fraction", generator)
        val, train = hold_out(targets, rest, self.num_val, "num_val", generator)
        return SourceImages(
            train=grey_split(pixels[train], labels[train], spec),
            val=grey_split(pixels[val], labels[val], spec),
            test=grey_split(pixels[test], labels[test], spec),
            spec=spec,
            class_names=tuple("0123456789"),
        )


def digits_file() -> Path:
    """Find scikit-learn's table; importing scikit-learn would take a second.

    Returns:
        The path of the gzipped table.

    Raises:
        DataError: scikit-learn is not installed.
    """
    found = importlib.util.find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        raise DataError(
            "source = digits: scikit-learn is not installed", hint="pip install scikit-learn"
        )
    return Path(found.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"


def read_digits(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read the table.

    Args:
        path: the gzipped table.

    Returns:
        Images, uint8, (1797, 8, 8), on the scale of 0 to 255; labels, int64, (1797,).

    Raises:
        DataError: the file is missing or is not the one that is known.
    """
    try:
        text = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise DataError(
            f"source = digits: cannot read {path}: {error}", hint="reinstall scikit-learn"
        ) from error
    if hashlib.sha256(text).hexdigest() != _SHA256:
        raise DataError(
            f"source = digits: {path} is not the file that is known",
            hint="reinstall scikit-learn",
        )
    table = np.loadtxt(text.decode().splitlines(), delimiter=",", dtype=np.int64)
    levels = (table[:, :-1] * 255 + 8) // 16
    return levels.astype(np.uint8).reshape(-1, 8, 8), table[:, -1].copy()
