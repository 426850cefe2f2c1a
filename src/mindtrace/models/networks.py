"""The networks that `[model] name` knows, and how to build them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from mindtrace.bundle.bundle import ModelConfig
from mindtrace.config.networks import OWN_NETWORKS
from mindtrace.config.sections import PHOTO_SOURCES, ModelSettings, TrainSettings
from mindtrace.config.settings import Settings
from mindtrace.errors import DownloadError, UsageError
from mindtrace.models import weights
from mindtrace.models.classifier import ImageClassifier
from mindtrace.preprocess import ImageSpec, InputRequirements, Resize

# MNIST's mean and deviation over its 60,000 training images, on the scale of [0, 1].
_MEAN, _STD = (0.1307,), (0.3081,)
# A convolution's cost grows with the product of its widths and the pixels it sees.
_CNN_WIDTHS = (24, 32, 56, 112)


class MLP(ImageClassifier):
    """A trainable multi-layer perceptron for MNIST, or for other grey square images.

    `forward(x)` gives logits and `predict(x)` class indices, see `ImageClassifier`.
    A PIL image or a uint8 array goes through MNIST's preprocessing first.

    Example:
        `Trainer(max_epochs=1).fit(MLP(), MNIST())`
    """

    def __init__(
        self,
        dim: Sequence[int] = (784, 100, 10),
        dropout: float = 0.2,
        *,
        lr: float = 1e-3,
        schedule: str = "constant",
    ) -> None:
        """Build an untrained network; a checkpoint keeps the arguments.

        Args:
            dim: inputs (height x width, a square number), hidden sizes, classes.
            dropout: the fraction of hidden values dropped in training, in [0, 1).
            lr: learning rate of AdamW; with `one_cycle` the peak.
            schedule: `constant` or `one_cycle`, over all steps of the trainer.

        Raises:
            ValueError: `dim` has no input and output, or its input is no square.
        """
        side = round(dim[0] ** 0.5) if dim else 0
        if len(dim) < 2 or side * side != dim[0]:
            raise ValueError(f"dim = {list(dim)}: wants [side * side, ..., classes]")
        arguments = {"dim": list(dim), "dropout": dropout}
        config = _grey_config("mlp", arguments, side, dim[-1])
        super().__init__(_mlp(dim, dropout), config, lr, schedule)
        self.save_hyperparameters()


class CNN(ImageClassifier):
    """A trainable convolutional network for MNIST, or for other grey square images.

    Example:
        `Trainer(max_epochs=1).fit(CNN(), MNIST(batch_size=128))`
    """

    def __init__(
        self,
        classes: int = 10,
        side: int = 28,
        dropout: float = 0.2,
        *,
        lr: float = 1e-3,
        schedule: str = "constant",
    ) -> None:
        """Build an untrained network; a checkpoint keeps the arguments.

        Args:
            classes: number of outputs.
            side: height and width of the images in pixels, 4 or more.
            dropout: the fraction of the last features dropped in training, in [0, 1).
            lr: learning rate of AdamW; with `one_cycle` the peak.
            schedule: `constant` or `one_cycle`, over all steps of the trainer.
        """
        widths = list(_CNN_WIDTHS)
        arguments = {"channels": 1, "classes": classes, "dropout": dropout, "widths": widths}
        network = build_network("cnn", arguments).to(memory_format=torch.channels_last)
        super().__init__(network, _grey_config("cnn", arguments, side, classes), lr, schedule)
        self.save_hyperparameters()


def build_model(
    settings: ModelSettings, train: TrainSettings, spec: ImageSpec, class_names: Sequence[str]
) -> ImageClassifier:
    """The network of `[model]`, ready to train; new weights come from torch's global seed."""
    arguments = _arguments(settings, spec, len(class_names))
    network = build_network(settings.name, arguments)
    # Convolutions run fastest in this order of weights.
    network.to(memory_format=torch.channels_last)
    tensors, about = weights.starting_weights(settings, spec.height, spec.width) or ({}, {})
    if tensors:
        weights.load_weights(network, settings, tensors)
    config = ModelConfig(settings.name, arguments, spec, tuple(class_names), about)
    model = ImageClassifier(network, config, lr=train.lr, schedule=train.schedule)
    model.weight_decay, model.mixup = train.weight_decay, train.mixup
    model.label_smoothing = train.label_smoothing
    if settings.freeze:
        model.frozen = weights.freeze(network)
    return model


