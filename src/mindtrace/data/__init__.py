"""Images by the name of their source, as data sets and as fast loaders; loaded when first used."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mindtrace.data.batches import DataDigests, ImageSplit
    from mindtrace.data.datamodule import ImageDataModule, build_data
    from mindtrace.data.datasets import MNIST, Digits, FashionMNIST, TorchvisionImages
    from mindtrace.data.folder import ImageFolder
    from mindtrace.data.table import ImageTable
    from mindtrace.preprocess import InputRequirements

__all__ = [
    "MNIST",
    "DataDigests",
    "Digits",
    "FashionMNIST",
    "ImageDataModule",
    "ImageFolder",
    "ImageSplit",
    "ImageTable",
    "InputRequirements",
    "TorchvisionImages",
    "build_data",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in ("batches", "datamodule", "datasets", "folder", "table"):
            found = importlib.import_module(f"mindtrace.data.{module}")
            if hasattr(found, name):
                return getattr(found, name)
    raise AttributeError(f"module 'mindtrace.data' has no attribute '{name}'")
