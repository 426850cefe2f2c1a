"""Drawing and giving pictures: every way in leads to an answer, or to a line that says why not."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect
from tests.browser.conftest import Visit
from tests.browser.drawing import FOUR, THREE, ZERO, draw
from tests.browser.servers import Server

from mindtrace.data.datasets import digits_file, read_digits

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def digit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of a real digit, 8 x 8."""
    pixels, _ = read_digits(digits_file())
    path = tmp_path_factory.mktemp("pictures") / "digit.png"
    Image.fromarray(pixels[0]).save(path)
    return path


def label(page: Page) -> Any:
    return expect(page.locator("#answer .label"))


def answer_to(server: Server, image: bytes) -> dict[str, Any]:
    body = {"image": base64.b64encode(image).decode()}
    answer = httpx.post(f"{server.url}/inference", json=body, trust_env=False, timeout=60)
    return dict(answer.json())


def test_a_drawing_is_answered_stroke_by_stroke(server: Server, visit: Visit) -> None:
    page = visit(server.url).page
    expect(page.locator("#status-text")).to_have_text("serving digits/1")
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    with page.expect_response("**/inference") as told:
        draw(page, FOUR[:1])
    first = told.value.json()
    label(page).to_have_text(first["class_name"])
    expect(page.locator(".who")).to_contain_text("digits/1")
    expect(page.locator(".who")).to_contain_text(" ms")
    expect(page.locator(".bars li")).to_have_count(10)
    shares = page.locator(".bars .share").all_inner_texts()
    assert shares == [f"{100 * p:.1f}\u202f%" for p in first["probabilities"]]
    expect(page.locator("#said")).to_contain_text(f"{first['class_name']}, ")

    with page.expect_response("**/inference") as told:
        draw(page, FOUR[1:])
    sent = json.loads(told.value.request.post_data or "")
    assert answer_to(server, base64.b64decode(sent["image"]))["label"] == told.value.json()["label"]
    with page.expect_response("**/inference") as told:
        page.get_by_role("button", name="Undo").click()
    assert told.value.json()["probabilities"] == first["probabilities"]
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#answer .label")).to_have_count(0)
    expect(page.locator("#pad-empty")).to_be_visible()


def test_it_is_drawn_as_the_digits_data_are(server: Server, visit: Visit) -> None:
    page = visit(server.url).page
    expect(page.locator("#framing")).to_contain_text("as the digits data")
    with page.expect_response("**/inference") as told:
        draw(page, ZERO)
    pixels = seen(told.value.json()["input"])
    assert pixels.shape == (8, 8)
    assert pixels[:, :].any(axis=1).all(), "the ink fills the height"
    assert not pixels[:, [0, 7]].any()
    assert pixels[3:5, 3:5].max() < pixels.max() / 2
    assert told.value.json()["class_name"] == "0"
    expect(page.locator(".input figcaption")).to_contain_text("8\u00a0×\u00a08 pixels")
    assert page.locator(".input img").evaluate("image => image.naturalWidth") == 8


@pytest.mark.parametrize("shift", [0.0, 0.1])
@pytest.mark.parametrize("scale", [0.4, 1.0])
def test_for_mnist_it_is_drawn_as_mnist(
    server: Server, visit: Visit, shift: float, scale: float
) -> None:
    page = visit(server.url).page
    strokes = [[[0.5 + scale * (x - 0.5) + shift, 0.5 + scale * (y - 0.5)] for x, y in THREE[0]]]
    png = page.evaluate(
        """async (strokes) => {
            const { framed, styleOf } = await import("/static/pad.js");
            return framed(strokes, styleOf("mnist"));
        }""",
        strokes,
    )
    pixels = seen(png)
    assert pixels.shape == (28, 28)
    rows, columns = np.nonzero(pixels.max(axis=1) > 20)[0], np.nonzero(pixels.max(axis=0) > 20)[0]
    assert max(np.ptp(rows), np.ptp(columns)) + 1 in (20, 21)
    weights = pixels / pixels.sum()
    assert weights.sum(axis=1) @ (np.arange(28) + 0.5) == pytest.approx(14, abs=0.3)
    assert weights.sum(axis=0) @ (np.arange(28) + 0.5) == pytest.approx(14, abs=0.3)
    assert pixels.max() == 255
    assert not pixels[0].any()


def seen(png: str) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("L"), np.float64)


def test_a_dot_stays_a_dot(server: Server, visit: Visit) -> None:
    page = visit(server.url).page
    with page.expect_response("**/inference") as told:
        draw(page, [[(0.3, 0.3)]])
    pixels = seen(told.value.json()["input"])
    assert 1 <= (pixels > 20).sum() <= 4


@pytest.mark.parametrize("kind", ["pen", "touch"])
def test_pen_and_finger_draw_too(server: Server, visit: Visit, kind: str) -> None:
    page = visit(server.url, has_touch=kind == "touch").page
    box = page.locator("#pad").bounding_box()
    assert box is not None
    session = page.context.new_cdp_session(page)
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in THREE[0]]
    with page.expect_response("**/inference") as told:
        for index, (x, y) in enumerate(places):
            if kind == "touch":
                name = "touchStart" if index == 0 else "touchMove"
                event: dict[str, Any] = {"type": name, "touchPoints": [{"x": x, "y": y}]}
                session.send("Input.dispatchTouchEvent", event)
            else:
                name = "mousePressed" if index == 0 else "mouseMoved"
                event = {"type": name, "x": x, "y": y, "pointerType": "pen"}
                event |= {"button": "left", "buttons": 1, "clickCount": 1}
                session.send("Input.dispatchMouseEvent", event)
        if kind == "touch":
            session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        else:
            x, y = places[-1]
            end = {"type": "mouseReleased", "x": x, "y": y, "pointerType": "pen"}
            session.send("Input.dispatchMouseEvent", {**end, "button": "left", "clickCount": 1})
    pixels = seen(told.value.json()["input"])
    assert pixels.any(axis=1).all(), "a whole stroke, not its beginning"
    assert page.evaluate("scrollY") == 0, "the page does not scroll under the finger"
    label(page).to_have_text(told.value.json()["class_name"])


