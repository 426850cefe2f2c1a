"""`POST /retrain` and `/jobs` through a real server; real trainings in the slow ones."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter
from tests.application.conftest import Serve
from tests.application.registered import Registered
from tests.jobs.fake import FakeWorker, taken

from mindtrace.application.schemas import Job, JobPage
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


def idle(application: Any) -> None:
    """Let no worker start."""
    application.state.worker = False


def worked_on(settings: Settings, job_id: str) -> FakeWorker:
    """A job as a worker has it that runs in this process."""
    return taken(jobs.queue(settings), job_id)


def until(client: httpx.Client, path: str, wanted: Callable[[Any], bool]) -> Any:
    for _ in range(4000):
        if wanted(job := client.get(path).json()):
            return job
        time.sleep(0.05)
    raise AssertionError(job)


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
        page = client.get("/jobs?limit=2").json()
        TypeAdapter(JobPage).validate_python(page, strict=True)
        rest = client.get("/jobs", params={"cursor": page["next_cursor"]}).json()
        assert [row["job_id"] for row in rest["items"]] == [job["job_id"]]
        assert rest["next_cursor"] is None


def test_a_configuration_can_be_checked_as_one_types(
    settings: Settings, bundle: Path, serve: Serve
) -> None:
    with serve(settings, str(bundle), change=idle) as client:
        for body in ({}, {"train": {"lr": 0.1}}, {"config": "[train]\nlr = 0.1"}):
            answer = client.post("/retrain/check", json=body)
            assert (answer.status_code, answer.json()) == (200, {"ok": True})
        bad = client.post("/retrain/check", json={"train": {"lr": -1, "max_epoch": 1}})
        assert bad.status_code == 422
        assert len(bad.json()["errors"]) == 2
        assert client.get("/jobs").json()["items"] == []
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
    checks: list[int] = []

    def check() -> None:
        url = f"{client.base_url}/retrain/check"
        checks.append(httpx.post(url, content=b"", headers=INI, trust_env=False).status_code)

    thread = threading.Thread(target=check)
    thread.start()
    try:
        assert begun.wait(60)
        assert client.get("/healthz/live").status_code == 200
    finally:
        answered.set()
        thread.join()
    assert checks == [200]


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
        answer = client.post(path, content=body, headers={"content-type": "application/json"})
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
    form = client.post("/retrain", files={"config": ("c.ini", b"[train]\nseed = 3\n")})
    assert form.status_code == 415
    assert client.post("/retrain", content=b"\xff", headers=INI).status_code == 422
    assert client.post("/retrain", content=b"a\0b", headers=INI).status_code == 422
    long = client.post("/retrain/check", content=b"#" * (256 * 1024 + 1), headers=INI)
    assert long.status_code == 413
    long = client.post("/retrain", content=b"#" * (256 * 1024 + 1), headers=INI)
    assert long.status_code == 413
    key = client.post("/retrain", json={}, headers={"idempotency-key": "a b"})
    assert key.status_code == 400


def test_unknown_jobs(client: httpx.Client) -> None:
    for name in ("x", "..%2f..%2fx", "20250131T235959123456-0a1b2c3d", "%00"):
        assert client.get(f"/jobs/{name}").status_code == 404
        assert client.delete(f"/jobs/{name}").status_code == 404
        assert client.get(f"/jobs/{name}/events").status_code == 404
        assert client.get(f"/jobs/{name}/log").status_code == 404


def test_one_key_is_one_job(settings: Settings, bundle: Path, serve: Serve) -> None:
    key = {"idempotency-key": "monday"}
    with serve(settings, str(bundle), change=idle) as client:
        first = client.post("/retrain", json={"train": {"seed": 1}}, headers=key)
        again = client.post("/retrain", json={"config": "[train]\nseed=1"}, headers=key)
        other = client.post("/retrain", json={"train": {"seed": 2}}, headers=key)
        force = client.post("/retrain", json={"train": {"seed": 1}, "force": True}, headers=key)
        assert first.json() == again.json()
        assert other.status_code == force.status_code == 422
        assert len(client.get("/jobs").json()["items"]) == 1


def test_of_a_base_the_configuration_alone_is_read(
    two: Registered, bundle: Path, serve: Serve
) -> None:
    two.break_(2)  # its network
    body = {"base": "squares/2", "data": {"source": "digits"}}
    with serve(two.settings, str(bundle), change=idle) as client:
        assert client.post("/retrain/check", json=body).status_code == 200
        (two.folder(2) / "config.ini").write_text("[train]\nlr = 1\n")
        assert client.post("/retrain/check", json=body).status_code == 503


def test_one_key_is_one_job_even_if_its_base_is_gone(
    two: Registered, bundle: Path, serve: Serve
) -> None:
    body = {"base": "squares/2", "data": {"source": "digits"}}
    with serve(two.settings, str(bundle), change=idle) as client:
        asked = [client.post("/retrain", json=body, headers={"idempotency-key": "monday"})]
        (two.root / "mlflow.db").rename(two.root / "away.db")
        asked.append(client.post("/retrain", json=body, headers={"idempotency-key": "monday"}))
        asked.append(client.post("/retrain", json=body))
    assert [answer.status_code for answer in asked] == [202, 202, 404]
    assert asked[0].json() == asked[1].json()


def test_a_full_queue_is_429(settings: Settings, bundle: Path, serve: Serve) -> None:
    short = settings.replace(**{"jobs.max_queued": 2})
    with serve(short, str(bundle), change=idle) as client:
        answers = [client.post("/retrain", json={}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [202, 202, 429, 429]
    assert answers[3].headers["retry-after"]
    assert answers[3].headers["content-type"] == "application/problem+json"


def test_twenty_at_once_are_eight(settings: Settings, bundle: Path, serve: Serve) -> None:
    statuses: list[int] = []
    with serve(settings, str(bundle), change=idle) as client:

        def submit(seed: int) -> None:
            answer = httpx.post(
                f"{client.base_url}/retrain",
                json={"train": {"seed": seed}},
                trust_env=False,
                timeout=120,
            )
            statuses.append(answer.status_code)

        threads = [threading.Thread(target=submit, args=(seed,)) for seed in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(client.get("/jobs").json()["items"]) == 8
    assert sorted(statuses) == [202] * 8 + [429] * 12


def test_cancel(settings: Settings, bundle: Path, serve: Serve) -> None:
    with serve(settings, str(bundle), change=idle) as client:
        waits, runs, registers = (client.post("/retrain", json={}).json() for _ in range(3))
        ended = client.delete(f"/jobs/{waits['job_id']}")
        assert (ended.status_code, ended.json()["state"]) == (202, "cancelled")
        late = client.delete(f"/jobs/{waits['job_id']}")
        assert late.status_code == 409
        assert "cancelled" in late.json()["detail"]
        worker = worked_on(settings, runs["job_id"])
        wish = client.delete(f"/jobs/{runs['job_id']}")
        assert (wish.status_code, wish.json()["state"]) == (202, "running")
        assert (runs["cancelling"], wish.json()["cancelling"]) == (False, True)
        assert client.delete(f"/jobs/{runs['job_id']}").json() == wish.json()
        assert client.get(f"/jobs/{runs['job_id']}").json() == wish.json()
        assert worker.wanted() == "cancel"
        worker.finish("cancelled")
        assert not client.get(f"/jobs/{runs['job_id']}").json()["cancelling"]
        worker = worked_on(settings, registers["job_id"])
        assert worker.queue.begin_registering(worker.job_id, worker.fence)
        late = client.delete(f"/jobs/{registers['job_id']}")
        assert late.status_code == 409
        assert "too late" in late.json()["detail"]


def test_a_job_is_followed_by_many_from_any_place_to_its_end(
    settings: Settings, bundle: Path, serve: Serve
) -> None:
    with serve(settings, str(bundle), change=idle) as client:
        job_id = client.post("/retrain", json={}).json()["job_id"]
        heard: list[list[tuple[int, str, Any]]] = [[] for _ in range(20)]

        def follow(mine: list[tuple[int, str, Any]]) -> None:
            with httpx.Client(base_url=client.base_url, trust_env=False) as own:
                mine.extend(events(own, job_id))

        threads = [threading.Thread(target=follow, args=(mine,)) for mine in heard]
        for thread in threads:
            thread.start()
        worker = worked_on(settings, job_id)
        worker.tell({"event": "started", "max_epochs": 3})
        worker.tell(EPOCH)
        time.sleep(0.5)  # some hear of the rest later
        worker.tell({**EPOCH, "epoch": 2})
        worker.finish("succeeded", model_name="m", version=4)
        for thread in threads:
            thread.join(60)
        assert all(mine == heard[0] for mine in heard)
        assert [event[0] for event in heard[0]] == [1, 2, 3, 4, 5, 6]
        assert [event[1] for event in heard[0]] == ["state"] * 3 + ["epoch"] * 2 + ["end"]
        assert heard[0][3][2]["metrics"] == {"val_acc": 0.5}
        assert heard[0][-1][2] == client.get(f"/jobs/{job_id}").json()
        assert [event[0] for event in events(client, job_id, after=4)] == [5, 6]
        seen = client.get(f"/jobs/{job_id}/events", headers={"last-event-id": "6"})
        assert seen.status_code == 204  # a browser asks no more
        assert list(events(client, job_id, after=7)) == heard[0]  # there is none such
        strange = client.get(f"/jobs/{job_id}/events", headers={"last-event-id": "x"})
        assert strange.status_code == 400


def test_who_follows_does_not_hold_up_the_end_of_a_server(
    settings: Settings, bundle: Path, serve: Serve
) -> None:
    def follow(url: str, begun: threading.Event) -> None:
        with httpx.stream("GET", url, trust_env=False, timeout=120) as answer:
            for line in answer.iter_lines():
                if line == "event: state":
                    begun.set()

    applications: list[Any] = []

    def change(application: Any) -> None:
        idle(application)
        applications.append(application)

    with serve(settings, str(bundle), change=change) as client:
        job_id = client.post("/retrain", json={}).json()["job_id"]
        begun = threading.Event()
        url = f"{client.base_url}/jobs/{job_id}/events"
        thread = threading.Thread(target=follow, args=(url, begun))
        thread.start()
        assert begun.wait(60)
        applications[0].state.served.drain()  # what a signal does first
        thread.join(60)
        assert not thread.is_alive()


def test_a_log_is_read_in_parts(settings: Settings, bundle: Path, serve: Serve) -> None:
    with serve(settings, str(bundle), change=idle) as client:
        path = f"/jobs/{client.post('/retrain', json={}).json()['job_id']}"
        empty = client.get(f"{path}/log")
        assert (empty.status_code, empty.text) == (200, "")
        assert empty.headers["content-type"] == "text/plain; charset=utf-8"
        worker = worked_on(settings, path.rpartition("/")[2])
        worker.tell(text="größer\n")
        worker.tell(text="x" * 100_000)
        whole = "größer\n" + "x" * 100_000
        assert client.get(f"{path}/log").text == whole
        assert client.get(f"{path}/log?offset=9").text == whole[7:]
        behind = client.get(f"{path}/log?offset=999999")
        assert (behind.status_code, behind.text) == (200, "")
        assert client.get(f"{path}/log?offset=-1").status_code == 422


def test_a_database_that_is_away_is_503_and_predictions_go_on(
    settings: Settings, bundle: Path, serve: Serve
) -> None:
    from tests.application.conftest import png

    (settings.dirs.root / "jobs.db").mkdir()  # cannot be opened
    with serve(settings, str(bundle)) as client:
        job_id = "20250131T235959123456-0a1b2c3d"
        answers = [
            client.post("/retrain", json={}),
            client.get("/jobs"),
            client.get(f"/jobs/{job_id}"),
            client.get(f"/jobs/{job_id}/events"),
            client.get(f"/jobs/{job_id}/log"),
            client.delete(f"/jobs/{job_id}"),
        ]
        assert [answer.status_code for answer in answers] == [503] * 6
        assert all(answer.headers["retry-after"] for answer in answers)
        assert "jobs.db" not in answers[0].text
        asked = client.post("/inference", content=png(10), headers={"content-type": "image/png"})
        assert asked.status_code == 200


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
        warm = {"base": "digits@champion", "warm_start": True, "train": {"seed": 3}}
        second = client.post("/retrain", json=warm).headers["location"]
        ended = until(client, second, lambda job: job["ended_at"])
        assert (ended["state"], ended["version"]) == ("succeeded", 2), ended
        assert client.get("/models/digits/versions/2").json()["parent"] == "digits/1"


@pytest.mark.slow
def test_a_server_that_stops_hands_its_job_to_the_next(settings: Settings, serve: Serve) -> None:
    with serve(settings) as client:
        path = client.post("/retrain", json={"train": {"max_epochs": 2000}}).headers["location"]
        before = until(client, path, lambda job: (job["progress"]["epoch"] or 0) >= 3)
    job = jobs.queue(settings).get(path.rpartition("/")[2])
    assert (job.state, job.attempts) == ("queued", 1)
    with serve(settings) as client:
        after = until(client, path, lambda job: job["attempts"] == 2)
        assert after["progress"]["epoch"] >= before["progress"]["epoch"]
        assert client.delete(path).status_code == 202
        assert until(client, path, lambda job: job["ended_at"])["state"] == "cancelled"


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
