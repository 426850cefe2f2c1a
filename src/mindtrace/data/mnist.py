"""Room data: MNIST and Fashion-MNIST, as torchvision's mirrors or a person's own copy have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from mindtrace.config.config import Config
from mindtrace.data.base import ImageDataModule, SourceImages
from mindtrace.data.download import Patience, RemoteFile, fetch, stored
from mindtrace.data.idx import read_idx
from mindtrace.data.images import grey_split
from mindtrace.data.spec import settle_spec
from mindtrace.data.split import count_of, draw, seeded
from mindtrace.errors import DataError, DownloadError, UsageError
from mindtrace.preprocess import InputRequirements

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]


class MNIST(ImageDataModule):
    """60,000 training and 10,000 test images of handwritten digits, 28 x 28, grey.

    The files are `<data_dir>/MNIST/raw/train-images-idx3-ubyte` and its three
    neighbours, gzipped or not; they are downloaded if they are not there. A source of
    the same format is a subclass with other class attributes.

    Source: Y. LeCun, C. Cortes, C. Burges. The digests are of the uncompressed files
    whose MD5 sums are published (6bbc9ace…, a25bea73…, 2646ac64…, 27ae3e4e…).

    Args:
        batch_size: training images a step.
        num_workers: taken for the sake of the interface; these files need none.
        num_train: training images; None for all that are not validation images.
        num_val: validation images, or the fraction of the training file.
        pin_memory: page-locked batches where a CUDA device is.
        data_dir: holds the source's folder; None for `[DIR_PATHS] DATA`.
        split_seed: decides which training images validate.
        image_size: pixels a side to scale to; None for the images' own.
        demand: what a network insists on.
        mirror: address of the folder with the files; None for torchvision's mirrors.
        patience: how long to try a download.

    Attributes:
        source: the name that `[data] source` knows it by.
        folder_name: of the folder in `data_dir`, and of torchvision's class.
        files: training images and labels, test images and labels.
        names: the class names.
        mean: of the training images, on the scale of [0, 1].
        std: like `mean`.
    """

    source = "mnist"
    folder_name: ClassVar[str] = "MNIST"
    files: ClassVar[tuple[RemoteFile, RemoteFile, RemoteFile, RemoteFile]] = (
        RemoteFile(
            "train-images-idx3-ubyte",
            47_040_016,
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        RemoteFile(
            "train-labels-idx1-ubyte",
            60_008,
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        RemoteFile(
            "t10k-images-idx3-ubyte",
            7_840_016,
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        RemoteFile(
            "t10k-labels-idx1-ubyte",
            10_008,
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    )
    names: ClassVar[tuple[str, ...]] = tuple("0123456789")
    mean: ClassVar[float] = 0.1307
    std: ClassVar[float] = 0.3081

    def __init__(
        self,
        batch_size: int = 64,
        num_workers: int | None = None,
        num_train: int | None = 55_000,
        num_val: int | float = 5_000,
        pin_memory: bool = False,
        data_dir: str | Path | None = None,
        *,
        split_seed: int = 0,
        image_size: int | None = None,
        demand: InputRequirements | None = None,
        mirror: str | None = None,
        patience: Patience | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            num_workers=num_workers,
            pin_memory=pin_memory,
            split_seed=split_seed,
            image_size=image_size,
            demand=demand,
        )
        self.num_train = num_train
        self.num_val = num_val
        self.data_dir = Path(Config()["DIR_PATHS"]["DATA"] if data_dir is None else data_dir)
        self.mirror = mirror
        self.patience = patience
        self._arrays: tuple[Arrays, Arrays] | None = None

    @property
    def raw_folder(self) -> Path:
        """Where the files are, or go."""
        return self.data_dir.expanduser() / self.folder_name / "raw"

    def prepare_data(self) -> None:
        """Make sure that the four files are there, whole; download those that are not.

        Raises:
            DownloadError: a file is missing or damaged and cannot be fetched.
        """
        if self._images is None and self._arrays is None:
            contents = [self._content(file) for file in self.files]
            self._arrays = (
                self._read_pair(contents[0], contents[1], self.files[:2]),
                self._read_pair(contents[2], contents[3], self.files[2:]),
            )

    def read(self) -> SourceImages:
        """Split the training file; the test file is the test split."""
        self.prepare_data()
        assert self._arrays is not None
        (pixels, labels), (test_pixels, test_labels) = self._arrays
        self._arrays = None
        height, width = pixels.shape[1:]
        spec = settle_spec(
            "L",
            (height, width),
            (self.mean,),
            (self.std,),
            demand=self.demand,
            image_size=self.image_size,
        )
        train, val = self._division(labels)
        return SourceImages(
            train=grey_split(pixels[train], labels[train], spec),
            val=grey_split(pixels[val], labels[val], spec),
            test=grey_split(test_pixels.copy(), test_labels, spec),
            spec=spec,
            class_names=self.names,
        )

    def _division(self, labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indices of the training and of the validation images."""
        generator = seeded(self.split_seed)
        targets = torch.from_numpy(labels)
        num_val = count_of(self.num_val, len(labels), "num_val")
        val, rest = draw(targets, num_val, generator)
        if self.num_train is not None:
            surplus = len(rest) - self.num_train
            if surplus < 0 or self.num_train < 1:
                raise UsageError(
                    f"num_train = {self.num_train:,} and num_val = {num_val:,}: "
                    f"{self.source} has {len(labels):,} training images"
                )
            _, kept = draw(targets[rest], surplus, generator)
            rest = rest[kept]
        return rest.numpy(), val.numpy()

    def _content(self, file: RemoteFile) -> bytes:
        content, reason = stored(file, self.raw_folder)
        if content is not None:
            return content
        try:
            return fetch(file, self.raw_folder, self._mirrors(), self.patience)
        except DownloadError as error:
            if reason is None:
                raise
            raise DownloadError(f"{reason}; {error.message}", hint=error.hint) from error

    def _mirrors(self) -> Sequence[str]:
        if self.mirror is not None:
            return [self.mirror]
        # Only a download needs to know them, and torchvision takes a second to import.
        import torchvision.datasets

        mirrors: list[str] = getattr(torchvision.datasets, self.folder_name).mirrors
        return mirrors

    def _read_pair(self, images: bytes, labels: bytes, files: Sequence[RemoteFile]) -> Arrays:
        pixels = read_idx(images, files[0].name, ndim=3)
        targets = read_idx(labels, files[1].name, ndim=1)
        if len(pixels) != len(targets):
            raise DataError(
                f"{files[0].name}: {len(pixels):,} images, {files[1].name}: {len(targets):,} labels"
            )
        if len(targets) and targets.max() >= len(self.names):
            raise DataError(
                f"{files[1].name}: label {targets.max()}, expected 0 to {len(self.names) - 1}"
            )
        return pixels, targets.astype(np.int64)


class FashionMNIST(MNIST):
    """60,000 training and 10,000 test images of clothes, 28 x 28, grey.

    Source: H. Xiao, K. Rasul, R. Vollgraf, arXiv:1708.07747. The digests are of the
    uncompressed files whose MD5 sums are f4a8712d…, 9018921c…, 8181f547…, 15d48437…
    """

    source = "fashion_mnist"
    folder_name = "FashionMNIST"
    files = (
        RemoteFile(
            "train-images-idx3-ubyte",
            47_040_016,
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        RemoteFile(
            "train-labels-idx1-ubyte",
            60_008,
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        RemoteFile(
            "t10k-images-idx3-ubyte",
            7_840_016,
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        RemoteFile(
            "t10k-labels-idx1-ubyte",
            10_008,
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    )
    names = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
    mean = 0.2860
    std = 0.3530
