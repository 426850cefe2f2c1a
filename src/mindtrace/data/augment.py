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


def photo(images: Tensor, draws: Tensor) -> Tensor:
    """Crop at least 40 % of each image, mirror half of them, vary light and colour by 20 %.

    `images` are uint8, (n, channels, height, width), and so is the result; `draws` float32,
    (n, 8), in [-1, 1).
    """
    return _each(images, draws, least=0.4, change=0.2)


def strong(images: Tensor, draws: Tensor) -> Tensor:
    """Like `photo` with at least 15 %, 40 %, turns of up to 15 degrees, and a rectangle erased.

    `draws` are (n, 14).
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as transforms

    turned = [
        transforms.rotate(image, 15 * float(draw), InterpolationMode.BILINEAR)
        for image, draw in zip(images, draws[:, 8], strict=True)
    ]
    changed = _each(torch.stack(turned), draws, least=0.15, change=0.4)
    height, width = images.shape[2:]
    grey = changed.float().mean((0, 2, 3)).to(torch.uint8)
    for image, (how, tall, wide, down, across) in zip(changed, _shares(draws[:, 9:]), strict=True):
        if how < 0.5:
            rows, columns = int(height * (0.1 + 0.3 * tall)), int(width * (0.1 + 0.3 * wide))
            top, left = int(down * (height - rows)), int(across * (width - columns))
            image[:, top : top + rows, left : left + columns] = grey[:, None, None]
    return changed


def _each(images: Tensor, draws: Tensor, *, least: float, change: float) -> Tensor:
    """Random resized crop, mirroring, brightness, contrast and saturation of each image."""
    from torchvision.transforms.v2 import functional as transforms

    # torchvision's transforms would draw once for the whole batch; its kernels draw nothing.
    height, width = images.shape[2:]
    out = torch.empty_like(images, memory_format=torch.contiguous_format)
    for index, draw in enumerate(_shares(draws[:, :8])):
        area, ratio, down, across, mirror, *levels = draw
        scale, stretch = least + (1 - least) * area, (4 / 3) ** (ratio - 0.5)
        rows = max(1, min(height, round(height * math.sqrt(scale) * stretch)))
        columns = max(1, min(width, round(width * math.sqrt(scale) / stretch)))
        top, left = int(down * (height - rows + 1)), int(across * (width - columns + 1))
        image = transforms.resized_crop(images[index], top, left, rows, columns, [height, width])
        if mirror < 0.5:
            image = transforms.horizontal_flip(image)
        bright, contrast, saturation = (1 + change * (2 * level - 1) for level in levels)
        image = transforms.adjust_brightness(image, bright)
        image = transforms.adjust_contrast(image, contrast)
        out[index] = transforms.adjust_saturation(image, saturation)
    return out


def _shares(draws: Tensor) -> list[list[float]]:
    """The same draws in [0, 1)."""
    return ((draws + 1) / 2).tolist()


# By their names in `[data] augment`, beside none; each takes images and draws as `light` does.
AUGMENTATIONS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "light": light,
    "photo": photo,
    "strong": strong,
}
#: How many numbers each draws for an image.
DRAWS: Mapping[str, int] = {"light": 3, "photo": 8, "strong": 14}


def _centres(side: int) -> Tensor:
    """The middle of each pixel along a side, from -1 to 1: float32, (side,)."""
    return (torch.arange(side) * 2 + 1) / side - 1
