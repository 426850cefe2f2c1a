"""The page of models of digits, of two classes and of a hundred: many pictures, one version."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Route, expect
from tests.browser.conftest import PHOTOS
from tests.browser.visiting import Serve, Server, Visit, give

from mindtrace.data.datasets import read_digits

pytestmark = [pytest.mark.browser, pytest.mark.slow]


class Served(NamedTuple):
    """A server, its model's name and classes, and pictures by name."""

    server: Server
    name: str
    classes: list[str]
    pictures: dict[str, bytes]

    def get(self, path: str) -> Any:
        url = f"{self.server.url}/models/{self.name}/{path}"
        return httpx.get(url, trust_env=False, timeout=60).json()


@pytest.fixture(
    scope="module", params=["digits", "hundred", pytest.param("pets", marks=pytest.mark.proof)]
)
def served(
    request: pytest.FixtureRequest, versions: Path, photos: Callable[[str], Path], serve: Serve
) -> Iterator[Served]:
    name = request.param
    if name == "digits":
        images = [Image.fromarray(image) for image in read_digits()[0][:3]]
        classes, root = [str(digit) for digit in range(10)], versions
    else:
        classes, root = PHOTOS[name], photos(name)
        files = sorted((root / "pictures").glob("*/[01].png"))[:3]
        images = [Image.open(file) for file in files]
    pictures = {}
    for number, image in enumerate(images):
        image.save(content := io.BytesIO(), "png")
        pictures[f'a "{number}", so.png'] = content.getvalue()
    server = serve(root, "--no-worker", REGISTRY__MODEL_NAME=name)
    yield Served(server, name, classes, pictures)
    server.stop()


def answer(server: Server, content: bytes) -> dict[str, Any]:
    headers = {"Content-Type": "image/png"}
    url = f"{server.url}/inference"
    told = httpx.post(url, content=content, headers=headers, trust_env=False, timeout=60)
    return dict(told.json())


def test_the_page_is_of_the_model_that_is_served(served: Served, visit: Visit) -> None:
    page = visit(served.server.url).page
    digits, count = served.name == "digits", len(served.classes)
    title = {
        "digits": "Draw a digit, or give a picture",
        "pets": "cats or dogs, and wolves?",
        "hundred": "Which of 100 classes?",
    }
    expect(page.locator("#try-title")).to_have_text(title[served.name])
    expect(page.locator("#pad")).to_be_visible(visible=digits)
    expect(page.get_by_role("button", name="Undo")).to_have_count(int(digits))
    if not digits:
        expect(page.locator("#framing")).to_contain_text("24\u00a0×\u00a024 pixels in colour")
        expect(page.locator("#framing summary")).to_contain_text(f"{count} classes")
        expect(page.locator("#framing")).to_contain_text(", ".join(served.classes))
    give(page, "drop", dict([*served.pictures.items()][:1]))
    expect(page.locator(".bars li")).to_have_count(min(count, 12))
    tracks = [track.bounding_box() for track in page.locator(".bars .track").all()]
    assert len({(box["x"], box["width"]) for box in tracks if box}) == 1, "bars have one axis"
    page.get_by_role("link", name="Jobs").click()
    expect(page.get_by_placeholder("NAME/VERSION")).to_have_value(f"{served.name}/1")
    config = page.get_by_label("Configuration", exact=True)
    expect(config).to_have_value(re.compile("^.train.\nmax_epochs = "))
    config.press("End")
    config.press("Enter")
    expect(page.locator("#config-check")).to_have_text("This can be trained.")


