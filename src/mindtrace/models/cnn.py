"""A small convolutional network: quick on two cores, 99 % on MNIST after one epoch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

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
