"""One image as PIL, as ASCII text and as a tensor."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

# channels -> the modes that Pillow has for them, the usual one first
_MODES = {1: ("L",), 2: ("LA",), 3: ("RGB", "YCbCr", "HSV", "LAB"), 4: ("RGBA", "RGBX", "CMYK")}


def pil_to_ascii(image: Image.Image) -> str:
    """The image as a PNG, in base64: text that any protocol carries without loss."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def ascii_to_pil(text: str) -> Image.Image:
    """Read an image from the text that `pil_to_ascii` made of it.

    Args:
        text: base64 of an image file.

    Returns:
        the image, with all its pixels read.

    Raises:
        ValueError: the text is not base64, or what it holds is no whole image.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError(f"not base64: {error}") from error
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"not a whole image: {error}") from error
    return image


def pil_to_tensor(image: Image.Image) -> Tensor:
    """Take the pixels as they are.

    Args:
        image: of any mode; a palette's pixels are its indices.

    Returns:
        uint8 (other types for modes such as `F` and `I`), (channels, height, width).
    """
    from torchvision.transforms.functional import pil_to_tensor as as_it_is

    # Mode 1 has truth values; black and white as in L.
    tensor: Tensor = as_it_is(image.convert("L") if image.mode == "1" else image)
    return tensor.contiguous()


def tensor_to_pil(
    image: Tensor,
    mode: str | None = None,
    min_val: float | None = None,
    max_val: float | None = None,
) -> Image.Image:
    """The image that a tensor of any range shows, scaled so that the range fills 0 to 255.

    Args:
        image: any dtype, (height, width) or (channels, height, width) with 1 to 4 channels.
        mode: one that Pillow has for that many channels; None is `L`, `LA`, `RGB`, `RGBA`.
        min_val: the value that becomes black; None is the smallest one found, 0 for uint8.
        max_val: the value that becomes white; None is the largest one found, 255 for uint8.
            What lies beyond is cut. An image of one value, without a range, is black.

    Returns:
        the image, with 8 bits a channel.

    Raises:
        ValueError: the shape is no image's or does not fit the mode, or a value is not finite.
    """
    pixels = image.detach().cpu().double().numpy()
    if pixels.ndim == 2:
        pixels = pixels[None]
    if pixels.ndim != 3 or pixels.shape[0] not in _MODES or pixels.size == 0:
        found = tuple(image.shape)
        raise ValueError(f"an image is (height, width) or (1 to 4, height, width), not {found}")
    modes = _MODES[pixels.shape[0]]
    if mode is not None and mode not in modes:
        raise ValueError(f"{pixels.shape[0]} channels make {' or '.join(modes)}, not {mode}")
    if "uint8" in str(image.dtype):  # torch's import is not worth it
        min_val = 0 if min_val is None else min_val
        max_val = 255 if max_val is None else max_val
    scaled = (_unit(pixels, min_val, max_val) * 255).round().astype(np.uint8)
    size = (scaled.shape[2], scaled.shape[1])
    return Image.frombytes(mode or modes[0], size, scaled.transpose(1, 2, 0).tobytes())


def _unit(
    pixels: NDArray[np.float64], min_val: float | None, max_val: float | None
) -> NDArray[np.float64]:
    """`pixels` scaled to [0, 1] by the given or found range, in the shape they have."""
    if not np.isfinite(pixels).all():
        raise ValueError("an image's values are finite; this one holds NaN or infinity")
    low = float(pixels.min()) if min_val is None else float(min_val)
    high = float(pixels.max()) if max_val is None else float(max_val)
    if high == low:  # a constant image has no range to scale by
        return np.zeros_like(pixels)
    return ((pixels - low) / (high - low)).clip(0, 1)
