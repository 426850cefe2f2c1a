"""Images by the name of their source, as data sets and as fast loaders; loaded when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mindtrace.data.batches import DataDigests, ImageSplit
    from mindtrace.data.datamodule import ImageDataModule, build_data
    from mindtrace.data.datasets import MNIST, Digits, FashionMNIST, TorchvisionImages
    from mindtrace.data.folder import ImageFolder
    from mindtrace.preprocess import InputRequirements

# torch and Lightning are behind all of them.
_MODULES = {
    "DataDigests": "mindtrace.data.batches",
    "Digits": "mindtrace.data.datasets",
    "FashionMNIST": "mindtrace.data.datasets",
    "ImageDataModule": "mindtrace.data.datamodule",
    "ImageFolder": "mindtrace.data.folder",
    "ImageSplit": "mindtrace.data.batches",
    "MNIST": "mindtrace.data.datasets",
    "InputRequirements": "mindtrace.preprocess",
    "TorchvisionImages": "mindtrace.data.datasets",
    "build_data": "mindtrace.data.datamodule",
}

__all__ = [
    "MNIST",
    "DataDigests",
    "Digits",
    "FashionMNIST",
    "ImageDataModule",
    "ImageFolder",
    "ImageSplit",
    "InputRequirements",
    "TorchvisionImages",
    "build_data",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'mindtrace.data' has no attribute '{name}'")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
