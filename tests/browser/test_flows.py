"""One way through each page: try an image, promote and roll back a version, watch a job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from tests.browser.visiting import FOUR, Server, Visit, draw
from tests.jobs.fake import taken

from mindtrace.data.datasets import read_digits
from mindtrace.jobs.queue import JobQueue

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def get(server: Server, path: str) -> Any:
    return httpx.get(f"{server.url}{path}", trust_env=False, timeout=60).json()


def test_an_image_is_classified(server: Server, visit: Visit, tmp_path: Path) -> None:
    visited = visit(server.url)
    page = visited.page
    label, undo = page.locator("#answer .label"), page.get_by_role("button", name="Undo")
    expect(page.locator("#status-text")).to_have_text("serving digits/1")
    expect(undo).to_be_disabled()
    with page.expect_response("**/inference") as told:
        draw(page, FOUR[:1])
    first = told.value.json()
    expect(label).to_have_text(first["class_name"])
    expect(page.locator(".who")).to_contain_text("digits/1")
    expect(page.locator(".who")).to_contain_text(" ms")
    expect(page.locator(".bars li")).to_have_count(10)
    shares = page.locator(".bars .share").all_inner_texts()
    assert shares == [f"{100 * p:.1f}\u202f%" for p in first["probabilities"]]
    expect(page.locator("#said")).to_contain_text(f"{first['class_name']}, ")

    with page.expect_response("**/inference") as told:
        draw(page, FOUR[1:])
    sent = json.loads(told.value.request.post_data or "")
    again = {"json": {"image": sent["image"]}, "trust_env": False, "timeout": 60}
    answer = httpx.post(f"{server.url}/inference", **again)
    assert answer.json()["label"] == told.value.json()["label"]
    with page.expect_response("**/inference") as told:
        undo.click()
    assert told.value.json()["probabilities"] == first["probabilities"]
    page.get_by_role("button", name="Clear").click()
    expect(label).to_have_count(0)
    expect(page.locator("#pad-empty")).to_be_visible()

    picture = tmp_path / "digit.png"
    Image.fromarray(read_digits()[0][0]).save(picture)
    page.get_by_label("Choose picture").set_input_files(picture)
    expect(label).to_have_text("0")
    expect(page.get_by_alt_text("The picture digit.png")).to_be_visible()
    expect(page.locator("#pad")).to_be_hidden()
    picture.write_bytes(b"no image")
    page.get_by_label("Choose picture").set_input_files(picture)
    problem = page.locator("#answer .problem")
    expect(problem.locator("strong")).to_have_text("Not an image that can be read")
    expect(problem).to_have_attribute("role", "alert")
    visited.forgive("status of 422")


def test_a_version_is_promoted_and_rolled_back(server: Server, visit: Visit) -> None:
    page = visit(server.url).page
    draw(page, FOUR)
    expect(page.locator(".who")).to_contain_text("digits/1")
    page.get_by_role("link", name="Models").click()
    first, second, third = (page.locator(f'[data-version="{number}"]') for number in (1, 2, 3))
    expect(page.locator("#versions tbody tr")).to_have_count(4)
    expect(first).to_contain_text("champion")
    expect(page.locator("#versions .tag")).to_have_count(1)
    told = get(server, "/models/digits/versions/3")
    expect(third).to_contain_text(f"{100 * told['metrics']['test_acc']:.1f}\u202f%")
    expect(third.locator("time")).to_have_attribute("datetime", told["created_at"])
    expect(page.locator("#history li")).to_have_count(1)
    expect(page.locator("#history")).to_contain_text("first version")

    third.get_by_role("button", name="Compare").click()
    panel = page.locator("#compare")
    told = get(server, "/models/digits/compare?a=1&b=3")
    expect(panel.locator(".verdict")).to_contain_text("REJECT")
    expect(panel.locator(".verdict")).to_contain_text(told["reasons"][0])
    expect(panel.locator("dl")).to_contain_text(f"{100 * told['acc_b']:.2f}\u202f%")
    expect(panel.locator("dl")).to_contain_text(str(told["right_to_wrong"]))
    expect(panel.locator("tbody tr")).to_have_count(10)
    panel.get_by_role("button", name="Close").click()
    expect(panel).to_be_hidden()

    second.get_by_role("button", name="Promote").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Asking the gate")
    expect(dialog.locator(".verdict")).to_contain_text("PROMOTE")
    assert len(get(server, "/models/digits/history")["items"]) == 1, "nothing has changed yet"
    dialog.get_by_label("Reason").fill("it is younger")
    dialog.get_by_role("button", name="Make 2 champion").click()
    expect(dialog).to_have_count(0)
    expect(second).to_contain_text("champion")
    expect(page.locator("#history li").first).to_contain_text("it is younger")
    expect(page.locator("#said")).to_have_text("Version 2 is champion")
    expect(page.locator("#status-text")).to_have_text("serving digits/2")
    page.get_by_role("link", name="Try it").click()
    expect(page.locator(".who")).to_contain_text("digits/2")

    page.get_by_role("link", name="Models").click()
    second.get_by_role("button", name="Roll back").click()
    expect(dialog).to_contain_text("Version 1 comes back in the place of version 2")
    expect(dialog.locator(".verdict")).to_contain_text("PROMOTE")
    dialog.get_by_role("button", name="Back to version 1").click()
    expect(first).to_contain_text("champion")
    expect(page.locator("#history li").first).to_contain_text("Version 1 rolled back")
    expect(page.get_by_role("button", name="Roll back")).to_have_count(0)
    expect(page.locator("#status-text")).to_have_text("serving digits/1")


def test_a_job_is_submitted_and_watched(server: Server, visit: Visit) -> None:
    visited = visit(server.url, "#jobs")
    page = visited.page
    fill(page, "[data]\nsource = digits\n[train]\nmax_epochs = -3\nmax_epoch = 2")
    check = page.locator("#config-check")
    expect(check.locator("li")).to_have_count(2)
    expect(check).to_contain_text("did you mean 'max_epochs'?")
    expect(page.locator("#config")).to_have_attribute("aria-invalid", "true")
    fill(page, "[data]\nsource = digits\n[train]\nmax_epochs = 2")
    expect(check).to_have_text("This can be trained.")
    page.get_by_role("button", name="Train").click()
    job = page.locator("#job")
    expect(job.locator(".state")).to_have_text("queued")

    worker = taken(JobQueue(None, server.root), str(get(server, "/jobs")["items"][0]["job_id"]))
    for epoch, accuracy in ((1, 0.5), (2, 0.75)):
        metrics = {"val_acc": accuracy}
        worker.tell({"event": "epoch", "epoch": epoch, "max_epochs": 2, "metrics": metrics})
    expect(job.locator(".state")).to_have_text("running")
    expect(job.locator(".curve .dot")).to_have_count(2)
    expect(job.locator("figcaption")).to_contain_text("75.0\u202f% after epoch 2")
    expect(page.locator("#jobs-list progress")).to_be_visible()
    job.get_by_text("Log", exact=True).click()
    expect(job.locator("pre")).to_contain_text("epoch 2/2")
    job.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    worker.finish("succeeded", model_name="digits", version=2)
    expect(job.locator(".state")).to_have_text("succeeded")
    expect(page.get_by_role("dialog")).to_have_count(0)  # there is nothing to cancel any more
    expect(job.locator("h2")).to_contain_text("digits/2")
    expect(page.locator("#jobs-list li")).to_contain_text("digits/2")
    expect(page.locator("#said")).to_have_text("The job has succeeded")

    # Who comes later sees the whole curve, from the same stream.
    later = visit(server.url, "#jobs").page
    expect(later.locator("#job .curve .dot")).to_have_count(2)
    visited.forgive("status of 422")


def fill(page: Page, config: str) -> None:
    page.get_by_label("Configuration", exact=True).fill(config)
