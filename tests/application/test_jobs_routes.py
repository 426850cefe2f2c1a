"""`POST /retrain` and `/jobs` through a real server; real trainings in the slow ones."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter
from tests import waiting
from tests.application.conftest import JSON, PNG, Serve, png
from tests.application.registered import Registered
from tests.jobs.fake import FakeWorker, taken

from mindtrace.application.schemas import Job, Page
from mindtrace.config.settings import Settings, load_settings
from mindtrace.service import jobs
from mindtrace.service.retrain_request import RetrainRequest

INI = {"content-type": "text/x-ini"}
EPOCH = {
    "event": "epoch",
    "epoch": 1,
    "max_epochs": 3,
    "metrics": {"val_acc": 0.5},
    "seconds": 0.1,
    "best": True,
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    wishes = ["data.source=digits", "model.hidden=16", "train.max_epochs=2", "compute.threads=1"]
    return load_settings(sets=[f"DIR_PATHS.ROOT={tmp_path}", *wishes], environ={})


@pytest.fixture
def idle(settings: Settings, bundle: Path, serve: Serve) -> Iterator[httpx.Client]:
    """A server of these settings that starts no worker."""
    with serve(settings, str(bundle), change=no_worker) as client:
        yield client


def no_worker(application: Any) -> None:
    application.state.worker = False


def worked_on(settings: Settings, job_id: str) -> FakeWorker:
    """A job as a worker has it that runs in this process."""
    return taken(jobs.queue(settings), job_id)


def until(client: httpx.Client, path: str, wanted: Callable[[Any], bool]) -> Any:
    def look() -> Any:
        found = client.get(path).json()
        return found if wanted(found) else None

    return waiting.until(look)


def events(
    client: httpx.Client, job_id: str, after: int | None = None
) -> Iterator[tuple[int, str, Any]]:
    """Number, name and data of each event, as they come."""
    headers = {} if after is None else {"last-event-id": str(after)}
    fields: dict[str, str] = {}
    with client.stream("GET", f"/jobs/{job_id}/events", headers=headers, timeout=120) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name:
                fields[name] = value
            elif "data" in fields:
                yield int(fields["id"]), fields["event"], json.loads(fields["data"])
                fields = {}


def test_a_job_is_accepted_and_can_be_asked_for(idle: httpx.Client) -> None:
    accepted = idle.post("/retrain", json={"train": {"max_epochs": 1}})
    assert accepted.status_code == 202
    job = accepted.json()
    TypeAdapter(Job).validate_python(job, strict=True)
    assert accepted.headers["location"] == f"/jobs/{job['job_id']}"
    assert int(accepted.headers["retry-after"]) > 0
    assert idle.get(accepted.headers["location"]).json() == job
    for body in (b"[train]\nmax_epochs = 2\n", b"\xef\xbb\xbf[train]\r\nmax_epochs = 2\r\n"):
        assert idle.post("/retrain", content=body, headers=INI).status_code == 202
    page = idle.get("/jobs?limit=2").json()
    TypeAdapter(Page[Job]).validate_python(page, strict=True)
    rest = idle.get("/jobs", params={"cursor": page["next_cursor"]}).json()
    assert [row["job_id"] for row in rest["items"]] == [job["job_id"]]
    assert rest["next_cursor"] is None


def test_a_configuration_can_be_checked_as_one_types(
    idle: httpx.Client, settings: Settings
) -> None:
    for body in ({}, {"train": {"lr": 0.1}}, {"config": "[train]\nlr = 0.1"}):
        answer = idle.post("/retrain/check", json=body)
        assert (answer.status_code, answer.json()) == (200, {"ok": True})
    bad = idle.post("/retrain/check", json={"train": {"lr": -1, "max_epoch": 1}})
    assert (bad.status_code, len(bad.json()["errors"])) == (422, 2)
    assert idle.get("/jobs").json()["items"] == []
    assert not (settings.dirs.root / "jobs.db").exists()  # nobody asked for a job


def test_others_are_answered_while_a_long_body_is_read(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, answered = threading.Event(), threading.Event()

    def slow(text: str) -> RetrainRequest:
        begun.set()
        assert answered.wait(60)
        return RetrainRequest()

    monkeypatch.setattr(RetrainRequest, "from_ini", slow)
    with ThreadPoolExecutor(1) as threads:
        url = f"{client.base_url}/retrain/check"
        check = threads.submit(httpx.post, url, content=b"", headers=INI, trust_env=False)
        try:
            assert begun.wait(60)
            assert client.get("/healthz/live").status_code == 200
        finally:
            answered.set()
        assert check.result().status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "not JSON"),
        (b"[]", 422, "object"),
        (b'{"config": 3}', 422, "INI text"),
        (b'{"config": "", "train": {}}', 422, "INI text"),
        (b'{"serve": {"port": 1}}', 422, "[serve] port: a request may not set this"),
        (b'{"train": {"max_epoch": 1}}', 422, "did you mean 'max_epochs'"),
        (b'{"base": 3}', 422, "'base' must be a text"),
        (b'{"force": "yes"}', 422, "'force' must be true or false"),
        (b'{"warm_start": true}', 422, "warm_start needs a base"),
        (b'{"base": "/etc"}', 422, "registered version"),
        (b'{"base": "a b"}', 422, "names no version"),
        (b'{"base": "nothing"}', 404, "there is no registry"),
    ],
)
def test_bad_json(client: httpx.Client, body: bytes, status: int, says: str) -> None:
    for path in ("/retrain", "/retrain/check"):
        answer = client.post(path, content=body, headers=JSON)
        assert answer.status_code == status
        assert says in answer.json()["detail"]


def test_every_fault_at_once(client: httpx.Client) -> None:
    text = "[train]\nmax_epoch = 3\nlr = 0\n[DIR_PATHS]\nROOT = /tmp/x\n"
    answer = client.post("/retrain", content=text, headers=INI)
    assert answer.status_code == 422
    rows = answer.json()["errors"]
    assert sorted(row["line"] for row in rows) == [2, 3, 5]
    assert {row["section"] for row in rows} == {"train", "DIR_PATHS"}


@pytest.mark.parametrize(
    ("body", "headers", "status", "says"),
    [
        (b"x", {"content-type": "image/png"}, 415, "text/x-ini"),
        (b"--x--", {"content-type": "multipart/form-data; boundary=x"}, 415, "text/x-ini"),
        (b"\xff", INI, 422, "not UTF-8"),
        (b"a\0b", INI, 422, "a\\x00b: not a line"),
        (b"#" * (256 * 1024 + 1), INI, 413, "262,144"),
        (b"{}", {**JSON, "idempotency-key": "a b"}, 400, "Idempotency-Key"),
    ],
    ids=["an image", "a form", "no UTF-8", "a null byte", "too long", "a key with a space"],
)
def test_other_bodies(
    client: httpx.Client, body: bytes, headers: dict[str, str], status: int, says: str
) -> None:
    for path in ("/retrain", "/retrain/check"):
        if "idempotency-key" in headers and path == "/retrain/check":
            continue  # where nothing is queued
        answer = client.post(path, content=body, headers=headers)
        assert (answer.status_code, says in answer.json()["detail"]) == (status, True)


@pytest.mark.parametrize("name", ["x", "..%2f..%2fx", "20250131T235959123456-0a1b2c3d", "%00"])
def test_unknown_jobs(client: httpx.Client, name: str) -> None:
    assert client.delete(f"/jobs/{name}").status_code == 404
    for path in ("", "/events", "/log"):
        assert client.get(f"/jobs/{name}{path}").status_code == 404


def test_one_key_is_one_job(idle: httpx.Client) -> None:
    asked = (
        {"train": {"seed": 1}},
        {"config": "[train]\nseed=1"},
        {"train": {"seed": 2}},
        {"train": {"seed": 1}, "force": True},
        {"train": {"seed": 1}, "allow_leakage": True},
    )
    key = {"idempotency-key": "monday"}
    answers = [idle.post("/retrain", json=body, headers=key) for body in asked]
    assert [answer.status_code for answer in answers] == [202, 202, 422, 422, 422]
    assert answers[0].json() == answers[1].json()
    assert len(idle.get("/jobs").json()["items"]) == 1


def test_of_a_base_the_configuration_alone_is_read(
    two: Registered, bundle: Path, serve: Serve
) -> None:
    two.break_(2)  # its network
    body = {"base": "squares/2", "data": {"source": "digits"}}
    with serve(two.settings, str(bundle), change=no_worker) as client:
        assert client.post("/retrain/check", json=body).status_code == 200
        (two.folder(2) / "config.ini").write_text("[train]\nlr = 1\n")
        assert client.post("/retrain/check", json=body).status_code == 503


def test_one_key_is_one_job_even_if_its_base_is_gone(
    two: Registered, bundle: Path, serve: Serve
) -> None:
    body = {"base": "squares/2", "data": {"source": "digits"}}
    with serve(two.settings, str(bundle), change=no_worker) as client:
        asked = [client.post("/retrain", json=body, headers={"idempotency-key": "monday"})]
        (two.root / "mlflow.db").rename(two.root / "away.db")
        asked.append(client.post("/retrain", json=body, headers={"idempotency-key": "monday"}))
        asked.append(client.post("/retrain", json=body))
    assert [answer.status_code for answer in asked] == [202, 202, 404]
    assert asked[0].json() == asked[1].json()


def test_a_full_queue_is_429(settings: Settings, bundle: Path, serve: Serve) -> None:
    short = settings.replace(**{"jobs.max_queued": 2})
    with serve(short, str(bundle), change=no_worker) as client:
        answers = [client.post("/retrain", json={}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [202, 202, 429, 429]
    assert answers[3].headers["retry-after"]
    assert answers[3].headers["content-type"] == "application/problem+json"


def test_a_worker_begins_and_ends_with_its_server(start: Serve) -> None:
    """An end that it is told of: then it puts its job back, and no attempt is lost."""
    told: list[str] = []

    def change(application: Any) -> None:
        for name in ("start", "stop"):
            setattr(application.state.sidecar, name, partial(told.append, name))

    with start(change=change):
        assert told == ["start"]
    assert told == ["start", "stop"]


def test_cancel(idle: httpx.Client, settings: Settings) -> None:
    jobs = [idle.post("/retrain", json={}).json() for _ in range(3)]
    waits, runs, registers = (f"/jobs/{job['job_id']}" for job in jobs)
    ended = idle.delete(waits)
    assert (ended.status_code, ended.json()["state"]) == (202, "cancelled")
    late = idle.delete(waits)
    assert (late.status_code, "cancelled" in late.json()["detail"]) == (409, True)
    worker = worked_on(settings, runs.rpartition("/")[2])
    assert worker.request().promote == "never"  # said with the job, whatever its worker's own is
    wish = idle.delete(runs)
    assert (wish.status_code, wish.json()["state"]) == (202, "running")
    assert (jobs[1]["cancelling"], wish.json()["cancelling"]) == (False, True)
    assert idle.delete(runs).json() == idle.get(runs).json() == wish.json()
    assert worker.decision() == "cancelling"
    worker.finish("cancelled")
    assert not idle.get(runs).json()["cancelling"]
    worker = worked_on(settings, registers.rpartition("/")[2])
    assert worker.queue.begin_registering(worker.job_id, worker.fence)
    late = idle.delete(registers)
    assert (late.status_code, "too late" in late.json()["detail"]) == (409, True)


def test_a_job_is_followed_by_many_from_any_place_to_its_end(
    idle: httpx.Client, settings: Settings
) -> None:
    job_id = idle.post("/retrain", json={}).json()["job_id"]

    def follow() -> list[tuple[int, str, Any]]:
        with httpx.Client(base_url=idle.base_url, trust_env=False, timeout=60) as own:
            return list(events(own, job_id))

    with ThreadPoolExecutor(20) as threads:
        followers = [threads.submit(follow) for _ in range(20)]
        worker = worked_on(settings, job_id)
        worker.tell({"event": "started", "max_epochs": 3})
        worker.tell(EPOCH)
        time.sleep(0.5)  # some hear of the rest later
        worker.tell({**EPOCH, "epoch": 2})
        worker.finish("succeeded", model_name="m", version=4)
        heard = [one.result(60) for one in followers]
    assert all(mine == heard[0] for mine in heard)
    assert [event[0] for event in heard[0]] == [1, 2, 3, 4, 5, 6]
    assert [event[1] for event in heard[0]] == ["state"] * 3 + ["epoch"] * 2 + ["end"]
    assert heard[0][3][2]["metrics"] == {"val_acc": 0.5}
    assert heard[0][-1][2] == idle.get(f"/jobs/{job_id}").json()
    assert [event[0] for event in events(idle, job_id, after=4)] == [5, 6]
    assert list(events(idle, job_id, after=7)) == heard[0]  # there is none such
    for seen, status in (("6", 204), ("x", 400)):  # after 204 a browser asks no more
        answer = idle.get(f"/jobs/{job_id}/events", headers={"last-event-id": seen})
        assert answer.status_code == status


def test_who_follows_does_not_hold_up_the_end_of_a_server(
    settings: Settings, bundle: Path, serve: Serve
) -> None:
    applications: list[Any] = []

    def change(application: Any) -> None:
        no_worker(application)
        applications.append(application)

    begun = threading.Event()

    def follow(url: str) -> None:
        with httpx.stream("GET", url, trust_env=False, timeout=120) as answer:
            for line in answer.iter_lines():
                if line == "event: state":
                    begun.set()

    with (
        serve(settings, str(bundle), change=change) as client,
        ThreadPoolExecutor(1) as threads,
    ):
        job_id = client.post("/retrain", json={}).json()["job_id"]
        following = threads.submit(follow, f"{client.base_url}/jobs/{job_id}/events")
        assert begun.wait(60)
        applications[0].state.served.draining = True  # what a signal does first
        following.result(60)


def test_a_log_is_read_in_parts(idle: httpx.Client, settings: Settings) -> None:
    path = f"/jobs/{idle.post('/retrain', json={}).json()['job_id']}"
    empty = idle.get(f"{path}/log")
    assert (empty.status_code, empty.text) == (200, "")
    assert empty.headers["content-type"] == "text/plain; charset=utf-8"
    worker = worked_on(settings, path.rpartition("/")[2])
    worker.tell(text="größer\n")
    worker.tell(text="x" * 100_000)
    whole = "größer\n" + "x" * 100_000
    assert idle.get(f"{path}/log").text == whole
    assert idle.get(f"{path}/log?offset=9").text == whole[7:]
    behind = idle.get(f"{path}/log?offset=999999")
    assert (behind.status_code, behind.text) == (200, "")
    assert idle.get(f"{path}/log?offset=-1").status_code == 422


def test_a_database_that_is_away_is_503_and_predictions_go_on(
    settings: Settings, bundle: Path, serve: Serve
) -> None:
    (settings.dirs.root / "jobs.db").mkdir()  # cannot be opened
    with serve(settings, str(bundle)) as client:
        job = "/jobs/20250131T235959123456-0a1b2c3d"
        answers = [client.post("/retrain", json={}), client.delete(job)]
        answers += [client.get(path) for path in ("/jobs", job, f"{job}/events", f"{job}/log")]
        assert [answer.status_code for answer in answers] == [503] * 6
        assert all(answer.headers["retry-after"] for answer in answers)
        assert "jobs.db" not in answers[0].text
        assert client.post("/inference", content=png(10), headers=PNG).status_code == 200


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
        assert "registering digits" in client.get(f"{path}/log").text
