"""The contact sheet of a check: rows of images with two lines of text before each."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from mindtrace.data.batches import to_pixels
from mindtrace.data.check import CheckedImage, DataCheck
from mindtrace.data.datamodule import ImageDataModule
from mindtrace.preprocess import open_pixels

_COLUMNS, _LARGEST_ROWS = 10, 100
_TILE, _GAP, _MARGIN = 72, 6, 16
_LETTERS = 28  # of a line that fit


def contact_sheet(
    data: ImageDataModule, images: Iterable[CheckedImage], found: DataCheck
) -> Image.Image:
    """A row for each of the first hundred classes, with images spread evenly, and suspects."""
    class_names = list(found.counts["train"])
    members: defaultdict[str, list[CheckedImage]] = defaultdict(list)
    at: dict[str, CheckedImage] = {}
    for image in images:
        if not image.error:
            members[image.place.class_name].append(image)
            at[image.place.name] = image
    rows = [
        (name, f"{len(members[name]):,}", [_picture(data, one) for one in spread(members[name])])
        for name in class_names[:_LARGEST_ROWS]
    ]
    more = len(class_names) - len(rows)
    for one in (found.suspects or ())[:_LARGEST_ROWS]:
        text = f"{one.class_name}: {one.suggested}?"
        rows.append((Path(one.path).name, text, [_picture(data, at[one.name])]))
    return draw_sheet(rows, more=more)


def _picture(data: ImageDataModule, image: CheckedImage) -> Image.Image:
    """One image in its own size and in colour."""
    if isinstance(image.at, str):
        return open_pixels(Path(image.at).read_bytes(), "RGB", *data.accepted)
    pixels = to_pixels(data.split(image.place.split).images[image.at : image.at + 1])[0]
    return Image.fromarray(pixels).convert("RGB")


def spread(images: Sequence[CheckedImage]) -> list[CheckedImage]:
    """Up to `_COLUMNS` of them, evenly."""
    count = min(_COLUMNS, len(images))
    return [images[place * len(images) // count] for place in range(count)]


def draw_sheet(
    rows: Sequence[tuple[str, str, Sequence[Image.Image]]], *, more: int = 0
) -> Image.Image:
    """Rows of images with two lines of text before each; `more` classes were left out."""
    # Pillow's own font has no umlauts.
    import matplotlib

    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    font = ImageFont.truetype(str(file), 13)
    lines = [
        [text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…" for text in row[:2]]
        for row in rows
    ]
    last = f"and {more:,} more classes" if more else ""
    text_width = math.ceil(max(font.getlength(text) for text in sum(lines, [last])))
    left = _MARGIN + text_width + 2 * _GAP
    widest = max((len(images) for _, _, images in rows), default=0)
    width = left + widest * (_TILE + _GAP) - _GAP + _MARGIN
    bottom = _MARGIN + len(rows) * (_TILE + _GAP)
    height = bottom + (2 * _GAP + 15 if more else 0) - _GAP + _MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (text, (_, _, images)) in enumerate(zip(lines, rows, strict=True)):
        middle = _MARGIN + row * (_TILE + _GAP) + _TILE // 2
        pen.text((_MARGIN, middle), "\n".join(text), "black", font, anchor="lm")
        for column, image in enumerate(images):
            tile = _fitted(image)
            across = left + column * (_TILE + _GAP) + (_TILE - tile.width) // 2
            sheet.paste(tile, (across, middle - tile.height // 2))
    pen.text((_MARGIN, bottom + _GAP), last, "black", font)
    return sheet


def _fitted(image: Image.Image) -> Image.Image:
    """As large as a tile allows; small images show their pixels."""
    scale = _TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
