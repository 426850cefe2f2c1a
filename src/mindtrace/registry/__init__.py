"""Versions in MLflow. Exports load on first use, since MLflow takes a second to import."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mindtrace.registry.callbacks import MlflowLightningCallback as MlflowLightningCallback

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"callbacks": ["MlflowLightningCallback"]}
)
