"""Data sets by name: torchvision's, read through torchvision, and scikit-learn's digits."""

import contextlib
import gzip
import importlib.util
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mindtrace.config.config import Config
from mindtrace.config.urls import masked
from mindtrace.data.batches import ImageSplit, channel_statistics
from mindtrace.data.datamodule import ImageDataModule, SourceImages
from mindtrace.data.download import downloads
from mindtrace.data.folder import load
from mindtrace.data.listing import ListedImage, Listing, Stage
from mindtrace.data.split import BY_COUNT
from mindtrace.errors import DataError, DownloadError, UsageError
from mindtrace.preprocess import ImageSpec, Mode, image_digest, resized
from mindtrace.system import file_lock

_DIGITS = tuple("0123456789")
# What torchvision raises on files that are missing, damaged or cannot be downloaded.
_FAULTS = (
    *(RuntimeError, OSError, ValueError, TypeError, AssertionError, KeyError, EOFError),
    *(tarfile.TarError, zipfile.BadZipFile),
)


@dataclass(frozen=True)
class _Source:
    """A data set of torchvision."""

    dataset: str  # torchvision's class
    folder: str  # of its files, below `[DIR_PATHS] DATA`
    archives: str  # below the same: what torchvision unpacks
    splits: Mapping[Stage, Mapping[str, Any]]  # the arguments that give the parts it has
    mnist_kind: bool = False  # validates on 5,000 images, not a tenth
    mirrored: bool = True  # all its files can come from one other folder
    names: tuple[str, ...] | None = None  # of classes; None for torchvision's
    # Mean and deviation of the training images; None computes them.
    statistics: tuple[tuple[float], tuple[float]] | None = None


_FLAG: dict[Stage, dict[str, Any]] = {"train": {"train": True}, "test": {"train": False}}
_NAME: dict[Stage, dict[str, Any]] = {"train": {"split": "train"}, "test": {"split": "test"}}
_NAMES: dict[Stage, dict[str, Any]] = {**_NAME, "val": {"split": "val"}}
_TRAINVAL: dict[Stage, dict[str, Any]] = {**_NAME, "train": {"split": "trainval"}}
_BALANCED: dict[Stage, dict[str, Any]] = {
    stage: {"split": "balanced", **arguments} for stage, arguments in _FLAG.items()
}


def _mnist_kind(dataset: str, archives: str = "*.gz", **about: Any) -> _Source:
    folder = f"{dataset}/raw"
    about = {"splits": _FLAG, "mnist_kind": True, **about}
    return _Source(dataset, folder, f"{folder}/{archives}", **about)


SOURCES = {
    "mnist": _mnist_kind("MNIST", names=_DIGITS, statistics=((0.1307,), (0.3081,))),
    "fashion_mnist": _mnist_kind("FashionMNIST", statistics=((0.2860,), (0.3530,))),
    "kmnist": _mnist_kind("KMNIST"),
    "emnist": _mnist_kind("EMNIST", "*.zip", splits=_BALANCED),
    "cifar10": _Source("CIFAR10", "cifar-10-batches-py", "cifar-10-python.tar.gz", _FLAG),
    "cifar100": _Source("CIFAR100", "cifar-100-python", "cifar-100-python.tar.gz", _FLAG),
    "svhn": _Source("SVHN", "", "*_32x32.mat", _NAME, names=_DIGITS),
    "flowers102": _Source("Flowers102", "flowers-102", "flowers-102/*.tgz", _NAMES, mirrored=False),
    "oxford_iiit_pet": _Source(
        "OxfordIIITPet", "oxford-iiit-pet", "oxford-iiit-pet/*.tar.gz", _TRAINVAL, mirrored=False
    ),
    "eurosat": _Source("EuroSAT", "eurosat", "eurosat/*.zip", {"train": {}}, mirrored=False),
    "food101": _Source("Food101", "food-101", "food-101.tar.gz", _NAME, mirrored=False),
}


