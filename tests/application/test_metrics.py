"""GET /metrics: every answer is counted once, under a name that no client can choose."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.application.conftest import Serve, png

from mindtrace.application.meters import BOUNDS, Exchange, Histogram, Meters, Snapshot, together
from mindtrace.config.settings import load_settings

IMAGE = base64.b64encode(png(200)).decode()
DARK = base64.b64encode(png(3)).decode()
NAMES = {
    "mindtrace_requests_total": ["code", "route"],
    "mindtrace_predictions_total": ["class_name"],
    "mindtrace_model_swaps_total": ["result"],
    "mindtrace_queue_depth": [],
    "mindtrace_model_info": ["model_name", "version"],
    "mindtrace_jobs": ["state"],
    "mindtrace_request_duration_seconds_bucket": ["le"],
    "mindtrace_request_duration_seconds_count": [],
    "mindtrace_request_duration_seconds_sum": [],
    "mindtrace_inference_duration_seconds_bucket": ["le"],
    "mindtrace_inference_duration_seconds_count": [],
    "mindtrace_inference_duration_seconds_sum": [],
}
Samples = Mapping[tuple[str, tuple[str, ...]], float]


def read(text: str) -> Samples:
    """By name and the values of its labels, sorted by their names."""
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(client: httpx.Client) -> Samples:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return read(answer.text)


@pytest.fixture
def fresh(tmp_path: Path, bundle: Path, serve: Serve) -> Iterator[httpx.Client]:
    settings = load_settings(sets=[f"DIR_PATHS.ROOT={tmp_path}"], environ={})
    with serve(settings, str(bundle)) as client:
        yield client


def test_names_and_labels_are_those_that_were_promised(fresh: httpx.Client) -> None:
    fresh.post("/inference", json={"image": IMAGE})
    labels = {
        sample.name: sorted(sample.labels)
        for family in text_string_to_metric_families(fresh.get("/metrics").text)
        for sample in family.samples
    }
    assert labels == NAMES


def test_requests_of_both_ways_are_counted(fresh: httpx.Client) -> None:
    long = {"x-a": "b"}
    for _ in range(3):
        fresh.post("/inference", json={"image": IMAGE})
    fresh.post("/inference", json={"image": DARK}, headers=long)
    fresh.post("/inference", json={"images": [IMAGE, DARK, "%%", IMAGE]})
    fresh.post("/inference", json={"image": "QUJD"})
    fresh.get("/models")
    fresh.get("/models/one/versions/2")
    fresh.get("/models/two/versions/3")
    found = scrape(fresh)
    requests = {key[1]: n for key, n in found.items() if key[0] == "mindtrace_requests_total"}
    assert requests == {
        ("200", "/inference"): 5,
        ("422", "/inference"): 1,
        ("200", "/models"): 1,
        ("404", "/models/{name}/versions/{version}"): 2,
    }
    assert found["mindtrace_predictions_total", ("bright",)] == 5
    assert found["mindtrace_predictions_total", ("dark",)] == 2
    assert found["mindtrace_request_duration_seconds_count", ()] == 9
    assert found["mindtrace_inference_duration_seconds_count", ()] == 5
    assert found["mindtrace_inference_duration_seconds_sum", ()] > 0
    assert (
        found["mindtrace_inference_duration_seconds_sum", ()]
        < found["mindtrace_request_duration_seconds_sum", ()]
        < 60
    )
    assert scrape(fresh)["mindtrace_requests_total", ("200", "/metrics")] == 1


def test_a_path_of_a_clients_own_is_no_label(fresh: httpx.Client) -> None:
    for number in range(20):
        assert fresh.get(f"/secret-{number}").status_code == 404
        assert fresh.get(f"/models/secret-{number}/versions").status_code == 404
    assert fresh.get("/openapi.json").status_code == 200
    text = fresh.get("/metrics").text
    assert "secret" not in text
    found = read(text)
    assert found["mindtrace_requests_total", ("404", "other")] == 20
    assert found["mindtrace_requests_total", ("404", "/models/{name}/versions")] == 20


def test_refused_requests_are_counted_and_the_token_is_asked_for(
    tmp_path: Path, bundle: Path, serve: Serve
) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    sets = [f"DIR_PATHS.ROOT={tmp_path}", f"serve.token_file={tmp_path / 'token'}"]
    with serve(load_settings(sets=sets, environ={}), str(bundle)) as client:
        assert client.get("/metrics").status_code == 401
        assert client.post("/inference", json={"image": IMAGE}).status_code == 401
        assert client.get("/nothing").status_code == 401
        assert client.get("/metrics", headers={"host": "evil.example"}).status_code == 421
        client.headers["authorization"] = "Bearer s3cret"
        found = scrape(client)
    assert found["mindtrace_requests_total", ("401", "/inference")] == 1
    assert found["mindtrace_requests_total", ("401", "/metrics")] == 1
    assert found["mindtrace_requests_total", ("421", "/metrics")] == 1
    assert found["mindtrace_requests_total", ("401", "other")] == 1


def test_what_is_served_and_what_happened_to_it(tmp_path: Path, bundle: Path, serve: Serve) -> None:
    def change(application: Any) -> None:
        application.state.slot.swaps["refused"] += 2
        model = application.state.slot.model
        application.state.slot.model = type(model)(model.predictor, 'a "name"', 7)

    settings = load_settings(sets=[f"DIR_PATHS.ROOT={tmp_path}"], environ={})
    with serve(settings, str(bundle), change=change) as client:
        found = scrape(client)
    assert found["mindtrace_model_info", ('a "name"', "7")] == 1
    assert found["mindtrace_model_swaps_total", ("refused",)] == 2
    assert found["mindtrace_model_swaps_total", ("ok",)] == 0
    assert found["mindtrace_queue_depth", ()] == 0
    assert found["mindtrace_jobs", ("queued",)] == 0


def test_without_a_model_there_is_no_info(tmp_path: Path, serve: Serve) -> None:
    settings = load_settings(sets=[f"DIR_PATHS.ROOT={tmp_path}"], environ={})
    with serve(settings) as client:
        assert client.post("/inference", json={"image": IMAGE}).status_code == 503
        found = scrape(client)
    assert found["mindtrace_requests_total", ("503", "/inference")] == 1
    assert not [key for key in found if key[0] == "mindtrace_model_info"]


def test_a_histogram_counts_what_is_on_a_bound_below_it() -> None:
    histogram = Histogram()
    for value in (0.0, BOUNDS[0], BOUNDS[-1], BOUNDS[-1] + 1):
        histogram.observe(value)
    assert histogram.counts == [2, *[0] * (len(BOUNDS) - 2), 1, 1]
    assert histogram.total == pytest.approx(BOUNDS[0] + 2 * BOUNDS[-1] + 1)


def counted(answers: int, depth: int = 1) -> Snapshot:
    meters = Meters()
    for _ in range(answers):
        meters.answered("/inference", 200, 0.002)
        meters.predicted(["a"], 0.001)
    return meters.snapshot({"ok": 1, "failed": 0}, depth, ("m", "1"))


def test_workers_are_counted_together() -> None:
    other = Meters()
    other.answered("/models", 404, 99.0)
    snapshot = together([counted(3), counted(4), other.snapshot({"ok": 0}, 0, ("m", "2"))])
    assert sorted(snapshot.requests) == [("/inference", 200, 7), ("/models", 404, 1)]
    assert sum(snapshot.request_counts) == 8
    assert snapshot.request_counts[-1] == 1
    assert snapshot.request_seconds == pytest.approx(99.014)
    assert snapshot.predictions == {"a": 7}
    assert snapshot.swaps == {"ok": 2, "failed": 0}
    assert snapshot.queue_depth == 2
    assert snapshot.models == [("m", "1"), ("m", "2")]


def test_what_a_dead_worker_counted_stays_and_what_it_was_does_not(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path\n"
        "from mindtrace.application.meters import Exchange, Meters\n"
        "meters = Meters()\n"
        "for _ in range(5): meters.answered('/inference', 200, 0.002)\n"
        "Exchange_ = Exchange(Path(sys.argv[1]))\n"
        "Exchange_.tell(meters.snapshot({'ok': 1}, 9, ('m', '1')))\n"
        "print('told', flush=True); time.sleep(600)\n"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "told\n"
    own = Exchange(tmp_path)
    own.tell(counted(2))
    [living] = own.others()
    assert (living.queue_depth, living.models) == (9, [("m", "1")])
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    worker.stdout.close()
    [dead] = own.others()
    assert dead.requests == [("/inference", 200, 5)]
    assert (dead.queue_depth, dead.models) == (0, ())
    own.close()


def test_what_is_told_is_whole_or_not_there(tmp_path: Path, soak: int) -> None:
    """One worker writes as fast as it can, another reads: never half a document."""
    script = (
        "import sys; from pathlib import Path\n"
        "from mindtrace.application.meters import Exchange, Meters\n"
        "meters, exchange = Meters(), Exchange(Path(sys.argv[1]))\n"
        "while True:\n"
        "    meters.answered('/inference', 200, 0.002)\n"
        "    exchange.tell(meters.snapshot({}, 0, None))\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    own = Exchange(tmp_path)
    counts = []
    try:
        end = time.monotonic() + 60
        while len(counts) < 200 * soak and time.monotonic() < end:
            counts += [snapshot.requests[0][2] for snapshot in own.others()]
    finally:
        worker.kill()
        worker.wait()
        own.close()
    assert counts == sorted(counts)
    assert counts[-1] > 1


@pytest.mark.slow
def test_two_workers_know_of_each_other(tmp_path: Path, bundle: Path) -> None:
    """However connections fall, each scrape tells all that was answered before it."""
    command = [sys.executable, "-m", "mindtrace", "serve", "--json", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--workers", "2", "--model", str(bundle)],
        env={**os.environ, "DIR_PATHS__ROOT": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    url = json.loads(process.stdout.readline())["url"]
    done = 0
    seen: list[float] = []
    try:
        for _ in range(20):
            # A connection each time: the system deals them out.
            for _ in range(3):
                answer = httpx.post(f"{url}/inference", json={"image": IMAGE}, timeout=30)
                assert answer.status_code == 200
                done += 1
            found = read(httpx.get(f"{url}/metrics", timeout=30).text)
            seen.append(found.get(("mindtrace_requests_total", ("200", "/inference")), 0.0))
        end = time.monotonic() + 30
        while seen[-1] < done and time.monotonic() < end:
            time.sleep(0.1)
            found = read(httpx.get(f"{url}/metrics", timeout=30).text)
            seen.append(found.get(("mindtrace_requests_total", ("200", "/inference")), 0.0))
    finally:
        process.terminate()
        assert process.wait(60) == 0
        process.stdout.close()
    assert seen[-1] == done
    assert seen == sorted(seen)
    assert found["mindtrace_model_info", ("", "")] == 1
