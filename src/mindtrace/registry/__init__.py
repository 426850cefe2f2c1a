"""Versions in MLflow, loaded on first use, since MLflow takes a second to import."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mindtrace.registry import evaluation, maintenance, reproduce
    from mindtrace.registry.callbacks import MlflowLightningCallback as MlflowLightningCallback

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    ["evaluation", "maintenance", "reproduce"],
    submod_attrs={"callbacks": ["MlflowLightningCallback"]},
)
__all__ = ["MlflowLightningCallback"]
