"""`POST /retrain` and `/jobs` through a real server; real trainings in the slow ones."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter
from tests.application.conftest import Serve

from mindtrace.application.schemas import Job, JobPage
from mindtrace.core.settings import Settings, load_settings
from mindtrace.jobs.runner import Runner
from mindtrace.service import retrain

INI = {"content-type": "text/x-ini"}
SLOW = """
import sys, time
print('{"event": "epoch", "epoch": 1, "max_epochs": 3, "metrics": {"val_acc": 0.5}}',
      file=sys.stderr, flush=True)
time.sleep(60)
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(sets=[f"DIR_PATHS.ROOT={tmp_path}", "data.source=digits"], environ={})


def idle(application: Any) -> None:
    """Let no job start."""
    application.state.runner.wake = lambda: None


def with_program(settings: Settings, program: str) -> Callable[[Any], None]:
    """Run a small program in the place of a training."""

    def change(application: Any) -> None:
        application.state.runner = Runner(
            retrain.queue(settings), {}, command=lambda *_: [sys.executable, "-c", program]
        )

    return change


def until(client: httpx.Client, path: str, wanted: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + 120
    while not wanted(job := client.get(path).json()):
        assert time.monotonic() < deadline, job
        time.sleep(0.05)
    return job


def test_a_job_is_accepted_and_can_be_asked_for(
    settings: Settings, bundle: Path, serve: Serve
) -> None:
    with serve(settings, str(bundle), change=idle) as client:
        accepted = client.post("/retrain", json={"train": {"max_epochs": 1}})
        assert accepted.status_code == 202
        job = accepted.json()
        TypeAdapter(Job).validate_python(job, strict=True)
        assert accepted.headers["location"] == f"/jobs/{job['job_id']}"
        assert int(accepted.headers["retry-after"]) > 0
        assert client.get(accepted.headers["location"]).json() == job
        for body, headers in (
            (b"[train]\nmax_epochs = 2\n", INI),
            (b"\xef\xbb\xbf[train]\r\nmax_epochs = 2\r\n", INI),
        ):
            assert client.post("/retrain", content=body, headers=headers).status_code == 202
        form = client.post("/retrain", files={"config": ("c.ini", b"[train]\nseed = 3\n")})
        assert form.status_code == 202
        page = client.get("/jobs?limit=3").json()
        TypeAdapter(JobPage).validate_python(page, strict=True)
        rest = client.get("/jobs", params={"cursor": page["next_cursor"]}).json()
        assert [row["job_id"] for row in rest["items"]] == [job["job_id"]]
        assert rest["next_cursor"] is None


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "not JSON"),
        (b"[]", 422, "object"),
        (b'{"config": 3}', 422, "INI text"),
        (b'{"config": "", "train": {}}', 422, "INI text"),
        (b'{"serve": {"port": 1}}', 422, "[serve] port: a request may not set this"),
        (b'{"train": {"max_epoch": 1}}', 422, "did you mean 'max_epochs'"),
    ],
)
def test_bad_json(client: httpx.Client, body: bytes, status: int, says: str) -> None:
    answer = client.post("/retrain", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert says in answer.json()["detail"]


def test_every_fault_at_once(client: httpx.Client) -> None:
    text = "[train]\nmax_epoch = 3\nlr = 0\n[DIR_PATHS]\nROOT = /tmp/x\n"
    answer = client.post("/retrain", content=text, headers=INI)
    assert answer.status_code == 422
    rows = answer.json()["errors"]
    assert sorted(row["line"] for row in rows) == [2, 3, 5]
    assert {row["section"] for row in rows} == {"train", "DIR_PATHS"}


def test_other_bodies(client: httpx.Client) -> None:
    wrong = client.post("/retrain", content=b"x", headers={"content-type": "image/png"})
    assert wrong.status_code == 415
    assert "text/x-ini" in wrong.json()["detail"]
    assert client.post("/retrain", content=b"\xff", headers=INI).status_code == 422
    assert client.post("/retrain", content=b"a\0b", headers=INI).status_code == 422
    long = client.post("/retrain", content=b"#" * (256 * 1024 + 1), headers=INI)
    assert long.status_code == 413
    key = client.post("/retrain", json={}, headers={"idempotency-key": "a b"})
    assert key.status_code == 400


def test_unknown_jobs(client: httpx.Client) -> None:
    for name in ("x", "..%2f..%2fx", "20250131T235959123456-0a1b2c3d", "%00"):
        assert client.get(f"/jobs/{name}").status_code == 404
        assert client.delete(f"/jobs/{name}").status_code == 404


def test_one_key_is_one_job(settings: Settings, bundle: Path, serve: Serve) -> None:
    key = {"idempotency-key": "monday"}
    with serve(settings, str(bundle), change=idle) as client:
        first = client.post("/retrain", json={"train": {"seed": 1}}, headers=key)
        again = client.post("/retrain", json={"config": "[train]\nseed=1"}, headers=key)
        other = client.post("/retrain", json={"train": {"seed": 2}}, headers=key)
        assert first.json() == again.json()
        assert other.status_code == 422
        assert len(client.get("/jobs").json()["items"]) == 1


def test_a_full_queue_is_429(settings: Settings, bundle: Path, serve: Serve) -> None:
    short = replace(settings, jobs=replace(settings.jobs, max_queued=2))
    with serve(short, str(bundle), change=idle) as client:
        answers = [client.post("/retrain", json={}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [202, 202, 429, 429]
    assert answers[3].headers["retry-after"]
    assert answers[3].headers["content-type"] == "application/problem+json"


def test_cancel(settings: Settings, bundle: Path, serve: Serve) -> None:
    with serve(settings, str(bundle), change=with_program(settings, SLOW)) as client:
        path = client.post("/retrain", json={}).headers["location"]
        running = until(client, path, lambda job: job["progress"]["epoch"] == 1)
        assert running["progress"] == {"epoch": 1, "max_epochs": 3, "val_acc": 0.5}
        assert client.delete(path).status_code == 202
        ended = until(client, path, lambda job: job["ended_at"])
        assert ended["state"] == "cancelled"
        late = client.delete(path)
        assert late.status_code == 409
        assert "cancelled" in late.json()["detail"]


def test_a_server_that_stops_ends_its_child_and_says_so(
    settings: Settings, bundle: Path, serve: Serve
) -> None:
    with serve(settings, str(bundle), change=with_program(settings, SLOW)) as client:
        path = client.post("/retrain", json={}).headers["location"]
        until(client, path, lambda job: job["progress"]["epoch"] == 1)
    job = retrain.get_job(settings, path.rpartition("/")[2])
    assert job.state == "failed"
    assert job.error is not None
    assert "server stopped" in job.error["message"]


@pytest.mark.slow
def test_the_loop_closes(settings: Settings, serve: Serve) -> None:
    """A server without a version trains its first one, and serves it by itself."""
    with serve(settings) as client:
        assert client.get("/healthz/ready").status_code == 503
        path = client.post("/retrain", json={"train": {"max_epochs": 1}}).headers["location"]
        job = until(client, path, lambda job: job["ended_at"])
        assert job["state"] == "succeeded", job
        assert (job["model_name"], job["version"]) == ("digits", 1)
        assert job["progress"]["epoch"] == 1
        ready = until(client, "/healthz/ready", lambda answer: answer["status"] != 503)
        assert (ready["model_name"], ready["version"]) == ("digits", 1)
        shown = client.get("/models/digits/versions/1").json()
        assert shown["job_id"] == job["job_id"]


@pytest.mark.slow
def test_a_job_whose_images_cannot_be_had_fails_with_the_reason(
    settings: Settings, serve: Serve
) -> None:
    with serve(settings) as client:
        body = {"data": {"num_val": 1797}}
        path = client.post("/retrain", json=body).headers["location"]
        job = until(client, path, lambda job: job["ended_at"])
    assert job["state"] == "failed"
    assert job["error"]["message"]
    assert job["version"] is None
