"""Networks of torchvision, by name, with a last layer for our classes."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from mindtrace.config.settings import ModelSettings
from mindtrace.config.table import VISION_NAMES
from mindtrace.errors import UsageError
from mindtrace.preprocess import SpecDemand


def vision(architecture: str, channels: int, classes: int) -> nn.Module:
    """A torchvision network with random weights.

    Raises:
        UsageError: not one of `VISION_NAMES`, or images that are not in colour.
    """
    if architecture not in VISION_NAMES or channels != 3:
        raise UsageError(f"no network '{architecture}' for images of {channels} channels")
    import torchvision

    network: nn.Module = torchvision.models.get_model(
        architecture, weights=None, num_classes=classes
    )
    return network


def network_demand(settings: ModelSettings) -> SpecDemand | None:
    """What a network insists on about its input; None if any images will do.

    With given weights that is what they were trained on, by the weights' own transforms.
    """
    if settings.name not in VISION_NAMES:
        return None
    if settings.weights == "none":
        return SpecDemand(mode="RGB", min_side=32)
    if settings.weights != "default" and not Path(settings.weights).is_file():
        raise UsageError(f"[model] weights = {settings.weights}: no such file")
    import torchvision

    transform = torchvision.models.get_model_weights(settings.name).DEFAULT.transforms()
    return SpecDemand(
        mode="RGB",
        height=transform.crop_size[0],
        width=transform.crop_size[0],
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        resize="crop",
        short_side=transform.resize_size[0],
    )