def build_network(architecture: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The bare network of a `model.json`, with random weights."""
    if architecture == "mlp":
        return _mlp(**arguments)
    if architecture == "cnn":
        return _cnn(**arguments)
    import timm

    if not timm.is_model(architecture) or "num_classes" not in arguments:
        raise UsageError(f"timm has no network '{architecture}'")
    try:
        network: nn.Module = timm.create_model(architecture, pretrained=False, **arguments)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        message = f"[model] name = {architecture}: timm cannot build it for these images: {error}"
        hint = "leave [data] image_size blank for the size that the network has"
        raise UsageError(message, hint=hint) from error
    return network


def resolve_network(settings: Settings) -> tuple[Settings, str | None]:
    """`settings` with no `auto` left in `[model] weights` and `[data] resize`, and a warning."""
    model, warning, values = settings.model, None, dict[str, Any]()
    photos = settings.data.source in PHOTO_SOURCES and model.name not in OWN_NETWORKS
    if model.weights == "auto":
        values["model.weights"] = "default" if photos else "none"
    if model.weights == "auto" and photos:
        wanted = model.model_copy(update={"weights": "default"})
        requirements = input_requirements(wanted)
        assert requirements is not None
        side = settings.data.image_size
        sizes = side or requirements.height or 0, side or requirements.width or 0
        try:
            weights.starting_weights(wanted, *sizes)
        except DownloadError as error:
            warning = f"{error.message}: trained from scratch, without pretrained weights"
            values = {f"{section}.{key}": default for section, key, default in settings.recipe()}
            values |= {"model.weights": "none", "model.freeze": False}
            if not settings.given("model", "name"):
                values["model.name"] = "cnn"
    settings = settings.replace(**values)
    if settings.data.resize == "auto":
        requirements = input_requirements(settings.model)
        resize = (requirements and requirements.resize) or "stretch"
        settings = settings.replace(**{"data.resize": resize})
    return settings, warning


def input_requirements(settings: ModelSettings) -> InputRequirements | None:
    """What a network requires of its input; None if any images will do."""
    beside = weights.config_beside(settings.weights)
    if isinstance(beside, ModelConfig):
        return InputRequirements(**vars(beside.spec))
    if settings.name in OWN_NETWORKS:
        return None
    found = weights.data_config(settings.name, beside)
    own = {name: found[name] for name in ("interpolation", "crop_pct")}
    resize: Resize = "stretch" if found["crop_mode"] == "squash" else "crop"
    rules = InputRequirements(mode="RGB", resize=resize, min_side=32, **own)
    _, height, width = found["input_size"]
    if settings.weights in ("auto", "none"):
        # From scratch it learns from images of any size, unless it is built for one.
        return replace(rules, height=height, width=width) if found["fixed"] else rules
    own = {"height": height, "width": width, "mean": found["mean"], "std": found["std"]}
    return replace(rules, **own, min_side=None)


def _arguments(settings: ModelSettings, spec: ImageSpec, classes: int) -> dict[str, Any]:
    """What the network of `[model]` is built with for these images."""
    if settings.name == "mlp":
        inputs = spec.channels * spec.height * spec.width
        return {"dim": [inputs, settings.hidden, classes], "dropout": settings.dropout}
    if settings.name == "cnn":
        own = {"dropout": settings.dropout, "widths": list(_CNN_WIDTHS)}
        return {"channels": spec.channels, "classes": classes, **own}
    arguments: dict[str, Any] = {"in_chans": spec.channels, "num_classes": classes}
    if (size := weights.img_size(settings.name, spec.height, spec.width)) is not None:
        arguments["img_size"] = list(size)
    return arguments


def _grey_config(
    architecture: str, arguments: Mapping[str, Any], side: int, classes: int
) -> ModelConfig:
    """A configuration for square images that are preprocessed as MNIST's, classes by number."""
    names = tuple(str(label) for label in range(classes))
    return ModelConfig(architecture, arguments, ImageSpec("L", side, side, _MEAN, _STD), names)


def _mlp(dim: Sequence[int], dropout: float) -> nn.Sequential:
    """Linear layers with ReLU and dropout between them, and neither after the last."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(dim[:-1]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(dim[-2], dim[-1]))


def _cnn(
    channels: int, classes: int, dropout: float, widths: Sequence[int] = _CNN_WIDTHS
) -> nn.Sequential:
    """Four normalised convolutions and a linear layer; for 4 pixels a side or more."""
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
