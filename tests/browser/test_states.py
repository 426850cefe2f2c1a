"""What a page says when things are not as they should be: no server, no version, no token."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect
from tests.browser.visiting import ZERO, Serve, Visit, draw

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.proof]

TOKEN = "c0ffee-c0ffee-c0ffee"


def test_a_server_that_is_killed_and_comes_back(versions: Path, serve: Serve, visit: Visit) -> None:
    server = serve(versions)
    visited = visit(server.url)
    page, gone = visited.page, visited.page.locator("#gone")
    draw(page, ZERO)
    expect(page.locator("#answer .label")).to_be_visible()
    expect(gone).to_be_hidden()
    server.kill()
    draw(page, ZERO)
    expect(page.locator("#answer .problem")).to_contain_text("The server does not answer")
    expect(gone).to_be_visible()
    expect(page.locator("#status-text")).to_have_text("no answer")
    for part, place in (("Models", "#models-problem"), ("Jobs", "#jobs-problem")):
        page.get_by_role("link", name=part).click()
        expect(page.locator(place)).to_contain_text("The server does not answer")

    server.start()
    expect(page.locator("#status-text")).to_have_text("serving digits/1")
    expect(gone).to_be_hidden()
    page.get_by_role("link", name="Models").click()
    expect(page.locator("#versions tbody tr")).to_have_count(4)
    expect(page.locator("#models-problem .problem")).to_have_count(0)
    page.get_by_role("link", name="Try it").click()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#answer .label")).to_be_visible()
    visited.forgive("ERR_CONNECTION_(REFUSED|RESET)|ERR_EMPTY_RESPONSE|ERR_INCOMPLETE")


@pytest.mark.parametrize(("path", "shown"), [("docs", ".opblock-tag"), ("redoc", "#main h1")])
def test_the_api_is_documented_with_a_token_and_without_a_network(
    versions: Path, serve: Serve, visit: Visit, tmp_path: Path, path: str, shown: str
) -> None:
    """Requests to another host are faults of a visit."""
    file = tmp_path / "token.txt"
    file.write_text(TOKEN)
    visited = visit(serve(versions, "--token-file", str(file)).url, path)
    page, dialog = visited.page, visited.page.get_by_role("dialog")
    dialog.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator(shown).first).to_be_visible()
    expect(page.locator("#main")).to_contain_text("Classify images")
    if path == "docs":
        page.locator("#operations-models-list_models button").first.click()
        page.get_by_role("button", name="Try it out").click()
        page.get_by_role("button", name="Execute").click()
        expect(page.locator(".live-responses-table .response-col_status").last).to_contain_text(
            "200"
        )
    else:
        visited.forgive("warning: Incompatible types in allOf")  # a reason, where it must be one
    visited.forgive("status of 401")


def test_a_server_without_a_version(serve: Serve, visit: Visit, tmp_path: Path) -> None:
    visited = visit(serve(tmp_path).url)
    page = visited.page
    expect(page.locator("#status-text")).to_have_text("no version yet")
    draw(page, ZERO)
    expect(page.locator("#answer .problem strong")).to_have_text("No version to serve yet")
    expect(page.locator("#answer .problem")).to_contain_text("mindtrace train")
    page.get_by_role("link", name="Models").click()
    expect(page.locator("#versions")).to_contain_text("Nothing is registered yet")
    visited.forgive("status of 503")


def test_the_token_is_asked_for_and_kept_for_the_tab(
    versions: Path, serve: Serve, visit: Visit, tmp_path: Path
) -> None:
    file = tmp_path / "token.txt"
    file.write_text(TOKEN)
    url = serve(versions, "--token-file", str(file)).url
    visited = visit(url)
    page, dialog = visited.page, visited.page.get_by_role("dialog")
    field, rows = dialog.get_by_label("Token"), page.locator("#versions tbody tr")
    # Who gives none is not asked again, but told, until he wants to be asked.
    draw(page, ZERO)
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.locator("#answer .problem")).to_contain_text("wants its token")
    page.get_by_role("link", name="Models").click()
    expect(page.locator("#models-problem")).to_contain_text("wants its token")
    expect(dialog).to_have_count(0)
    page.get_by_role("button", name="Token").click()
    expect(dialog).to_contain_text("wants its token")
    expect(field).to_be_focused()
    for wrong in ("c0ffee", "c\u00f6ffee"):
        field.fill(wrong)
        dialog.get_by_role("button", name="Use it").click()
        expect(dialog.get_by_role("alert")).to_have_text("The token is wrong.")
    field.fill(TOKEN)
    page.keyboard.press("Enter")
    expect(rows).to_have_count(4)
    expect(dialog).to_have_count(0)

    page.reload()
    expect(rows).to_have_count(4)
    page.get_by_role("link", name="Try it").click()
    draw(page, ZERO)
    expect(page.locator("#answer .label")).to_have_text("0")
    assert page.evaluate("localStorage.length") == 0
    assert page.evaluate("document.cookie") == ""
    assert TOKEN not in page.url + page.content()
    other = page.context.new_page()
    other.goto(f"{url}/#models")
    expect(other.get_by_role("dialog")).to_contain_text("wants its token")

    # One that has become wrong is asked for, and the question is asked again with the new one.
    page.evaluate("sessionStorage.setItem('mindtrace-token', 'of yesterday')")
    page.reload()
    page.get_by_role("link", name="Models").click()
    expect(dialog.get_by_role("alert")).to_have_text("The token is wrong.")
    field.fill(TOKEN)
    page.keyboard.press("Enter")
    expect(rows).to_have_count(4)
    visited.forgive("status of 401")
