"""The order of a network's weights in memory."""

from __future__ import annotations

import torch
from torch import nn


def fit_layout(network: nn.Module) -> nn.Module:
    """Channels last where the network convolves: its kernels want them side by side.

    The values stay what they are, and images may come in any order.
    """
    convolves = any(isinstance(module, nn.Conv2d) for module in network.modules())
    return network.to(memory_format=torch.channels_last) if convolves else network
