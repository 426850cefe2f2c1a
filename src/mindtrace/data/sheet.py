"""Room data: checked images come in, a contact sheet goes out: a row a class, a few images each."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from mindtrace.data.base import ImageDataModule
from mindtrace.data.check import CheckedImage, DataCheck
from mindtrace.data.images import to_pixels
from mindtrace.preprocess import open_pixels

COLUMNS = 10
LARGEST_ROWS = 100
_TILE, _GAP, _MARGIN = 72, 6, 16
_LETTERS = 28  # of a class name that fit
_PAPER, _INK, _PALE = (255, 255, 255), (20, 20, 20), (120, 120, 120)


def contact_sheet(data: ImageDataModule, found: DataCheck) -> Image.Image:
    """Draw a few images of each class, spread evenly over all that it has.

    Args:
        data: what was checked.
        found: what was found.

    Returns:
        A picture on white paper; classes beyond the first hundred are only counted.
    """
    members: defaultdict[str, list[CheckedImage]] = defaultdict(list)
    for image in found.images:
        if not image.error:
            members[image.class_name].append(image)
    rows = [
        (name, len(members[name]), [picture(data, found, one) for one in spread(members[name])])
        for name in list(found.counts()["train"])[:LARGEST_ROWS]
    ]
    return draw(rows, more=len(found.counts()["train"]) - len(rows))


def spread(images: Sequence[CheckedImage]) -> list[CheckedImage]:
    """Up to `COLUMNS` of them, evenly."""
    count = min(COLUMNS, len(images))
    return [images[place * len(images) // count] for place in range(count)]


def picture(data: ImageDataModule, found: DataCheck, image: CheckedImage) -> Image.Image:
    """One image in its own size and in colour."""
    if found.folder is not None:
        return open_pixels((found.folder / image.path).read_bytes(), "RGB")
    images = data.split(image.split).images[image.place : image.place + 1]
    return Image.fromarray(to_pixels(images)[0]).convert("RGB")


def draw(rows: Iterable[tuple[str, int, Sequence[Image.Image]]], *, more: int = 0) -> Image.Image:
    """Draw rows of images with a name and a number of images before each.

    Args:
        rows: name, number, images of any size.
        more: rows that are left out, and told.
    """
    rows = list(rows)
    name_font, number_font = _font(14), _font(12)
    names = [_shortened(name) for name, _, _ in rows]
    numbers = [f"{number:,}" for _, number, _ in rows]
    last = f"and {more:,} more classes" if more else ""
    text_width = math.ceil(
        max(
            *(name_font.getlength(text) for text in (*names, last)),
            *(number_font.getlength(text) for text in (*numbers, "0")),
        )
    )
    left = _MARGIN + text_width + 2 * _GAP
    widest = max((len(images) for _, _, images in rows), default=0)
    width = left + widest * (_TILE + _GAP) - _GAP + _MARGIN
    height = 2 * _MARGIN + len(rows) * (_TILE + _GAP) - _GAP + (2 * _GAP + 15 if more else 0)
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    top = _MARGIN
    for name, number, (_, _, images) in zip(names, numbers, rows, strict=True):
        middle = top + _TILE // 2
        pen.text((_MARGIN, middle - 2), name, _INK, name_font, anchor="ls")
        pen.text((_MARGIN, middle + 16), number, _PALE, number_font, anchor="ls")
        for column, image in enumerate(images):
            tile = _fitted(image)
            at = (left + column * (_TILE + _GAP), top)
            sheet.paste(
                tile, (at[0] + (_TILE - tile.width) // 2, at[1] + (_TILE - tile.height) // 2)
            )
        top += _TILE + _GAP
    pen.text((_MARGIN, top + _GAP), last, _PALE, name_font)
    return sheet


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own knows no umlauts."""
    import matplotlib

    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(fonts / "DejaVuSans.ttf"), size)


def _fitted(image: Image.Image) -> Image.Image:
    """As large as a tile allows; small images show their pixels."""
    scale = _TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def _shortened(name: str) -> str:
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"
