"""Versions on the page: the table, comparing, promoting and rolling back, and who is quicker."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect
from tests.browser.conftest import Serve, Visit
from tests.browser.drawing import ZERO, draw
from tests.browser.servers import MANY, Server

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def own(versions: object, serve: Serve) -> Server:
    """A server that a test may change."""
    return serve(versions)


def row(page: Page, version: int) -> Locator:
    return page.locator(f'#versions tr[data-version="{version}"]')


def history(server: Server) -> httpx.Response:
    return httpx.get(f"{server.url}/models/digits/history", trust_env=False, timeout=60)


def promote(server: Server, version: int) -> None:
    """As another user would, meanwhile."""
    answer = httpx.post(
        f"{server.url}/models/digits/promote",
        json={"version": version, "force": True, "reason": "meanwhile"},
        headers={"If-Match": "*"},
        trust_env=False,
        timeout=120,
    )
    assert answer.status_code == 200, answer.text


def test_the_table_tells_what_is_registered(server: Server, visit: Visit) -> None:
    page = visit(server.url, "#models").page
    expect(page.locator("#versions tbody tr")).to_have_count(4)
    expect(row(page, 1)).to_contain_text("champion")
    expect(page.locator("#versions .tag")).to_have_count(1)
    told = httpx.get(f"{server.url}/models/digits/versions/3", trust_env=False).json()
    expect(row(page, 3)).to_contain_text(f"{100 * told['metrics']['test_acc']:.1f}\u202f%")
    expect(row(page, 3).locator("time")).to_have_attribute("datetime", told["created_at"])
    expect(page.locator("#history li")).to_have_count(1)
    expect(page.locator("#history")).to_contain_text("first version")


def test_a_long_table_comes_in_pages(server: Server, visit: Visit) -> None:
    page = visit(server.url, "#models").page
    page.get_by_label("Model", exact=True).select_option("many")
    rows, more = page.locator("#versions tbody tr"), page.get_by_role("button", name="Older")
    for shown in (20, 40):
        expect(rows).to_have_count(shown)
        more.click()
    expect(rows).to_have_count(MANY)
    expect(more).to_have_count(0)
    assert page.locator("#versions tbody th").all_inner_texts() == [
        str(version) for version in range(MANY, 0, -1)
    ]


def test_two_versions_are_compared(server: Server, visit: Visit) -> None:
    visited = visit(server.url, "#models")
    page = visited.page
    page.get_by_role("button", name="Compare version 3").click()
    panel = page.locator("#compare")
    expect(panel.locator(".verdict")).to_contain_text("REJECT")
    told = httpx.get(f"{server.url}/models/digits/compare?a=1&b=3", trust_env=False).json()
    expect(panel.locator(".verdict")).to_contain_text(told["reasons"][0])
    expect(panel.locator("dl")).to_contain_text(f"{100 * told['acc_b']:.2f}\u202f%")
    expect(panel.locator("dl")).to_contain_text(str(told["right_to_wrong"]))
    expect(panel.locator("tbody tr")).to_have_count(10)

    panel.get_by_label("to version").fill("2")
    panel.get_by_role("button", name="Compare").click()
    expect(panel.locator(".verdict")).to_contain_text("PROMOTE")

    panel.get_by_label("to version").fill("4")
    panel.get_by_role("button", name="Compare").click()
    expect(panel.locator(".problem")).to_contain_text("tested on different images")
    expect(panel.locator(".problem")).to_contain_text("mindtrace registry evaluate")
    panel.get_by_label("to version").fill("9")
    panel.get_by_role("button", name="Compare").click()
    expect(panel.locator(".problem")).to_contain_text("No version 'digits/9'")
    visited.forgive("status of 409")
    visited.forgive("status of 404")
    panel.get_by_role("button", name="Close").click()
    expect(panel).to_be_hidden()


def test_a_version_is_promoted_and_rolled_back(own: Server, visit: Visit) -> None:
    page = visit(own.url).page
    draw(page, ZERO)
    expect(page.locator(".who")).to_contain_text("digits/1")
    page.get_by_role("link", name="Models").click()
    row(page, 2).get_by_role("button", name="Promote").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Asking the gate")
    expect(dialog.locator(".verdict")).to_contain_text("PROMOTE")
    assert history(own).headers["etag"] == '"1"', "nothing has changed yet"
    dialog.get_by_label("Reason").fill("it is younger")
    dialog.get_by_role("button", name="Make 2 champion").click()
    expect(dialog).to_have_count(0)
    expect(row(page, 2)).to_contain_text("champion")
    expect(page.locator("#history li").first).to_contain_text("it is younger")
    expect(page.locator("#said")).to_have_text("Version 2 is champion")
    expect(page.locator("#status-text")).to_have_text("serving digits/2")

    page.get_by_role("link", name="Try it").click()
    expect(page.locator(".who")).to_contain_text("digits/2")

    page.get_by_role("link", name="Models").click()
    row(page, 2).get_by_role("button", name="Roll back").click()
    expect(dialog).to_contain_text("Version 1 comes back in the place of version 2")
    expect(dialog.locator(".verdict")).to_contain_text("PROMOTE")
    dialog.get_by_role("button", name="Back to version 1").click()
    expect(row(page, 1)).to_contain_text("champion")
    expect(page.locator("#history li").first).to_contain_text("Version 1 rolled back")
    expect(page.get_by_role("button", name="Roll back")).to_have_count(0)
    expect(page.locator("#status-text")).to_have_text("serving digits/1")


def test_what_the_gate_refuses_wants_a_reason(own: Server, visit: Visit) -> None:
    visited = visit(own.url, "#models")
    page = visited.page
    row(page, 3).get_by_role("button", name="Promote").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(".verdict")).to_contain_text("REJECT")
    anyway = dialog.get_by_role("button", name="Promote all the same")
    anyway.click()
    expect(dialog.get_by_label("give a reason")).to_be_focused()
    assert history(own).headers["etag"] == '"1"'
    dialog.get_by_label("give a reason").fill("to see it fail")
    anyway.click()
    expect(row(page, 3)).to_contain_text("champion")
    entry = history(own).json()["items"][0]
    assert (entry["to"], entry["reason"], entry["verdict"]) == (3, "to see it fail", "REJECT")
    visited.forgive("status of 409")


def test_escape_changes_nothing(own: Server, visit: Visit) -> None:
    page = visit(own.url).page
    page.get_by_role("link", name="Models").click()
    page.get_by_role("button", name="Promote version 2").click()
    expect(page.get_by_role("dialog").locator(".verdict")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Promote version 2")).to_be_focused()
    page.get_by_role("button", name="Promote version 2").click()
    page.go_back()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert history(own).headers["etag"] == '"1"'


def test_somebody_else_is_quicker(own: Server, visit: Visit) -> None:
    visited = visit(own.url, "#models")
    page = visited.page
    row(page, 2).get_by_role("button", name="Promote").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(".verdict")).to_contain_text("PROMOTE")
    promote(own, 3)
    dialog.get_by_role("button", name="Make 2 champion").click()
    expect(dialog.locator(".problem")).to_contain_text("Somebody else was quicker")
    expect(dialog.locator("dl")).to_contain_text("Accuracy of digits/3")
    assert history(own).json()["items"][0]["to"] == 3
    dialog.get_by_label("reason").fill("seen anew")
    dialog.get_by_role("button", name=re.compile("Make 2 champion|Promote all the same")).click()
    expect(row(page, 2)).to_contain_text("champion")

    row(page, 2).get_by_role("button", name="Roll back").click()
    expect(dialog).to_contain_text("Version 3 comes back")
    promote(own, 1)
    dialog.get_by_role("button", name="Back to version 3").click()
    expect(dialog.locator(".problem")).to_contain_text("Somebody else was quicker")
    expect(dialog).to_contain_text("Version 2 comes back in the place of version 1")
    dialog.get_by_role("button", name="Cancel").click()
    expect(row(page, 1)).to_contain_text("champion")
    visited.forgive("status of 4(12|09)")
