"""mindtrace: from an INI file to a served image classifier; names are loaded when first used."""

import os
from typing import TYPE_CHECKING

import lazy_loader

from mindtrace.version import VERSION

if TYPE_CHECKING:
    from mindtrace.config.config import Config as Config
    from mindtrace.config.settings import Settings as Settings, load_settings as load_settings
    from mindtrace.errors import MindtraceError as MindtraceError
    from mindtrace.service.predict import LoadedModel as LoadedModel, Prediction as Prediction
    from mindtrace.service.registry_api import Registry as Registry, load as load, train as train
    from mindtrace.service.train import TrainOutcome as TrainOutcome

# Nothing calls home. These libraries read it while they are imported.
for _name in ("ORT_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_name, "1")

__version__ = VERSION
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config.config": ["Config"],
        "config.settings": ["Settings", "load_settings"],
        "errors": ["MindtraceError"],
        "service.predict": ["LoadedModel", "Prediction"],
        "service.registry_api": ["Registry", "load", "train"],
        "service.train": ["TrainOutcome"],
    },
)
__all__ += ["__version__"]
