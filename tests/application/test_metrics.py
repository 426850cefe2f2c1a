"""GET /metrics: every answer is counted once, under a name that no client can choose."""

from __future__ import annotations

import base64
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.multiprocess import mark_process_dead
from prometheus_client.parser import text_string_to_metric_families
from tests.application.conftest import Serve, png
from tests.application.servers import PATIENCE, ask, end, serve, url_of

from mindtrace.application.metrics import BOUNDS, Histogram

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
def fresh(start: Serve) -> Iterator[httpx.Client]:
    with start() as client:
        yield client


def test_names_and_labels_are_those_that_were_promised(fresh: httpx.Client) -> None:
    fresh.post("/inference", json={"image": IMAGE})
    labels = {
        sample.name: sorted(sample.labels)
        for family in text_string_to_metric_families(fresh.get("/metrics").text)
        for sample in family.samples
    }
    assert labels == NAMES


def test_requests_of_both_paths_are_counted(fresh: httpx.Client) -> None:
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
    token_file: Path, start: Serve
) -> None:
    with start(f"serve.token_file={token_file}") as client:
        assert client.get("/metrics").status_code == 401
        assert client.post("/inference", json={"image": IMAGE}).status_code == 401
        assert client.get("/nothing").status_code == 401
        assert client.get("/metrics", headers={"host": "evil.example"}).status_code == 421
        client.headers["authorization"] = "Bearer s3cret"
        found = scrape(client)
    for key in (("401", "/inference"), ("401", "/metrics"), ("421", "/metrics"), ("401", "other")):
        assert found["mindtrace_requests_total", key] == 1


def test_what_is_served_and_what_happened_to_it(start: Serve) -> None:
    def change(application: Any) -> None:
        application.state.served.swaps["refused"] += 2
        model = application.state.served.model
        application.state.served.model = type(model)(model.predictor, 'a "name"', 7)

    with start(change=change) as client:
        found = scrape(client)
    assert found["mindtrace_model_info", ('a "name"', "7")] == 1
    assert found["mindtrace_model_swaps_total", ("refused",)] == 2
    assert found["mindtrace_model_swaps_total", ("ok",)] == 0
    assert found["mindtrace_queue_depth", ()] == 0
    assert found["mindtrace_jobs", ("queued",)] == 0


def test_without_a_model_there_is_no_info(start: Serve) -> None:
    with start(ref=None) as client:
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


# A worker that counts what it is told, and what all of them have counted.
WORKER = """
import sys, time
from pathlib import Path
from types import SimpleNamespace as State
from mindtrace.application.metrics import Metrics

metrics = Metrics(Path(sys.argv[1]))
# From here on it knows of the folder.
from prometheus_client.exposition import generate_latest
for line in sys.stdin:
    count, depth, version = line.split()
    for _ in range(int(count)):
        metrics.answered("/inference", 200, 0.002)
        metrics.predicted(["a"], 0.001)
    served = State(swaps={"ok": 1, "failed": 0}, model=State(model_name="m", version=version))
    families = metrics.flush(State(served=served, admission=State(depth=int(depth))))
    text = generate_latest(families.collected)
    sys.stdout.write(f"{len(text.splitlines())}\\n{text.decode()}")
    sys.stdout.flush()
"""


class Worker:
    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def count(self, answers: int, depth: int, version: str) -> Samples:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{answers} {depth} {version}\n")
        self.process.stdin.flush()
        lines = int(self.process.stdout.readline())
        return read("".join(self.process.stdout.readline() for _ in range(lines)))

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_workers_are_counted_together(tmp_path: Path) -> None:
    """What a dead worker has counted stays, what it was at the time does not."""
    with closing(Worker(tmp_path)) as first, closing(Worker(tmp_path)) as second:
        first.count(3, 1, "1")
        first.count(2, 2, "1")
        found = second.count(4, 1, "2")
        assert found["mindtrace_requests_total", ("200", "/inference")] == 9
        assert found["mindtrace_predictions_total", ("a",)] == 9
        assert found["mindtrace_request_duration_seconds_count", ()] == 9
        assert found["mindtrace_request_duration_seconds_sum", ()] == pytest.approx(0.018)
        assert found["mindtrace_inference_duration_seconds_bucket", ("0.001",)] == 9
        assert found["mindtrace_inference_duration_seconds_bucket", ("0.0005",)] == 0
        assert found["mindtrace_model_swaps_total", ("ok",)] == 2
        assert found["mindtrace_model_swaps_total", ("failed",)] == 0
        assert found["mindtrace_queue_depth", ()] == 3
        models = {key[1]: n for key, n in found.items() if key[0] == "mindtrace_model_info"}
        assert models == {("m", "1"): 1, ("m", "2"): 1}
        first.close()
        mark_process_dead(first.process.pid, tmp_path)
        found = second.count(1, 1, "3")
        assert found["mindtrace_requests_total", ("200", "/inference")] == 10
        assert found["mindtrace_queue_depth", ()] == 1
        models = {key[1]: n for key, n in found.items() if key[0] == "mindtrace_model_info"}
        assert models == {("m", "2"): 0, ("m", "3"): 1}


@pytest.mark.slow
def test_two_workers_know_of_each_other(root: Path, bundle: Path) -> None:
    """However connections fall, each scrape tells all that was answered before it."""
    seen: list[float] = []
    with serve("--workers", "2", "--model", str(bundle)) as process:
        url = url_of(process)
        deadline = time.monotonic() + PATIENCE
        while len(seen) < 20 or seen[-1] < 60:
            assert time.monotonic() < deadline
            # A connection each time: the system deals them out.
            for _ in range(3 if len(seen) < 20 else 0):
                assert ask(url).status_code == 200
            found = read(httpx.get(f"{url}/metrics", timeout=30).text)
            seen.append(found.get(("mindtrace_requests_total", ("200", "/inference")), 0.0))
            time.sleep(0 if len(seen) < 20 else 0.1)
        assert end(process)[0] == 0
    assert seen[-1] == 60
    assert seen == sorted(seen)
    assert found["mindtrace_model_info", ("", "")] == 1
