"""mindtrace: from an INI file to a served image classifier; names are loaded when first used."""

import importlib
import os
from typing import TYPE_CHECKING, Any

from mindtrace.version import VERSION

if TYPE_CHECKING:
    from mindtrace.config.config import Config
    from mindtrace.config.settings import Settings, load_settings
    from mindtrace.errors import MindtraceError
    from mindtrace.service.predict import LoadedModel, Prediction
    from mindtrace.service.registry_api import Registry, load, train
    from mindtrace.service.train import TrainOutcome

# Nothing calls home. These libraries read it while they are imported.
for _name in ("ORT_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_name, "1")

_HOMES = {
    "Config": "mindtrace.config.config",
    "LoadedModel": "mindtrace.service.predict",
    "MindtraceError": "mindtrace.errors",
    "Prediction": "mindtrace.service.predict",
    "Registry": "mindtrace.service.registry_api",
    "Settings": "mindtrace.config.settings",
    "TrainOutcome": "mindtrace.service.train",
    "load": "mindtrace.service.registry_api",
    "load_settings": "mindtrace.config.settings",
    "train": "mindtrace.service.registry_api",
}

__version__ = VERSION

__all__ = [
    "Config",
    "LoadedModel",
    "MindtraceError",
    "Prediction",
    "Registry",
    "Settings",
    "TrainOutcome",
    "__version__",
    "load",
    "load_settings",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mindtrace' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
