"""The networks that `[model] name` knows, and how to build them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mindtrace.bundle.model_config import ModelConfig
from mindtrace.config.sections import VISION_NAMES, ModelSettings, TrainSettings
from mindtrace.errors import UsageError
from mindtrace.models.classifier import ImageClassifier
from mindtrace.models.weights import freeze, start_from
from mindtrace.preprocess import ImageSpec, InputRequirements

# MNIST's mean and deviation over its 60,000 training images, on the scale of [0, 1].
_MNIST = ImageSpec("L", 28, 28, mean=(0.1307,), std=(0.3081,))

# The best of a few peaks tried on MNIST for one epoch of batches of 64; longer trainings
# were not compared.
_LR = 4e-3


def mlp(dim: Sequence[int], dropout: float) -> nn.Sequential:
    """Linear layers with ReLU and dropout between them, and neither after the last.

    Args:
        dim: inputs, hidden sizes, classes.
        dropout: the fraction of hidden values dropped in training.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(dim[:-1]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(dim[-2], dim[-1]))


class MLP(ImageClassifier):
    """A trainable perceptron for MNIST, or for any other grey square image.

    Example:
        `Trainer(max_epochs=1).fit(MLP(), MNIST())`
    """

    def __init__(self, dim: Sequence[int] = (784, 100, 10), dropout: float = 0.2) -> None:
        """Build an untrained network.

        Args:
            dim: inputs (height x width), hidden sizes, classes.
            dropout: the fraction of hidden values dropped in training.

        Raises:
            ValueError: `dim` has no input and output, or its input is no square.
        """
        side = round(dim[0] ** 0.5) if dim else 0
        if len(dim) < 2 or side * side != dim[0]:
            raise ValueError(f"dim = {list(dim)}: wants [side * side, ..., classes]")
        spec = ImageSpec("L", side, side, _MNIST.mean, _MNIST.std)
        names = tuple(str(label) for label in range(dim[-1]))
        arguments = {"dim": list(dim), "dropout": dropout}
        card = ModelConfig("mlp", arguments, spec, names)
        super().__init__(mlp(dim, dropout), card, lr=_LR, schedule="one_cycle")


# What a convolution costs grows with the product of its widths and the pixels it sees.
CNN_WIDTHS = (24, 32, 56, 112)


def cnn(
    channels: int, classes: int, dropout: float, widths: Sequence[int] = CNN_WIDTHS
) -> nn.Sequential:
    """Four convolutions, each normalised; any input of 4 pixels a side or more.

    Args:
        channels: of the images, 1 or 3.
        classes: of the answer.
        dropout: the fraction of the last features dropped in training.
        widths: features after each convolution, four of them.
    """
    first, second, third, last = widths
    return nn.Sequential(
        *_block(channels, first, kernel=5, stride=2),
        *_block(first, second),
        *_block(second, third, nn.MaxPool2d(2)),
        *_block(third, last),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(last, classes),
    )


def _block(
    inputs: int, outputs: int, *pool: nn.Module, kernel: int = 3, stride: int = 1
) -> tuple[nn.Module, ...]:
    # Pooling comes first, so that normalisation and ReLU see a quarter of the values.
    # The convolution has no bias: the normalisation would take it out again.
    return (
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        *pool,
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


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


def input_requirements(settings: ModelSettings) -> InputRequirements | None:
    """What a network insists on about its input; None if any images will do.

    With given weights that is what they were trained on, by the weights' own transforms.
    """
    if settings.name not in VISION_NAMES:
        return None
    if settings.weights == "none":
        return InputRequirements(mode="RGB", min_side=32)
    if settings.weights != "default" and not Path(settings.weights).is_file():
        raise UsageError(f"[model] weights = {settings.weights}: no such file")
    import torchvision

    transform = torchvision.models.get_model_weights(settings.name).DEFAULT.transforms()
    return InputRequirements(
        mode="RGB",
        height=transform.crop_size[0],
        width=transform.crop_size[0],
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        resize="crop",
        short_side=transform.resize_size[0],
    )


def fit_layout(network: nn.Module) -> nn.Module:
    """Channels last where the network convolves: its kernels want them side by side.

    The values stay what they are, and images may come in any order.
    """
    convolves = any(isinstance(module, nn.Conv2d) for module in network.modules())
    return network.to(memory_format=torch.channels_last) if convolves else network


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
    card = ModelConfig(settings.name, arguments, spec, tuple(class_names))
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
