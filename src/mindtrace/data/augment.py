"""`[data] augment`: changes of the training images of a batch, drawn anew each epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

# A fraction of the side, and radians.
LARGEST_SHIFT = 1 / 14
LARGEST_TURN = math.radians(10)
DRAWS = 3


def light(images: Tensor, draws: Tensor) -> Tensor:
    """Turn each image about its centre and shift it, bilinear; what comes in is black.

    `images` are uint8, (n, channels, height, width), the result float32 in [0, 255]. `draws` are
    float32, (n, 3), in [-1, 1): of the largest turn, and of the largest shift across and down.
    """
    height, width = images.shape[2:]
    turn = draws[:, :1] * LARGEST_TURN
    cos, sin = turn.cos(), turn.sin()
    # grid_sample counts from -1 to 1 on both axes: a side is 2, the centre 0.
    shift = draws[:, 1:] * (2 * LARGEST_SHIFT)
    across, down = _centres(width), _centres(height)
    # Where each pixel comes from is one term of its column and one of its row, which
    # costs a quarter of torch's affine_grid.
    grid = images.new_empty((len(images), 2, height, width), dtype=torch.float32)
    torch.add(
        (cos * across)[:, None, :],
        (shift[:, :1] - sin * (height / width) * down)[:, :, None],
        out=grid[:, 0],
    )
    torch.add(
        (sin * (width / height) * across)[:, None, :],
        (shift[:, 1:] + cos * down)[:, :, None],
        out=grid[:, 1],
    )
    return grid_sample(images.float(), grid.permute(0, 2, 3, 1), align_corners=False)


# By their names in `[data] augment`, beside none; each takes images and draws as `light` does.
AUGMENTATIONS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"light": light}


def _centres(side: int) -> Tensor:
    """The middle of each pixel along a side, from -1 to 1: float32, (side,)."""
    return (torch.arange(side) * 2 + 1) / side - 1
