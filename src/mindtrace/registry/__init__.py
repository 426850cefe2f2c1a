"""Versions in MLflow. Exports load on first use, since MLflow takes a second to import."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mindtrace.registry.callbacks import MlflowLightningCallback

_HOMES = {"MlflowLightningCallback": "mindtrace.registry.callbacks"}

__all__ = ["MlflowLightningCallback"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mindtrace.registry' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
