"""Versions on the page: long tables, what the gate refuses, and who is quicker."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.sync_api import Route, expect
from tests.browser.make_versions import MANY
from tests.browser.visiting import Serve, Server, Visit

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.proof]


@pytest.fixture
def own(versions: object, serve: Serve) -> Server:
    """A server that a test may change."""
    return serve(versions, "--no-worker")


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


def test_a_long_table_comes_in_pages(server: Server, visit: Visit) -> None:
    page = visit(server.url, "#models").page
    page.get_by_label("Model", exact=True).select_option("many")
    rows, more = page.locator("#versions tbody tr"), page.get_by_role("button", name="Older")
    for shown in (20, 40):
        expect(rows).to_have_count(shown)
        more.click()
    expect(rows).to_have_count(MANY)
    expect(more).to_have_count(0)
    names = page.locator("#versions tbody th").all_inner_texts()
    assert names == [str(version) for version in range(MANY, 0, -1)]


def test_other_versions_are_compared(server: Server, visit: Visit) -> None:
    visited = visit(server.url, "#models")
    panel = visited.page.locator("#compare")
    for version, place, text in (
        (2, ".verdict", "PROMOTE"),
        (4, ".problem", "tested on different images"),
        (4, ".problem", "mindtrace registry evaluate"),
        (9, ".problem", "No version 'digits/9'"),
    ):
        visited.page.get_by_role("button", name="Compare version 3").click()
        expect(panel.locator(".verdict")).to_contain_text("REJECT")
        panel.get_by_label("to version").fill(f"{version}")
        panel.get_by_role("button", name="Compare").click()
        expect(panel.locator(place)).to_contain_text(text)
    visited.forgive("status of 409")
    visited.forgive("status of 404")


def test_what_the_gate_refuses_wants_a_reason(own: Server, visit: Visit) -> None:
    visited = visit(own.url)
    page, dialog = visited.page, visited.page.get_by_role("dialog")
    page.get_by_role("link", name="Models").click()
    third = page.get_by_role("button", name="Promote version 3")
    third.click()
    expect(dialog.locator(".verdict")).to_contain_text("REJECT")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(third).to_be_focused()
    third.click()
    page.go_back()
    expect(dialog).to_have_count(0)
    page.go_forward()
    third.click()
    anyway = dialog.get_by_role("button", name="Promote all the same")
    anyway.click()
    expect(dialog.get_by_label("give a reason")).to_be_focused()
    assert history(own).headers["etag"] == '"1"', "nothing has changed yet"
    dialog.get_by_label("give a reason").fill("to see it fail")
    anyway.click()
    expect(page.locator('[data-version="3"]')).to_contain_text("champion")
    entry = history(own).json()["items"][0]
    assert (entry["to"], entry["reason"], entry["verdict"]) == (3, "to see it fail", "REJECT")
    assert entry["forced"] is True
    expect(page.locator("#history li").first.locator(".forced")).to_have_text("forced")
    page.locator('[data-version="3"]').get_by_role("link").click()
    expect(page.locator("#models-title")).to_have_text("digits/3")
    expect(page.locator("#history li")).to_have_count(1)
    expect(page.locator("#history li .forced")).to_have_text("forced")
    visited.forgive("status of 409")


def test_the_focus_returns_where_a_dialog_was_opened(server: Server, visit: Visit) -> None:
    """Also if the table was being loaded anew at that moment."""
    visited = visit(server.url, "#models")
    page = visited.page
    third = page.get_by_role("button", name="Promote version 3")
    expect(third).to_be_visible()
    held: list[Route] = []
    page.route("**/versions?*", lambda route: held.append(route))
    with page.expect_request("**/versions?*"):
        page.evaluate("dispatchEvent(new Event('served'))")
    third.click()
    expect(page.get_by_role("dialog").locator(".verdict")).to_contain_text("REJECT")
    with page.expect_response("**/versions?*"):
        held[0].continue_()
    page.unroute("**/versions?*")
    page.evaluate("fetch('/healthz/live').then((answer) => answer.text())")  # behind the answer
    page.keyboard.press("Escape")
    expect(third).to_be_focused()
    visited.forgive("status of 409")


def test_somebody_else_is_quicker(own: Server, visit: Visit) -> None:
    visited = visit(own.url, "#models")
    page, dialog = visited.page, visited.page.get_by_role("dialog")
    page.get_by_role("button", name="Promote version 2").click()
    expect(dialog.locator(".verdict")).to_contain_text("PROMOTE")
    promote(own, 3)
    dialog.get_by_role("button", name="Make 2 champion").click()
    expect(dialog.locator(".problem")).to_contain_text("Somebody else was quicker")
    expect(dialog.locator("dl")).to_contain_text("Accuracy of digits/3")
    assert history(own).json()["items"][0]["to"] == 3
    dialog.get_by_label("reason").fill("seen anew")
    dialog.get_by_role("button", name=re.compile("Make 2 champion|Promote all the same")).click()
    expect(page.locator('[data-version="2"]')).to_contain_text("champion")

    page.get_by_role("button", name="Roll back").click()
    expect(dialog).to_contain_text("Version 3 comes back")
    promote(own, 1)
    dialog.get_by_role("button", name="Back to version 3").click()
    expect(dialog.locator(".problem")).to_contain_text("Somebody else was quicker")
    expect(dialog).to_contain_text("Version 2 comes back in the place of version 1")
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.locator('[data-version="1"]')).to_contain_text("champion")
    visited.forgive("status of 4(12|09)")
