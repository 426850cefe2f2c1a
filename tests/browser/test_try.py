"""Drawing and giving pictures: every way in leads to an answer, or to a line that says why not."""

from __future__ import annotations

import base64
import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect
from tests.browser.visiting import THREE, ZERO, Server, Visit, draw, give, on_the_pad

from mindtrace.data.datasets import read_digits

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.proof]


@pytest.fixture
def page(server: Server, visit: Visit) -> Page:
    return visit(server.url).page


@pytest.fixture(scope="module")
def digit() -> bytes:
    """A picture of a real 0, 8 x 8."""
    return png(read_digits()[0][0])


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def choose(page: Page, content: bytes, name: str = "digit.png") -> None:
    file = {"name": name, "mimeType": "image/png", "buffer": content}
    page.get_by_label("Choose picture").set_input_files(file)


def seen(png: str) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("L"), np.float64)


def test_it_is_drawn_as_the_digits_data_are(page: Page) -> None:
    expect(page.locator("#framing")).to_contain_text("as the digits data")
    with page.expect_response("**/inference") as told:
        draw(page, ZERO)
    pixels = seen(told.value.json()["input"])
    assert pixels.shape == (8, 8)
    assert pixels.any(axis=1).all(), "the ink fills the height"
    assert not pixels[:, [0, 7]].any()
    assert pixels[3:5, 3:5].max() < pixels.max() / 2
    assert told.value.json()["class_name"] == "0"
    expect(page.locator(".input figcaption")).to_contain_text("8\u00a0×\u00a08 pixels")
    assert page.locator(".input img").evaluate("image => image.naturalWidth") == 8
    page.get_by_role("button", name="Clear").click()
    with page.expect_response("**/inference") as told:
        draw(page, [[(0.3, 0.3)]])
    assert 1 <= (seen(told.value.json()["input"]) > 20).sum() <= 4, "a dot stays a dot"


def test_for_mnist_it_is_drawn_as_mnist(page: Page) -> None:
    for scale, shift in itertools.product((0.4, 1.0), (0.0, 0.1)):
        around = [(0.5 + scale * (x - 0.5), 0.5 + scale * (y - 0.5)) for x, y in THREE[0]]
        image = page.evaluate(
            """async (strokes) => {
                const { framed, styleOf } = await import("/static/pad.js");
                return framed(strokes, styleOf({ height: 28 }));
            }""",
            [[[x + shift, y] for x, y in around]],
        )
        pixels = seen(image)
        assert pixels.shape == (28, 28)
        inked = [np.nonzero(pixels.max(axis=axis) > 20)[0] for axis in (0, 1)]
        assert max(map(np.ptp, inked)) + 1 in (20, 21)
        weights = pixels / pixels.sum()
        for axis in (0, 1):
            centre = weights.sum(axis=axis) @ (np.arange(28) + 0.5)
            assert centre == pytest.approx(14, abs=0.3)
        assert pixels.max() == 255
        assert not pixels[0].any()


@pytest.mark.parametrize("kind", ["pen", "touch"])
def test_pen_and_finger_draw_too(server: Server, visit: Visit, kind: str) -> None:
    page = visit(server.url, has_touch=kind == "touch").page
    session = page.context.new_cdp_session(page)
    places = on_the_pad(page, THREE[0])
    with page.expect_response("**/inference") as told:
        for place in [*places, None]:
            first, (x, y) = place is places[0], place or places[-1]
            if kind == "touch":
                name = "touchStart" if first else "touchMove" if place else "touchEnd"
                points = [{"x": x, "y": y}] if place else []
                session.send("Input.dispatchTouchEvent", {"type": name, "touchPoints": points})
            else:
                name = "mousePressed" if first else "mouseMoved" if place else "mouseReleased"
                event: dict[str, Any] = {"type": name, "x": x, "y": y, "pointerType": "pen"}
                event |= {"button": "left", "clickCount": 1, "buttons": 1 if place else 0}
                session.send("Input.dispatchMouseEvent", event)
    assert seen(told.value.json()["input"]).any(axis=1).all(), "a whole stroke, not its beginning"
    assert page.evaluate("scrollY") == 0, "the page does not scroll under the finger"
    expect(page.locator("#answer .label")).to_have_text(told.value.json()["class_name"])


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_picture_is_dropped_and_pasted_on_every_part_of_the_page(
    server: Server, visit: Visit, digit: bytes, event: str
) -> None:
    page = visit(server.url, "#models").page
    expect(page.locator("#versions table")).to_be_visible()
    give(page, event, {"again.png": digit})
    expect(page.locator("#answer .label")).to_have_text("0")
    expect(page.get_by_alt_text("The picture again.png")).to_be_visible()
    assert page.url.endswith("#try")


def test_a_picture_that_is_dark_on_light_is_told(page: Page, digit: bytes) -> None:
    choose(page, png(255 - np.asarray(Image.open(io.BytesIO(digit)))))
    expect(page.locator(".input strong")).to_contain_text("dark on light")
    choose(page, digit)
    expect(page.locator(".input strong")).to_have_count(0)


def test_of_many_classes_the_likeliest_come_first(page: Page, digit: bytes) -> None:
    page.route("**/inference", _answer_of_300_classes)
    choose(page, digit)
    bars, more = page.locator(".bars li"), page.get_by_role("button", name="All 300 classes")
    expect(bars).to_have_count(12)
    expect(bars.first).to_contain_text("a rather long name 0")
    expect(page.locator(".who")).to_contain_text("a bundle")
    more.click()
    expect(bars).to_have_count(300)
    expect(more).to_have_count(0)


def _answer_of_300_classes(route: Route) -> None:
    """What the server says, as if its network knew 300 classes; the last is the likeliest."""
    top_k = [
        {"label": 299 - i, "class_name": f"a rather long name {i}", "confidence": 0.5 ** (i + 1)}
        for i in range(300)
    ]
    nobody = {"model_name": None, "version": None}
    route.fulfill(json={**route.fetch().json(), **top_k[0], "top_k": top_k, **nobody})


def test_what_is_no_picture_is_told(server: Server, visit: Visit, tmp_path: Path) -> None:
    visited = visit(server.url)
    page, problem = visited.page, visited.page.locator("#answer .problem")
    for name, content, headline, status in (
        ("notes.txt", b"no image", "Not an image that can be read", 422),
        ("moving.gif", b"GIF89a" + bytes(40), "Not an image that can be read", 422),
        ("empty.png", b"", "That does not fit", 422),
        ("huge.png", bytes(17 << 20), "Too large", 413),
    ):
        if status == 413:
            (tmp_path / name).write_bytes(content)
            page.get_by_label("Choose picture").set_input_files(tmp_path / name)
        else:
            choose(page, content, name)
        expect(problem.locator("strong")).to_have_text(headline)
        assert len(problem.inner_text()) > len(headline), "and what is wrong with it"
        visited.forgive(f"status of {status}")
        # An error leaves the page as good as new.
        page.get_by_role("button", name="Clear").click()
        draw(page, ZERO)
        expect(page.locator("#answer .label")).to_have_text("0")
        page.get_by_role("button", name="Clear").click()