class TorchvisionImages(ImageDataModule):
    """A data set of torchvision by its name in `[data] source`.

    The splits of the data set are kept; what it lacks is drawn from its training images. Files
    are downloaded to `data_dir` in torchvision's own layout if they are not there; torchvision
    verifies the checksums. emnist is its split `balanced`, upright.

    Args:
        source: one of `SOURCES`.
        data_dir: holds the files; None for `[DIR_PATHS] DATA`.
        mirror: address of a folder with the files, for the MNIST kinds, CIFAR and SVHN; None for
            torchvision's own addresses.
        num_train: training images; None for all that are not held out.
        num_val: None for 5,000 of the MNIST kinds and a tenth elsewhere, where it is a fraction.
        **options: of `ImageDataModule`.
    """

    def __init__(
        self,
        source: str,
        *,
        data_dir: str | Path | None = None,
        mirror: str | None = None,
        num_train: int | None = None,
        num_val: int | float | None = None,
        **options: Any,
    ) -> None:
        self.source, self._about = source, SOURCES[source]
        default = 5_000 if self._about.mnist_kind else 0.1
        super().__init__(num_val=default if num_val is None else num_val, **options)
        self.split_rule = BY_COUNT if self._about.mnist_kind else self.split_rule
        self.num_train = num_train
        data_dir = Config()["DIR_PATHS"]["DATA"] if data_dir is None else data_dir
        self.data_dir = Path(data_dir).expanduser().absolute()
        self.mirror = mirror
        if mirror is not None and not self._about.mirrored:
            message = f"[data] mirror: torchvision downloads {source} from one address only"
            hint = f"remove it, or put the files into {self._folder} by hand"
            raise UsageError(message, hint=hint)
        self._parts: dict[Stage, Any] | None = None

    def prepare_data(self) -> None:
        """Open the files; download them first if they are missing or damaged."""
        if self._images is None and self._parts is None:
            self._parts = self._opened() or self._downloaded()

    def read(self) -> SourceImages:
        """Draw what the data set does not split, and bring the images into the network's size."""
        self.prepare_data()
        assert self._parts is not None
        parts, self._parts = self._parts, None
        names = self._about.names or tuple(next(iter(parts.values())).classes)
        labels = {
            stage: np.asarray(_first(part, "targets", "labels", "_labels"), np.int64)
            for stage, part in parts.items()
        }
        for found in labels.values():
            if len(found) and not 0 <= found.min() <= found.max() < len(names):
                wrong = f"label {found.max()}, expected 0 to {len(names) - 1}"
                raise DataError(f"{self.source}: {wrong}")
        if not hasattr(parts["train"], "data"):
            images = []
            for stage, part in parts.items():
                files = _first(part, "imgs", "_image_files", "_images")
                for file, label in zip(files, labels[stage].tolist(), strict=True):
                    path = str(file[0] if isinstance(file, tuple) else file)  # or (path, label)
                    name = path[len(str(self._folder)) + 1 :]
                    images.append(ListedImage(path, name, stage, names[label]))
            listing = Listing(self._folder, names, dict.fromkeys(parts, names), images)
            return load(self, listing, self.data_dir / "cache")
        for stage, part in parts.items():
            if len(part.data) != (count := len(labels[stage])):
                both = f"{len(part.data):,} images, {count:,} labels"
                raise DataError(f"{self.source}, {stage}: {both}")
        pixels = np.concatenate([self._pixels(part) for part in parts.values()])
        counts = {stage: len(found) for stage, found in labels.items()}
        whole = np.concatenate(list(labels.values()))
        return _in_memory(self, pixels, whole, counts, names, self._about.statistics)

    def _pixels(self, part: Any) -> NDArray[np.uint8]:
        """The images of a part in memory: (n, h, w) or (n, h, w, 3)."""
        pixels = np.asarray(part.data)
        if self.source == "emnist":
            return pixels.transpose(0, 2, 1)  # its files hold columns before rows
        return pixels.transpose(0, 2, 3, 1) if self.source == "svhn" else pixels

    def _opened(self) -> dict[Stage, Any] | None:
        """The parts; None if torchvision cannot read them."""
        try:
            return self._read(self.data_dir)
        except _FAULTS:
            return None

    def _read(self, folder: Path, **options: Any) -> dict[Stage, Any]:
        dataset = self._dataset()
        return {
            stage: dataset(folder, **options, **arguments)
            for stage, arguments in self._about.splits.items()
        }

    def _dataset(self) -> Any:
        """torchvision's class, with the addresses of the mirror."""
        import torchvision.datasets

        found = getattr(torchvision.datasets, self._about.dataset)
        if self.mirror is None:
            return found
        base = self.mirror.rstrip("/")
        changes: dict[str, Any] = {"mirrors": [f"{base}/"]}
        if hasattr(found, "url"):
            changes["url"] = f"{base}/{found.url.rpartition('/')[2]}"
        elif hasattr(found, "split_list"):
            changes["split_list"] = {
                name: [f"{base}/{file}", file, md5]
                for name, (_, file, md5) in found.split_list.items()
            }
        # Of the same name: MNIST's folder is called after its class.
        return type(found.__name__, (found,), changes)

    def _downloaded(self) -> dict[Stage, Any]:
        """Download and unpack aside, then rename: a killed download leaves nothing half done."""
        by_hand = any(self.data_dir.glob(self._about.archives))
        if self._about.mnist_kind and by_hand and not os.access(self.data_dir, os.W_OK):
            with tempfile.TemporaryDirectory() as folder:
                return self._fill(Path(folder))  # these are read into memory
        aside = self.data_dir / f".{self.source}.new"
        waiting = f"waiting for another process that downloads {self.source}"
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            lock = self.data_dir / ".lock"
            with file_lock(lock, on_wait=lambda: self.progress.stage(waiting)):
                if (found := self._opened()) is not None:
                    return found  # by another process in the meantime
                shutil.rmtree(aside, ignore_errors=True)
                try:
                    self._fill(aside)
                    self._folder.mkdir(parents=True, exist_ok=True)
                    for path in (aside / self._about.folder).iterdir():
                        target = self._folder / path.name
                        if target.is_dir():
                            shutil.rmtree(target)
                        path.replace(target)
                finally:
                    shutil.rmtree(aside, ignore_errors=True)
                return self._read(self.data_dir)
        except OSError as error:
            message = f"cannot write into {self.data_dir}: {error.strerror or error}"
            hint = "--set DIR_PATHS.DATA=FOLDER  # keeps them elsewhere"
            raise DownloadError(message, hint=hint) from error

    def _fill(self, aside: Path) -> dict[Stage, Any]:
        """Have torchvision unpack or download everything; archives put by hand are used."""
        for archive in self.data_dir.glob(self._about.archives):
            copy = aside / archive.relative_to(self.data_dir)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(archive, copy)
            if self._about.archives.endswith("raw/*.gz"):
                # Compressed again by somebody is as good; gzip has a checksum of its own.
                with contextlib.suppress(OSError, EOFError, zlib.error):
                    copy.with_suffix("").write_bytes(gzip.decompress(archive.read_bytes()))
        aside.mkdir(exist_ok=True)
        try:
            with downloads(self.source, self.mirror, self.progress):
                return self._read(aside, download=True)
        except _FAULTS as error:
            here, mirror, reason = "", "", masked(" ".join(str(error).split()))
            if self._about.folder and self._folder.is_dir() and any(self._folder.iterdir()):
                here = f"the files in {self._folder} are incomplete or damaged; "
            if self._about.mirrored:
                mirror = "set [data] mirror to an address that has the files, "
            raise DownloadError(
                f"{here}cannot download {self.source}: {reason or type(error).__name__}",
                hint=f"{mirror}put them into {self._folder} by hand, "
                "or use source = digits, which needs no network",
            ) from error

    @property
    def _folder(self) -> Path:
        return self.data_dir / self._about.folder


