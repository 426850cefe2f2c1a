"""The whole page without a mouse: every stop is seen, and everything can be done."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect
from tests.browser.visiting import Serve, Server, Visit

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.proof]

# Where the keyboard is: its name, and whether one sees that it is there.
_FOCUS = """() => {
    const node = document.activeElement;
    const seen = [node, document.querySelector(`label[for="${node.id}"].button`)].filter(Boolean);
    return [
        node.labels?.[0]?.textContent ?? node.getAttribute("aria-label") ?? node.textContent,
        seen.some((one) => getComputedStyle(one).outlineStyle !== "none"),
    ];
}"""


def stops(page: Page, until: str, *, limit: int = 60) -> list[str]:
    """Press Tab until that is reached; every stop on the way must have a name and be visible."""
    names = []
    for _ in range(limit):
        page.keyboard.press("Tab")
        name, seen = page.evaluate(_FOCUS)
        assert name.strip(), "a stop without a name"
        assert seen, f"the focus on {name} cannot be seen"
        names.append(" ".join(name.split()))
        if until in names[-1]:
            return names
    raise AssertionError(f"{until} is not among {names}")


def test_every_stop_has_a_name_and_is_seen(server: Server, visit: Visit) -> None:
    page = visit(server.url, "").page
    expect(page.locator("#framing")).not_to_be_empty()
    names = stops(page, "The same by HTTP")
    assert names[:5] == ["To the content", "mindtrace", "Try it", "Models", "Jobs"]
    assert names[5:-1] == ["Draw here", "Choose pictures…"], "what cannot be pressed is no stop"

    page = visit(server.url, "").page
    expect(page.locator("#framing")).not_to_be_empty()
    assert stops(page, "To the content") == ["To the content"]
    page.keyboard.press("Enter")
    assert stops(page, "Draw here") == ["Draw here"], "the skip link leads past the menu"


def test_draw_promote_and_roll_back(versions: object, serve: Serve, visit: Visit) -> None:
    page = visit(serve(versions, "--no-worker").url).page
    expect(page.locator("#framing")).not_to_be_empty()
    stops(page, "Draw here")
    for key in ["ArrowUp"] * 10 + ["Space"]:
        page.keyboard.press(key)
    expect(page.locator("#said")).to_have_text("Pen down at column 14, row 4 of 28")
    for key in ["ArrowDown"] * 20 + ["Enter"]:
        page.keyboard.press(key)
    expect(page.locator("#answer .label")).to_be_visible()
    page.keyboard.press("Control+z")
    expect(page.locator("#pad-empty")).to_be_visible()
    for key in ["Space", "ArrowUp", "Space"]:
        page.keyboard.press(key)
    expect(page.locator("#answer .label")).to_be_visible()
    stops(page, "Clear")
    page.keyboard.press("Enter")
    expect(page.locator("#answer .label")).to_have_count(0)

    page.reload()
    stops(page, "Models")
    page.keyboard.press("Enter")
    expect(page.locator("#models-title")).to_be_focused()
    expect(page.locator("#versions tbody tr")).to_have_count(4)
    for _ in range(3):
        stops(page, "Compare")
    page.keyboard.press("Enter")
    expect(page.locator("#compare .verdict")).to_contain_text("PROMOTE")

    stops(page, "Close")
    page.keyboard.press("Enter")
    page.locator('[data-version="2"] button').last.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(".verdict")).to_contain_text("PROMOTE")
    inside = stops(page, "Make 2 champion")
    assert len(inside) <= 4, "the focus stays in the dialog"
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(page.locator('[data-version="2"]')).to_contain_text("champion")
    expect(page.get_by_role("button", name="Roll back")).to_be_focused()
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("Version 1 comes back")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("button", name="Roll back")).to_be_focused()
