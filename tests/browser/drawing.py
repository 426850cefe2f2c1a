"""Digits as people draw them, and the hands that do it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from playwright.sync_api import Page

Point = tuple[float, float]


def _arc(x: float, y: float, wide: float, high: float, begin: int, end: int) -> list[Point]:
    steps = 24
    angles = [math.radians(begin + (end - begin) * step / steps) for step in range(steps + 1)]
    return [(x + wide * math.cos(angle), y + high * math.sin(angle)) for angle in angles]


# Strokes of points from 0 to 1, from the left and from the top.
ZERO = [_arc(0.5, 0.5, 0.22, 0.33, -90, 270)]
THREE = [_arc(0.48, 0.33, 0.18, 0.17, -150, 90) + _arc(0.48, 0.67, 0.2, 0.17, -90, 150)]
FOUR = [[(0.35, 0.18), (0.3, 0.52), (0.7, 0.52)], [(0.62, 0.2), (0.62, 0.85)]]


def draw(page: Page, strokes: Sequence[Sequence[Point]]) -> None:
    """With the mouse."""
    box = page.locator("#pad").bounding_box()
    assert box is not None
    for stroke in strokes:
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place, steps=3)
        page.mouse.up()