def test_many_pictures_are_a_list(served: Served, visit: Visit) -> None:
    visited = visit(served.server.url)
    page, rows = visited.page, visited.page.locator("#answer tbody tr")
    held: list[Route] = []
    page.route("**/inference", lambda route: held.append(route))
    give(page, "drop", {**served.pictures, "notes.txt": b"no image"})
    expect(rows).to_have_count(4)
    expect(page.locator("#sending")).to_be_visible()
    expect(page.get_by_role("button", name="Download")).to_be_disabled()
    while len(held) < 4:
        page.evaluate("null")  # requests are told while something is asked of the page
    held.pop(0).continue_()
    expect(page.locator("#sending")).to_have_attribute("value", "0.25")
    for route in held:
        route.continue_()
    expect(page.locator("#sending")).to_be_hidden()

    told = {name: answer(served.server, content) for name, content in served.pictures.items()}
    for name, one in told.items():
        row = rows.filter(has_text=name)
        expect(row.locator("td").first).to_have_text(one["class_name"])
        expect(row.locator("td").last).to_have_text(f"{100 * one['confidence']:.1f}\u202f%")
        assert row.locator("img").evaluate("image => image.decode().then(() => true)")
    expect(rows.filter(has_text="notes.txt")).to_contain_text("image")
    expect(page.locator("#answer")).to_contain_text("1 without an answer")
    confidence = page.get_by_role("button", name="Confidence")
    best = sorted(told, key=lambda name: told[name]["confidence"])
    for order, names in (("ascending", best), ("descending", best[::-1])):
        confidence.click()
        expect(page.locator(f'[aria-sort="{order}"]')).to_have_text("Confidence")
        shown = [name for name in rows.locator("th").all_inner_texts() if name in told]
        if len({round(1000 * one["confidence"]) for one in told.values()}) == len(told):
            assert shown == names

    with page.expect_download() as saved:
        page.get_by_role("button", name="Download").click()
    text = Path(saved.value.path()).read_bytes().decode()
    lines = {line["path"]: line for line in csv.DictReader(io.StringIO(text, newline=""))}
    assert [*lines] == [*served.pictures, "notes.txt"]
    for name, one in told.items():
        line = lines[name]
        assert (line["class_name"], line["label"]) == (one["class_name"], str(one["label"]))
        assert float(line["confidence"]) == pytest.approx(one["confidence"])
        assert (line["model_name"], line["version"], line["error"]) == (served.name, "1", "")
    assert lines["notes.txt"]["error"]
    assert not lines["notes.txt"]["class_name"]

    rows.filter(has_text='"2"').get_by_role("button").click()
    expect(page.get_by_alt_text('The picture a "2", so.png')).to_be_visible()
    page.get_by_role("button", name="Clear").click()
    expect(rows).to_have_count(0)
    visited.forgive("status of 422")


def test_one_version_has_a_page(served: Served, visit: Visit) -> None:
    visited = visit(served.server.url, "#models")
    page = visited.page
    page.locator('[data-version="1"]').get_by_role("link").click()
    expect(page.locator("#models-title")).to_have_text(f"{served.name}/1")
    told = served.get("versions/1")
    report = served.get("versions/1/report/report.json")
    place = page.locator("#versions")
    expect(place.locator("dl")).to_contain_text(f"{100 * told['metrics']['test_acc']:.2f}\u202f%")
    expect(place.locator("dl")).to_contain_text(f"{told['metrics']['test_loss']:.3f}")
    expect(place.locator(".tag")).to_have_text("champion")
    rows = place.locator(".tall tbody tr")
    expect(rows).to_have_count(len(served.classes))
    weakest = min(report["classes"], key=lambda one: one["f1"] or 0)
    expect(rows.first.locator("td").last).to_have_text(f"{100 * weakest['f1']:.1f}\u202f%")
    plots = place.locator(".plots img")
    expect(plots).to_have_count(len(told["report_files"]) - 1)
    for plot in plots.all():
        assert plot.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
    for title, text in (
        ("Parameters", "train.max_epochs"),
        ("Digests", told["bundle_digest"]),
        ("Made with", told["environment"]["torch"]),
        ("Files of the bundle", "model.onnx"),
    ):
        place.get_by_text(title).click()
        expect(place.locator("details", has_text=title)).to_contain_text(text)
    expect(page.locator("#history li")).to_have_count(1)
    expect(page.locator("#history li")).to_contain_text("first version")
    page.get_by_role("link", name="All versions").click()
    expect(page.locator("#models-title")).to_have_text("Models")
    expect(page.locator('[data-version="1"]')).to_be_visible()
    page.goto(f"{served.server.url}/#models/{served.name}/99")
    expect(page.locator("#models-problem .problem strong")).to_have_text("Not there")
    visited.forgive("status of 404")
