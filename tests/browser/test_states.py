"""What a page says when things are not as they should be: no server, no version, no token."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect
from tests.browser.conftest import Serve, Visit
from tests.browser.drawing import ZERO, draw

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.proof]

TOKEN = "c0ffee-c0ffee-c0ffee"


@pytest.fixture
def guarded(versions: Path, serve: Serve, tmp_path: Path) -> str:
    """The URL of a server that wants a token."""
    file = tmp_path / "token.txt"
    file.write_text(TOKEN)
    return serve(versions, "--token-file", str(file)).url


def test_a_server_that_is_killed_and_comes_back(versions: Path, serve: Serve, visit: Visit) -> None:
    server = serve(versions)
    visited = visit(server.url)
    page = visited.page
    draw(page, ZERO)
    expect(page.locator("#answer .label")).to_be_visible()
    expect(page.locator("#gone")).to_be_hidden()
    server.kill()
    draw(page, ZERO)
    expect(page.locator("#answer .problem")).to_contain_text("The server does not answer")
    expect(page.locator("#gone")).to_be_visible()
    expect(page.locator("#status-text")).to_have_text("no answer")
    for part, place in (("Models", "#models-problem"), ("Jobs", "#jobs-problem")):
        page.get_by_role("link", name=part).click()
        expect(page.locator(place)).to_contain_text("The server does not answer")

    server.start()
    expect(page.locator("#status-text")).to_have_text("serving digits/1")
    expect(page.locator("#gone")).to_be_hidden()
    page.get_by_role("link", name="Models").click()
    expect(page.locator("#versions tbody tr")).to_have_count(4)
    expect(page.locator("#models-problem .problem")).to_have_count(0)
    page.get_by_role("link", name="Try it").click()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#answer .label")).to_be_visible()
    visited.forgive("ERR_CONNECTION_(REFUSED|RESET)|ERR_EMPTY_RESPONSE|ERR_INCOMPLETE")


def test_a_server_without_a_version(serve: Serve, visit: Visit, tmp_path: Path) -> None:
    server = serve(tmp_path)
    visited = visit(server.url)
    page = visited.page
    expect(page.locator("#status-text")).to_have_text("no version yet")
    draw(page, ZERO)
    expect(page.locator("#answer .problem strong")).to_have_text("No version to serve yet")
    expect(page.locator("#answer .problem")).to_contain_text("mindtrace train")
    page.get_by_role("link", name="Models").click()
    expect(page.locator("#versions")).to_contain_text("Nothing is registered yet")
    visited.forgive("status of 503")


def test_the_token_is_asked_for_and_kept_for_the_tab(guarded: str, visit: Visit) -> None:
    visited = visit(guarded, "#models")
    page = visited.page
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("wants its token")
    expect(dialog.get_by_label("Token")).to_be_focused()
    for wrong in ("c0ffee", "c\u00f6ffee"):
        dialog.get_by_label("Token").fill(wrong)
        dialog.get_by_role("button", name="Use it").click()
        expect(dialog.get_by_role("alert")).to_have_text("The token is wrong.")
    dialog.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator("#versions tbody tr")).to_have_count(4)
    expect(dialog).to_have_count(0)

    page.reload()
    expect(page.locator("#versions tbody tr")).to_have_count(4)
    page.get_by_role("link", name="Try it").click()
    draw(page, ZERO)
    expect(page.locator("#answer .label")).to_have_text("0")
    page.get_by_role("link", name="Models").click()
    page.get_by_role("button", name="Compare version 2").click()
    expect(page.locator("#compare .verdict")).to_contain_text("PROMOTE")
    assert page.evaluate("localStorage.length") == 0
    assert page.evaluate("document.cookie") == ""
    assert TOKEN not in page.url + page.content()
    other = page.context.new_page()
    other.goto(f"{guarded}/#models")
    expect(other.get_by_role("dialog")).to_contain_text("wants its token")
    visited.forgive("status of 401")


def test_no_token_is_told_and_asked_for_again_on_demand(guarded: str, visit: Visit) -> None:
    visited = visit(guarded)
    page = visited.page
    draw(page, ZERO)
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.locator("#answer .problem")).to_contain_text("wants its token")
    page.get_by_role("link", name="Models").click()
    expect(page.locator("#models-problem")).to_contain_text("wants its token")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("button", name="Token").click()
    page.get_by_role("dialog").get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator("#versions tbody tr")).to_have_count(4)
    page.get_by_role("link", name="Try it").click()
    page.get_by_role("button", name="Clear").click()
    draw(page, ZERO)
    expect(page.locator("#answer .label")).to_have_text("0")
    visited.forgive("status of 401")


def test_a_token_that_became_wrong(guarded: str, visit: Visit) -> None:
    visited = visit(guarded, "#models")
    page = visited.page
    page.get_by_role("dialog").get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator("#versions tbody tr")).to_have_count(4)
    page.evaluate("sessionStorage.setItem('mindtrace-token', 'of yesterday')")
    page.get_by_role("button", name="Compare version 2").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_have_text("The token is wrong.")
    page.get_by_role("dialog").get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator("#compare .verdict")).to_contain_text("PROMOTE")
    visited.forgive("status of 401")
