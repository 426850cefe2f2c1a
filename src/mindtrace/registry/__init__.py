"""Versions in MLflow. Exports load on first use, since MLflow takes a second to import."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mindtrace.registry.callbacks import MlflowLightningCallback

__all__ = ["MlflowLightningCallback"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mindtrace.registry' has no attribute '{name}'")
    from mindtrace.registry import callbacks

    return getattr(callbacks, name)
