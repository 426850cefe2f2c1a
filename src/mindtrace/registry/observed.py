"""What a training of one's own really is, in the words of a configuration.

In: the configuration that was read, and the trainer, model and images that somebody put
together in Python. Out: settings that say what these are, as far as they tell.
"""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch

from mindtrace.config.settings import Settings
from mindtrace.data.base import ImageDataModule
from mindtrace.models import ImageClassifier

_DATA = ("batch_size", "num_val", "test_fraction", "split_seed", "image_size", "dir", "augment")
_PRECISIONS = {"32-true": "32", "bf16-mixed": "bf16"}
_DEVICES = ("cpu", "cuda", "mps")


def observed(settings: Settings, trainer: pl.Trainer, module: pl.LightningModule) -> Settings:
    """`settings` with what trainer, model and images are."""
    found = _of_trainer(trainer)
    data = getattr(trainer, "datamodule", None)
    if isinstance(data, ImageDataModule):
        found["data.source"] = data.source
        # A folder that the configuration names is none of a source that has none.
        found["data.dir"] = None
        found |= {f"data.{key}": getattr(data, key) for key in _DATA if hasattr(data, key)}
    if isinstance(module, ImageClassifier):
        found |= _of_model(module)
    return settings.replace(**found)


def _of_trainer(trainer: pl.Trainer) -> dict[str, Any]:
    found: dict[str, Any] = {"compute.threads": torch.get_num_threads()}
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        found["train.max_epochs"] = trainer.max_epochs
    device = trainer.strategy.root_device.type
    if device in _DEVICES:
        found["compute.device"] = device
    if trainer.precision in _PRECISIONS:
        found["compute.precision"] = _PRECISIONS[trainer.precision]
    return found


def _of_model(module: ImageClassifier) -> dict[str, Any]:
    arguments = module.model_config.arguments
    found: dict[str, Any] = {
        "model.name": module.model_config.architecture,
        "train.lr": module.lr,
        "train.schedule": module.schedule,
    }
    if "dropout" in arguments:
        found["model.dropout"] = arguments["dropout"]
    if len(arguments.get("dim", ())) == 3:
        found["model.hidden"] = arguments["dim"][1]
    return found
