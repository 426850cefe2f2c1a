"""Room data: settings come in, the data module of their source goes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mindtrace.data.base import ImageDataModule
from mindtrace.data.digits import Digits
from mindtrace.data.folder import ImageFolder
from mindtrace.data.mnist import MNIST, FashionMNIST
from mindtrace.errors import UsageError, listed
from mindtrace.preprocess import InputRequirements

if TYPE_CHECKING:
    from mindtrace.config.settings import Settings

_MNIST_KINDS: dict[str, type[MNIST]] = {kind.source: kind for kind in (MNIST, FashionMNIST)}


def build_data(settings: Settings, demand: InputRequirements | None = None) -> ImageDataModule:
    """The data module of `[data] source`; nothing is read or downloaded yet.

    Args:
        settings: `[data]`, `[compute] pin_memory`, and where downloads go.
        demand: what the network insists on.

    Returns:
        A data module whose first use fetches and reads the images.

    Raises:
        UsageError: no such source, or `folder` without `[data] dir`.
    """
    module = _module(settings, demand)
    module.augment = settings.data.augment
    return module


def _module(settings: Settings, demand: InputRequirements | None) -> ImageDataModule:
    data, pin_memory = settings.data, settings.compute.pin_memory
    if data.source in _MNIST_KINDS:
        return _MNIST_KINDS[data.source](
            data.batch_size,
            data.num_workers,
            None,
            5_000 if data.num_val is None else data.num_val,
            pin_memory,
            settings.dirs.data,
            split_seed=data.split_seed,
            image_size=data.image_size,
            demand=demand,
            mirror=data.mirror,
        )
    num_val = 0.1 if data.num_val is None else data.num_val
    if data.source == Digits.source:
        return Digits(
            data.batch_size,
            data.num_workers,
            num_val,
            pin_memory,
            test_fraction=data.test_fraction,
            split_seed=data.split_seed,
            image_size=data.image_size,
            demand=demand,
        )
    if data.source != ImageFolder.source:
        sources = [*_MNIST_KINDS, Digits.source, ImageFolder.source]
        raise UsageError(f"[data] source = {data.source}: one of {listed(sources)}")
    if data.dir is None:
        raise UsageError("[data] source = folder needs [data] dir")
    return ImageFolder(
        data.dir,
        data.batch_size,
        data.num_workers,
        num_val,
        pin_memory,
        test_fraction=data.test_fraction,
        split_seed=data.split_seed,
        image_size=data.image_size,
        demand=demand,
        cache_dir=settings.dirs.data / "cache",
    )
