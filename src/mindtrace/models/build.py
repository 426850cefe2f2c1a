"""From `[model]` to an untrained `ImageClassifier`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from mindtrace.bundle.card import ModelCard
from mindtrace.config.settings import ModelSettings, TrainSettings
from mindtrace.models.classifier import ImageClassifier
from mindtrace.models.cnn import CNN_WIDTHS, cnn
from mindtrace.models.layout import fit_layout
from mindtrace.models.mlp import mlp
from mindtrace.models.vision import network_demand, vision
from mindtrace.models.weights import freeze, start_from
from mindtrace.preprocess import ImageSpec

__all__ = ["build_model", "build_network", "network_demand"]


def build_model(
    settings: ModelSettings, train: TrainSettings, spec: ImageSpec, class_names: Sequence[str]
) -> ImageClassifier:
    """A network of `[model]`, to be trained as `[train]` says.

    Fresh weights are drawn from torch's global random state: seed it first.

    Raises:
        UsageError: `[model] weights` are missing, or of another network.
        DownloadError: `weights = default` cannot be fetched.
    """
    arguments = network_arguments(settings, spec, len(class_names))
    card = ModelCard(settings.name, arguments, spec, tuple(class_names))
    network = fit_layout(build_network(settings.name, arguments))
    start_from(network, settings)
    model = ImageClassifier(network, card, lr=train.lr, schedule=train.schedule)
    if settings.freeze:
        model.frozen = freeze(network)
    return model


def build_network(architecture: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The bare network of a `model.json`."""
    if architecture == "mlp":
        return mlp(**arguments)
    if architecture == "cnn":
        return cnn(**arguments)
    return vision(architecture, **arguments)


def network_arguments(settings: ModelSettings, spec: ImageSpec, classes: int) -> dict[str, Any]:
    """What the network of `[model]` is built with for these images."""
    if settings.name == "mlp":
        inputs = spec.channels * spec.height * spec.width
        return {"dim": [inputs, settings.hidden, classes], "dropout": settings.dropout}
    if settings.name == "cnn":
        return {
            "channels": spec.channels,
            "classes": classes,
            "dropout": settings.dropout,
            "widths": list(CNN_WIDTHS),
        }
    return {"channels": spec.channels, "classes": classes}