def _first(part: Any, *names: str) -> Any:
    """The first of these attributes that a data set of torchvision has."""
    return next(getattr(part, name) for name in names if hasattr(part, name))


class MNIST(TorchvisionImages):
    """60,000 training and 10,000 test images of handwritten digits, 28 x 28, grey.

    `MNIST().train` and the others are data sets of (image, label); see `ImageDataModule`. The
    files are `<data_dir>/MNIST/raw/train-images-idx3-ubyte` and its three neighbours, gzipped or
    not; they are downloaded if they are not there.

    Source: Y. LeCun, C. Cortes, C. Burges.

    Args:
        batch_size: training images a step.
        num_workers: accepted for the sake of the interface; these files need none.
        num_train: training images; None for all that are not validation images.
        num_val: validation images, or the fraction of the training file.
        pin_memory: page-locked batches where there is a CUDA device.
        data_dir: holds the folder `MNIST`; None for `[DIR_PATHS] DATA`.
        **options: of `TorchvisionImages` and `ImageDataModule`.
    """

    source = "mnist"

    def __init__(
        self,
        batch_size: int = 64,
        num_workers: int | None = None,
        num_train: int | None = 55_000,
        num_val: int | float = 5_000,
        pin_memory: bool = False,
        data_dir: str | Path | None = None,
        **options: Any,
    ) -> None:
        options |= {"batch_size": batch_size, "num_workers": num_workers, "pin_memory": pin_memory}
        options |= {"num_train": num_train, "num_val": num_val, "data_dir": data_dir}
        super().__init__(type(self).source, **options)


