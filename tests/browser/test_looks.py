"""How it looks: light, dark and on a phone; nothing sticks out, everything can be read.

`pytest tests/browser/test_looks.py -m browser --screenshots docs` keeps the pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from tests.browser.visiting import THREE, Server, Visit, draw

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.proof]

DESK: dict[str, Any] = {"viewport": {"width": 1100, "height": 800}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
# Texts with less contrast than WCAG 2.1 AA wants, against the ground that they stand on.
_FAINT = """() => {
    const levels = (text) => {
        const [red, green, blue, alpha = 1] = text.match(/[\\d.]+/g).map(Number);
        const linear = (v) => v / 255 <= 0.04045 ? v / 3294.6 : ((v / 255 + 0.055) / 1.055) ** 2.4;
        return [0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue), alpha];
    };
    const ground = (node) => {
        for (let one = node; one; one = one.parentElement) {
            const [level, alpha] = levels(getComputedStyle(one).backgroundColor);
            if (alpha > 0.9) return level;
        }
        return levels(getComputedStyle(document.documentElement).backgroundColor)[0];
    };
    const faint = [];
    for (const node of document.querySelectorAll("body *")) {
        const own = [...node.childNodes].some((one) => one.nodeType === 3 && one.data.trim());
        if (!own || !node.checkVisibility() || node.closest(":disabled, #pad-empty")) continue;
        const [text] = levels(getComputedStyle(node).color);
        const [low, high] = [text, ground(node)].sort((a, b) => a - b);
        const ratio = (high + 0.05) / (low + 0.05);
        if (ratio < 4.5) faint.push(`${ratio.toFixed(2)}: ${node.textContent.trim().slice(0, 40)}`);
    }
    return faint;
}"""


# What is pressed in a part, and what is there then.
PARTS = {
    "try": ("", "#answer .label"),
    "models": ("Compare version 3", "#compare .verdict"),
    "models/digits/1": ("", "#versions .plots"),
    "models dialog": ("Promote version 2", "dialog .verdict"),
    "jobs": ("", "#jobs-list"),
}


def show(page: Page, part: str) -> None:
    name, place = PARTS[part]
    if part == "try":
        draw(page, THREE)
    elif name:
        page.get_by_role("button", name=name).click()
    expect(page.locator(place)).not_to_be_empty()


@pytest.mark.parametrize("device", [DESK, PHONE], ids=["desk", "phone"])
def test_it_fits_and_can_be_read(server: Server, visit: Visit, device: dict[str, Any]) -> None:
    for part in PARTS:
        page = visit(server.url, f"#{part.split()[0]}", **device).page
        show(page, part)
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{part} can be moved sideways"
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate(_FAINT) == [], (part, scheme)


def test_who_wants_no_movement_gets_none(server: Server, visit: Visit) -> None:
    page = visit(server.url, reduced_motion="reduce").page
    show(page, "try")
    moving = page.locator(".bar").first.evaluate("bar => getComputedStyle(bar).transitionDuration")
    assert moving == "0s"


def test_screenshots(server: Server, visit: Visit, pytestconfig: pytest.Config) -> None:
    folder: Path | None = pytestconfig.getoption("--screenshots", default=None)
    looks = {
        "light": ("try", {**DESK, "color_scheme": "light"}),
        "dark": ("models", {**DESK, "color_scheme": "dark"}),
        "phone": ("try", {**PHONE, "color_scheme": "light"}),
    }
    for name, (part, options) in looks.items():
        page = visit(server.url, f"#{part}", **options).page
        show(page, part)
        page.mouse.move(0, 0)
        page.evaluate("document.activeElement.blur()")
        picture = page.screenshot(animations="disabled")
        assert len(picture) < 200_000
        if folder is not None:
            (folder / f"page-{name}.png").write_bytes(picture)