def test_the_keys_draw_too(server: Server, visit: Visit) -> None:
    page = visit(server.url).page
    page.locator("#pad").focus()
    for key in ["ArrowUp"] * 10 + [" "]:
        page.keyboard.press(key)
    expect(page.locator("#said")).to_have_text("Pen down at column 14, row 4 of 28")
    with page.expect_response("**/inference"):
        for key in ["ArrowDown"] * 20 + ["Enter"]:
            page.keyboard.press(key)
    expect(page.locator("#answer .label")).to_be_visible()
    page.keyboard.press("Control+z")
    expect(page.locator("#pad-empty")).to_be_visible()


def test_a_picture_is_chosen_dropped_and_pasted(
    server: Server, visit: Visit, digit: Path, tmp_path: Path
) -> None:
    page = visit(server.url).page
    told = answer_to(server, digit.read_bytes())
    page.get_by_label("Choose picture").set_input_files(digit)
    label(page).to_have_text(told["class_name"])
    expect(page.get_by_alt_text("The picture digit.png")).to_be_visible()
    expect(page.locator("#pad")).to_be_hidden()

    for event, place in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        page.get_by_role("button", name="Clear").click()
        expect(page.locator("#answer .label")).to_have_count(0)
        with page.expect_response("**/inference") as answered:
            give(page, event, place, digit.read_bytes(), "again.png")
        assert answered.value.json()["probabilities"] == told["probabilities"]
        expect(page.get_by_alt_text("The picture again.png")).to_be_visible()


def give(page: Page, event: str, place: str, content: bytes, name: str) -> None:
    """Drop or paste a file onto the page."""
    page.evaluate(
        """([event, place, content, name]) => {
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type: "image/png" }));
            const shape = event === "drop" ? DragEvent : ClipboardEvent;
            const given = { bubbles: true, cancelable: true, [place]: transfer };
            document.querySelector("main").dispatchEvent(new shape(event, given));
        }""",
        [event, place, base64.b64encode(content).decode(), name],
    )


def test_a_picture_is_taken_on_every_part_of_the_page(
    server: Server, visit: Visit, digit: Path
) -> None:
    page = visit(server.url, "#models").page
    expect(page.locator("#versions table")).to_be_visible()
    give(page, "drop", "dataTransfer", digit.read_bytes(), "digit.png")
    expect(page.locator("#answer .label")).to_be_visible()
    assert page.url.endswith("#try")


def test_a_picture_that_is_dark_on_light_is_told(
    server: Server, visit: Visit, digit: Path, tmp_path: Path
) -> None:
    page = visit(server.url).page
    dark = tmp_path / "dark.png"
    Image.fromarray(255 - np.asarray(Image.open(digit))).save(dark)
    page.get_by_label("Choose picture").set_input_files(dark)
    expect(page.locator(".input strong")).to_contain_text("dark on light")
    page.get_by_label("Choose picture").set_input_files(digit)
    expect(page.locator(".input strong")).to_have_count(0)


def test_of_many_classes_the_likeliest_come_first(
    server: Server, visit: Visit, digit: Path
) -> None:
    page = visit(server.url).page
    page.route("**/inference", _answer_of_300_classes)
    page.get_by_label("Choose picture").set_input_files(digit)
    bars = page.locator(".bars li")
    expect(bars).to_have_count(12)
    expect(bars.first).to_contain_text("a rather long name 0")
    expect(page.locator(".who")).to_contain_text("a bundle")
    page.get_by_role("button", name="All 300 classes").click()
    expect(bars).to_have_count(300)
    expect(page.get_by_role("button", name="All 300 classes")).to_have_count(0)


def _answer_of_300_classes(route: Route) -> None:
    """What the server says, as if its network knew 300 classes; the last is the likeliest."""
    answer = route.fetch()
    top_k = [
        {"label": 299 - i, "class_name": f"a rather long name {i}", "confidence": 0.5 ** (i + 1)}
        for i in range(300)
    ]
    nobody = {"model_name": None, "version": None}
    route.fulfill(json={**answer.json(), **top_k[0], "top_k": top_k, **nobody})


@pytest.mark.parametrize(
    ("name", "content", "headline", "status"),
    [
        ("notes.txt", b"no image", "Not an image that can be read", 422),
        ("moving.gif", b"GIF89a" + bytes(40), "Not an image that can be read", 422),
        ("cut.png", b"\x89PNG\r\n\x1a\n" + bytes(9), "Not an image that can be read", 422),
        ("empty.png", b"", "That does not fit", 422),
        ("huge.png", bytes(17 << 20), "Too large", 413),
    ],
)
def test_what_is_no_picture_is_told(
    server: Server,
    visit: Visit,
    tmp_path: Path,
    name: str,
    content: bytes,
    headline: str,
    status: int,
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    visited = visit(server.url)
    visited.page.get_by_label("Choose picture").set_input_files(path)
    problem = visited.page.locator("#answer .problem")
    expect(problem.locator("strong")).to_have_text(headline)
    expect(problem).to_have_attribute("role", "alert")
    assert len(problem.inner_text()) > len(headline), "and what is wrong with it"
    visited.forgive(f"status of {status}")
    draw_again(visited.page)


def draw_again(page: Page) -> None:
    """An error leaves the page as good as new."""
    page.get_by_role("button", name="Clear").click()
    draw(page, ZERO)
    label(page).to_have_text("0")
