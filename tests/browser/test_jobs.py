"""Jobs on the page: a configuration is checked, submitted, watched, cancelled; its log is read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, Route, expect
from tests.browser.conftest import Serve, Visit
from tests.browser.servers import Server
from tests.jobs.fake import taken

from mindtrace.jobs.queue import JobQueue

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# A machine that trains beside other tests may be slow to begin.
LONG = 240_000  # milliseconds


@pytest.fixture(scope="module")
def working(trained: Path, serve: Serve) -> Server:
    """A server with a worker beside it; jobs of this module run one after the other."""
    return serve(trained, COMPUTE__THREADS="1")


def fill(page: Page, config: str) -> None:
    page.get_by_label("Configuration", exact=True).fill(config)


def config(max_epochs: int, **more: object) -> str:
    lines = ["[data]", "source = digits", "[train]", f"max_epochs = {max_epochs}"]
    return "\n".join([*lines, *(f"{key} = {value}" for key, value in more.items())])


def jobs(server: Server) -> list[dict[str, object]]:
    return list(httpx.get(f"{server.url}/jobs", trust_env=False, timeout=60).json()["items"])


def test_a_configuration_is_checked_as_one_types(working: Server, visit: Visit) -> None:
    visited = visit(working.url, "#jobs")
    page = visited.page
    check = page.locator("#config-check")
    fill(page, config(3))
    expect(check).to_have_text("This can be trained.")
    fill(page, config(-3, max_epoch=2))
    expect(check.locator("li")).to_have_count(2)
    expect(check).to_contain_text("did you mean 'max_epochs'?")
    expect(page.locator("#config")).to_have_attribute("aria-invalid", "true")
    check.get_by_role("button", name="line 5").click()
    expect(page.locator("#config")).to_be_focused()
    chosen = page.evaluate(
        "(({ value, selectionStart, selectionEnd }) => value.slice(selectionStart, selectionEnd))"
        "(document.getElementById('config'))"
    )
    assert chosen == "max_epoch = 2"
    fill(page, config(3) + "\n[registry]\ntracking_uri = sqlite:///elsewhere.db")
    expect(check).to_contain_text("tracking_uri")
    page.get_by_role("button", name="Train").click()
    expect(check).to_contain_text("tracking_uri")
    assert jobs(working) == []
    page.get_by_text("Start from a version").click()
    fill(page, config(3))
    expect(check).to_have_text("This can be trained.")
    page.get_by_placeholder("NAME/VERSION").fill("digits/99")
    expect(check).to_contain_text("digits/99")
    page.get_by_placeholder("NAME/VERSION").fill("digits/1")
    expect(check).to_have_text("This can be trained.")
    visited.forgive("status of (422|404)")


def test_a_job_is_submitted_and_watched_to_its_end(working: Server, visit: Visit) -> None:
    page = visit(working.url, "#jobs").page
    fill(page, config(4, seed=5))
    page.get_by_role("button", name="Train").click()
    job = page.locator("#job")
    expect(job.locator(".state")).to_have_text(re.compile("queued|running|succeeded"))
    expect(job.locator(".state")).to_have_text("succeeded", timeout=LONG)
    expect(job.locator("h2")).to_contain_text("digits/2")
    expect(job.locator(".curve .dot")).to_have_count(4)
    told = jobs(working)[0]
    progress = told["progress"]
    assert isinstance(progress, dict)
    shown = f"{100 * progress['val_acc']:.1f}\u202f% after epoch 4"
    expect(job.locator("figcaption")).to_contain_text(shown)
    expect(page.locator("#jobs-list li")).to_contain_text("digits/2")
    expect(page.locator("#said")).to_have_text("The job has succeeded")

    job.get_by_text("Log", exact=True).click()
    expect(job.locator("pre")).to_contain_text("epoch 4/4")
    page.get_by_role("link", name="Models").click()
    expect(page.locator('#versions tr[data-version="2"]')).to_be_visible()

    # Who comes later sees the whole curve, from the same stream.
    later = visit(working.url, "#jobs").page
    expect(later.locator("#job .curve .dot")).to_have_count(4)


def test_a_running_job_is_cancelled(working: Server, visit: Visit) -> None:
    page = visit(working.url, "#jobs").page
    fill(page, config(100_000, seed=6))
    page.get_by_role("button", name="Train").click()
    job, dialog = page.locator("#job"), page.get_by_role("dialog")
    expect(job.locator(".state")).to_have_text("running", timeout=LONG)
    expect(job.locator(".curve .line")).to_be_visible(timeout=LONG)
    expect(page.locator("#jobs-list progress").first).to_be_visible()
    before = job.locator("figcaption").inner_text()
    expect(job.locator("figcaption")).not_to_have_text(before)

    job.get_by_role("button", name="Cancel").click()
    dialog.get_by_role("button", name="Keep it").click()
    expect(dialog).to_have_count(0)
    assert jobs(working)[0]["state"] == "running"
    job.get_by_role("button", name="Cancel").click()
    dialog.get_by_role("button", name="Cancel the job").click()
    expect(job.locator(".state")).to_have_text("cancelled", timeout=LONG)
    expect(job.get_by_role("button", name="Cancel")).to_have_count(0)
    assert jobs(working)[0]["state"] == "cancelled"
    assert jobs(working)[0]["version"] is None


def test_a_job_that_is_being_cancelled_is_told(trained: Path, serve: Serve, visit: Visit) -> None:
    server = serve(trained, "--no-worker")
    page = visit(server.url, "#jobs").page
    fill(page, config(1))
    page.get_by_role("button", name="Train").click()
    job, cancel = page.locator("#job"), page.get_by_role("button", name="Cancel")
    expect(job.locator(".state")).to_have_text("queued")
    queue = JobQueue(None, server.root, 8)
    worker = taken(queue, str(jobs(server)[0]["job_id"]))
    expect(job.locator(".state")).to_have_text("running")
    cancel.click()
    page.get_by_role("button", name="Cancel the job").click()
    expect(job).to_contain_text("Cancelling…")
    expect(cancel).to_have_count(0)
    worker.finish("cancelled")
    expect(job.locator(".state")).to_have_text("cancelled")
    expect(job).not_to_contain_text("Cancelling…")


def test_a_question_about_a_job_that_has_ended_goes_away(working: Server, visit: Visit) -> None:
    page = visit(working.url, "#jobs").page
    fill(page, config(3, seed=8))
    page.get_by_role("button", name="Train").click()
    page.locator("#job").get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(page.locator("#job .state")).to_have_text("succeeded", timeout=LONG)
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_two_clicks_are_one_job(trained: Path, serve: Serve, visit: Visit) -> None:
    server = serve(trained, "--no-worker")
    page = visit(server.url, "#jobs").page
    fill(page, config(1, seed=7))
    page.evaluate(
        "document.querySelectorAll('#submit .primary').forEach((b) => { b.click(); b.click(); })"
    )
    expect(page.locator("#jobs-list li")).to_have_count(1)
    expect(page.locator("#job .state")).to_have_text("queued")
    assert len(jobs(server)) == 1


def test_a_full_queue_is_told(trained: Path, serve: Serve, visit: Visit) -> None:
    server = serve(trained, "--no-worker", JOBS__MAX_QUEUED="2")
    visited = visit(server.url, "#jobs")
    page = visited.page
    for number in (1, 2, 3):
        fill(page, config(number))
        page.get_by_role("button", name="Train").click()
        expect(page.locator("#jobs-list li")).to_have_count(min(number, 2))
    expect(page.locator("#config-check .problem")).to_contain_text("Enough for now")
    assert len(jobs(server)) == 2
    visited.forgive("status of 429")


def test_a_server_without_jobs_is_told(working: Server, visit: Visit) -> None:
    visited = visit(working.url, "#try")
    page = visited.page

    def absent(route: Route) -> None:
        problem = {"title": "Not Found", "status": 404, "detail": "there is nothing at /jobs"}
        route.fulfill(status=404, body=json.dumps(problem), content_type="application/problem+json")

    page.route("**/jobs", absent)
    page.get_by_role("link", name="Jobs").click()
    expect(page.locator("#jobs-problem")).to_contain_text("no such part")
    expect(page.locator("#submit")).to_be_hidden()
    visited.forgive("status of 404")


def test_a_log_that_is_closed_and_opened_is_read_once(
    trained: Path, serve: Serve, visit: Visit
) -> None:
    page = visit(serve(trained, "--no-worker").url, "#jobs").page
    fill(page, config(1))
    page.get_by_role("button", name="Train").click()
    expect(page.locator("#job .state")).to_have_text("queued")
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/log?*", hold)
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