class FashionMNIST(MNIST):
    """60,000 training and 10,000 test images of clothes, 28 x 28, grey; arguments as MNIST's.

    Source: H. Xiao, K. Rasul, R. Vollgraf, arXiv:1708.07747.
    """

    source = "fashion_mnist"


class Digits(ImageDataModule):
    """1,797 images of handwritten digits, 8 x 8, grey; they come with scikit-learn.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI;
    the part that scikit-learn's `load_digits` gives.

    Arguments as `ImageDataModule`'s.
    """

    source = "digits"
    split_rule = BY_COUNT

    def read(self) -> SourceImages:
        """Read scikit-learn's file, without importing scikit-learn."""
        pixels, labels = read_digits()
        statistics = (0.3053,), (0.3759,)
        return _in_memory(self, pixels, labels, {"train": len(labels)}, _DIGITS, statistics)


def read_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The images of scikit-learn's table, uint8 (1797, 8, 8), 0 to 255, and their labels."""
    # Importing scikit-learn would take a second.
    found = importlib.util.find_spec("sklearn")
    assert found and found.submodule_search_locations
    file = Path(found.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    table = np.loadtxt(file, delimiter=",", dtype=np.int64)  # which unpacks it
    levels = (table[:, :-1] * 255 + 8) // 16  # of 16
    return levels.astype(np.uint8).reshape(-1, 8, 8), table[:, -1].copy()


def _in_memory(
    data: ImageDataModule,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    counts: Mapping[Stage, int],
    class_names: tuple[str, ...],
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None,
) -> SourceImages:
    """Split images of one size, (n, h, w[, 3]), and bring them into the network's size."""
    digests = [image_digest(one) for one in pixels]
    division = data.divide(torch.from_numpy(labels), counts, digests)
    if statistics is None:
        train = pixels[division.parts["train"].numpy()]
        planes = train[:, None] if train.ndim == 3 else train.transpose(0, 3, 1, 2)
        statistics = channel_statistics(torch.from_numpy(planes))
    height, width = pixels.shape[1:3]
    mode: Mode = "L" if pixels.ndim == 3 else "RGB"
    spec = data.resolve_spec(ImageSpec(mode, height, width, *statistics))
    images = torch.from_numpy(_scaled(pixels, spec))
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
    known = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
    splits = {}
    for stage, part in division.parts.items():
        # Three equal channels are one channel seen three times: they take no memory.
        own = images[part].contiguous().expand(-1, spec.channels, -1, -1)
        splits[stage] = ImageSplit(own, torch.from_numpy(labels)[part], spec, known[part.numpy()])
    notes = division.notes("image {}".format)
    return SourceImages(splits, spec, class_names, notes, counts.keys())


def _scaled(pixels: NDArray[np.uint8], spec: ImageSpec) -> NDArray[np.uint8]:
    """The images in the size of `spec`, and grey if it is, by the resize of predict and serve."""
    grey = pixels.ndim == 3 or spec.mode == "L"
    if pixels.shape[1:3] == (spec.height, spec.width) and grey == (pixels.ndim == 3):
        return pixels
    out = np.empty((len(pixels), spec.height, spec.width, *(() if grey else (3,))), np.uint8)
    for place, one in enumerate(pixels):
        out[place] = resized(Image.fromarray(one).convert("L" if grey else "RGB"), spec)
    return out
