"""Room data: what images are and what a network insists on come in, an `ImageSpec` goes out."""

from __future__ import annotations

from mindtrace.errors import UsageError
from mindtrace.preprocess import ImageSpec, InputRequirements, Mode

Side = tuple[int, int]


def settle_spec(
    mode: Mode,
    size: Side,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    demand: InputRequirements,
    image_size: int | None,
) -> ImageSpec:
    """The input that training, predict and serve will all use.

    For the size `[data] image_size` comes first, because a person wrote it, then the
    network's own input, then the images; the rest is the network's where it insists.

    Args:
        mode: the images' own.
        size: height and width the images have or get.
        mean: of the images, one a channel of `mode`, on the scale of [0, 1].
        std: like `mean`.
        demand: what the network insists on.
        image_size: pixels a side, or None.

    Returns:
        The spec, every field settled.

    Raises:
        UsageError: `image_size` is smaller than the network can read.
    """
    mode = demand.mode or mode
    height, width = _size(size, demand, image_size)
    channels = 1 if mode == "L" else 3
    return ImageSpec(
        mode=mode,
        height=height,
        width=width,
        mean=_spread(demand.mean or mean, channels),
        std=_spread(demand.std or std, channels),
        resize=demand.resize or "stretch",
        short_side=_short_side(demand, min(height, width)),
    )


def _size(size: Side, demand: InputRequirements, image_size: int | None) -> Side:
    least = demand.min_side or 1
    if image_size is not None:
        if image_size < least:
            raise UsageError(
                f"[data] image_size = {image_size}: this network needs {least} or more",
                hint=f"--set data.image_size={least}",
            )
        return image_size, image_size
    height, width = demand.height or size[0], demand.width or size[1]
    scale = max(1.0, least / min(height, width))
    return round(height * scale), round(width * scale)


def _short_side(demand: InputRequirements, side: int) -> int | None:
    """The crop's short side, in proportion where another size was asked for."""
    if demand.resize != "crop" or demand.short_side is None:
        return None
    if demand.height is None or demand.width is None:
        return max(demand.short_side, side)
    return round(demand.short_side * side / min(demand.height, demand.width))


def _spread(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """One value a channel: a grey value serves all three, three become their mean."""
    if len(values) == channels:
        return values
    if channels == 3:
        return values * 3
    return (round(sum(values) / len(values), 6),)
