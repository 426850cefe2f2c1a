"""Images by the name of their source, as data sets and as fast loaders; loaded when first used."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mindtrace.data.batches import DataDigests as DataDigests, ImageSplit as ImageSplit
    from mindtrace.data.datamodule import (
        ImageDataModule as ImageDataModule,
        build_data as build_data,
    )
    from mindtrace.data.datasets import (
        MNIST as MNIST,
        Digits as Digits,
        FashionMNIST as FashionMNIST,
        TorchvisionImages as TorchvisionImages,
    )
    from mindtrace.data.folder import ImageFolder as ImageFolder
    from mindtrace.data.table import ImageTable as ImageTable
    from mindtrace.preprocess import InputRequirements as InputRequirements

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "batches": ["DataDigests", "ImageSplit"],
        "datamodule": ["ImageDataModule", "InputRequirements", "build_data"],
        "datasets": ["MNIST", "Digits", "FashionMNIST", "TorchvisionImages"],
        "folder": ["ImageFolder"],
        "table": ["ImageTable"],
    },
)
