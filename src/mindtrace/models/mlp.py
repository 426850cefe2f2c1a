"""The multi-layer perceptron: the network of the starter, and the default."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from mindtrace.bundle.card import ModelCard
from mindtrace.models.classifier import ImageClassifier
from mindtrace.preprocess import ImageSpec

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
        card = ModelCard("mlp", arguments, spec, names)
        super().__init__(mlp(dim, dropout), card, lr=_LR, schedule="one_cycle")
