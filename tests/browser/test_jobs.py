"""Jobs on the page: faults of a configuration, a cancellation, a full queue, an open log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route, expect
from tests.browser.visiting import Serve, Server, Visit
from tests.jobs.fake import taken

from mindtrace.jobs.queue import JobQueue

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.proof]


@pytest.fixture
def idle(trained: Path, serve: Serve) -> Server:
    """A server without a worker, whose queue holds two jobs."""
    return serve(trained, "--no-worker", JOBS__MAX_QUEUED="2")


def fill(page: Page, *lines: str) -> None:
    text = "\n".join(["[data]", "source = digits", "[train]", *lines])
    page.get_by_label("Configuration", exact=True).fill(text)


def train(page: Page, *lines: str) -> None:
    fill(page, *lines)
    page.get_by_role("button", name="Train").click()


def jobs(server: Server) -> list[dict[str, Any]]:
    return list(httpx.get(f"{server.url}/jobs", trust_env=False, timeout=60).json()["items"])


def test_a_configuration_is_checked_as_one_types(idle: Server, visit: Visit) -> None:
    visited = visit(idle.url, "#jobs")
    page = visited.page
    check, base = page.locator("#config-check"), page.get_by_placeholder("NAME/VERSION")
    # It begins with what is served.
    expect(base).to_have_value("digits/1")
    expect(page.locator("#config")).to_have_value("[train]\nmax_epochs = 3\nlr = 0.003\nseed = 0\n")
    fill(page, "max_epochs = -3", "max_epoch = 2")
    check.get_by_role("button", name="line 5").click()
    expect(page.locator("#config")).to_be_focused()
    chosen = page.evaluate(
        "(({ value, selectionStart, selectionEnd }) => value.slice(selectionStart, selectionEnd))"
        "(document.getElementById('config'))"
    )
    assert chosen == "max_epoch = 2"
    train(page, "[registry]", "tracking_uri = sqlite:///elsewhere.db")
    expect(check).to_contain_text("tracking_uri")
    assert jobs(idle) == []
    fill(page, "max_epochs = 3")
    expect(check).to_have_text("This can be trained.")
    base.fill("digits/99")
    expect(check).to_contain_text("digits/99")
    base.fill("digits/1")
    expect(check).to_have_text("This can be trained.")
    visited.forgive("status of (422|404)")


def test_a_running_job_is_cancelled(idle: Server, visit: Visit) -> None:
    page = visit(idle.url, "#jobs").page
    train(page, "max_epochs = 1")
    job, cancel = page.locator("#job"), page.locator("#job").get_by_role("button", name="Cancel")
    dialog = page.get_by_role("dialog")
    expect(job.locator(".state")).to_have_text("queued")
    worker = taken(JobQueue(None, idle.root), jobs(idle)[0]["job_id"])
    expect(job.locator(".state")).to_have_text("running")
    cancel.click()
    dialog.get_by_role("button", name="Keep it").click()
    expect(dialog).to_have_count(0)
    assert not jobs(idle)[0]["cancelling"]
    cancel.click()
    dialog.get_by_role("button", name="Cancel the job").click()
    expect(job).to_contain_text("Cancelling…")
    expect(cancel).to_have_count(0)
    worker.finish("cancelled")
    expect(job.locator(".state")).to_have_text("cancelled")
    expect(job).not_to_contain_text("Cancelling…")
    expect(cancel).to_have_count(0)


def test_two_clicks_are_one_job_and_a_full_queue_is_told(idle: Server, visit: Visit) -> None:
    visited = visit(idle.url, "#jobs")
    page = visited.page
    fill(page, "max_epochs = 1")
    page.evaluate(
        "document.querySelectorAll('#submit .primary').forEach((b) => { b.click(); b.click(); })"
    )
    expect(page.locator("#job .state")).to_have_text("queued")
    for number in (2, 3):
        expect(page.locator("#jobs-list li")).to_have_count(number - 1)
        train(page, f"max_epochs = {number}")
    expect(page.locator("#config-check .problem")).to_contain_text("Enough for now")
    assert len(jobs(idle)) == 2
    visited.forgive("status of 429")


def test_a_log_that_is_closed_and_opened_is_read_once(idle: Server, visit: Visit) -> None:
    page = visit(idle.url, "#jobs").page
    train(page, "max_epochs = 1")
    expect(page.locator("#job .state")).to_have_text("queued")
    held: list[Route] = []
    page.route("**/log?*", lambda route: held.append(route))
    with page.expect_request("**/log?*"):
        page.locator("#job summary").click()
    page.evaluate(
        """async () => {
          const details = document.querySelector("#job details");
          for (const open of [false, true]) {
            const toggled = new Promise((done) => (details.ontoggle = done));
            details.open = open;
            await toggled;
          }
          await fetch("/healthz/live"); // behind what was asked before
        }"""
    )
    assert len(held) == 1
    held[0].fulfill(body="epoch 1/1\n", content_type="text/plain")
    expect(page.locator("#job pre")).to_have_text("epoch 1/1\n")
