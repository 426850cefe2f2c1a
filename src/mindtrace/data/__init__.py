"""Floor 5: a source's name comes in, image tensors in three splits come out.

Names only; each is loaded when it is first used, because torch and Lightning are
behind all of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mindtrace.data.base import ImageDataModule, InputRequirements
    from mindtrace.data.build import build_data
    from mindtrace.data.digits import Digits
    from mindtrace.data.folder import ImageFolder
    from mindtrace.data.images import DataDigests, ImageSplit
    from mindtrace.data.mnist import MNIST, FashionMNIST

_HOMES = {
    "DataDigests": "mindtrace.data.images",
    "Digits": "mindtrace.data.digits",
    "FashionMNIST": "mindtrace.data.mnist",
    "ImageDataModule": "mindtrace.data.base",
    "ImageFolder": "mindtrace.data.folder",
    "ImageSplit": "mindtrace.data.images",
    "MNIST": "mindtrace.data.mnist",
    "InputRequirements": "mindtrace.data.base",
    "build_data": "mindtrace.data.build",
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
    "build_data",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mindtrace.data' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
