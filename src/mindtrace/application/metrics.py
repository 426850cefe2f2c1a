"""Counters of a server process, and of all workers together in Prometheus' format."""

from __future__ import annotations

import asyncio
import contextlib
import os
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import State

from mindtrace.errors import StoreError
from mindtrace.service import jobs as jobs_service

# The label of requests without a route: every path of a client's would be a new time series.
OTHER = "other"
# Upper bounds in seconds, of both histograms.
BOUNDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01),
    *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
FLUSH_EVERY = 0.5  # seconds


class Histogram:
    """The number of values in each bucket of `BOUNDS`, and their sum."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def flush(self, family: Any) -> None:
        """Add everything to a histogram of prometheus-client, and start again from zero."""
        # Its public `observe` takes one value at a time, and there are thousands a second.
        for bucket, count in zip(family._buckets, self.counts, strict=True):
            if count:
                bucket.inc(count)
        family._sum.inc(self.total)
        self.counts, self.total = [0] * len(self.counts), 0.0


class Metrics:
    """The counters of this process; used by the event loop's thread only."""

    def __init__(self, shared: Path | None = None) -> None:
        self.shared = shared
        if shared is not None:
            # Read by prometheus-client when it is imported.
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(shared)
        self._requests: Counter[tuple[str, ...]] = Counter()
        self._predictions: Counter[tuple[str, ...]] = Counter()
        self._request_seconds = Histogram()
        self._inference_seconds = Histogram()
        self._swaps: dict[str, int] = {}
        self._models: set[tuple[str, str]] = set()
        self._families: _Families | None = None

    def answered(self, route: str, code: int, seconds: float) -> None:
        """Count one request, and the seconds from its head to the head of its answer."""
        self._requests[route, str(code)] += 1
        self._request_seconds.observe(seconds)

    def predicted(self, class_names: Iterable[str], seconds: float) -> None:
        """Count the predictions of one request, and the seconds that they took."""
        for name in class_names:
            self._predictions[name,] += 1
        self._inference_seconds.observe(seconds)

    def flush(self, state: State) -> _Families:
        """Add what is new to prometheus-client's metrics; for the event loop's thread."""
        if self._families is None:
            self._families = _Families(self.shared)
        families = self._families
        pairs = (self._requests, families.requests), (self._predictions, families.predictions)
        for counts, family in pairs:
            for labels, count in counts.items():
                family.labels(*labels).inc(count)
            counts.clear()
        # Another thread counts these and adds to them meanwhile.
        for result, count in state.served.swaps.items():
            families.swaps.labels(result).inc(count - self._swaps.get(result, 0))
            self._swaps[result] = count
        self._request_seconds.flush(families.request_seconds)
        self._inference_seconds.flush(families.inference_seconds)
        families.queue_depth.set(state.admission.depth)
        if (model := state.served.model) is not None:
            name = (model.model_name or "", str(model.version or ""))
            self._models.add(name)
            for known in self._models:
                families.model_info.labels(*known).set(known == name)
        return families


class _Families:
    """All metrics in prometheus-client's types, which are imported when first needed."""

    def __init__(self, shared: Path | None) -> None:
        from prometheus_client import (
            CollectorRegistry,
            Counter as Count,
            Gauge,
            Histogram as Buckets,
            disable_created_metrics,
        )
        from prometheus_client.multiprocess import MultiProcessCollector

        disable_created_metrics()  # type: ignore[no-untyped-call]
        own = CollectorRegistry()

        def make(kind: Any, name: str, about: str, *labels: str, **options: Any) -> Any:
            return kind(f"mindtrace_{name}", about, labels, registry=own, **options)

        self.requests = make(Count, "requests", "Requests that were answered.", "route", "code")
        about = "From the head of a request to the head of its answer."
        self.request_seconds = make(Buckets, "request_duration_seconds", about, buckets=BOUNDS)
        about = "Decoding and the network, of one request."
        self.inference_seconds = make(Buckets, "inference_duration_seconds", about, buckets=BOUNDS)
        self.predictions = make(Count, "predictions", "Images that were classified.", "class_name")
        self.swaps = make(Count, "model_swaps", "Changes of the served version.", "result")
        about, mode = "Requests that wait for a thread.", "livesum"
        self.queue_depth = make(Gauge, "queue_depth", about, multiprocess_mode=mode)
        about, names = "The version that answers.", ("model_name", "version")
        self.model_info = make(Gauge, "model_info", about, *names, multiprocess_mode="livemax")
        self.jobs: Mapping[str, int] = {}  # by state; counted for each scrape
        # In multiprocess mode the files are read, which hold what this process counted too.
        self.collected = own
        if shared is not None:
            self.collected = CollectorRegistry()
            MultiProcessCollector(self.collected, str(shared))  # type: ignore[no-untyped-call]

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import GaugeMetricFamily

        for family in self.collected.collect():
            if family.name == "mindtrace_model_info":
                # Multiprocess mode cannot remove a gauge's labels: 0 marks an earlier version.
                family.samples = [sample for sample in family.samples if sample.value]
            yield family
        jobs = GaugeMetricFamily("mindtrace_jobs", "Retrainings by state.", labels=("state",))
        for state, count in self.jobs.items():
            jobs.add_metric((state,), count)
        yield jobs


@contextlib.asynccontextmanager
async def flushed_regularly(state: State) -> AsyncIterator[None]:
    """While inside, the other workers of this server see the counts of this one."""
    if state.metrics.shared is None:
        yield
        return

    async def keep_flushing() -> None:
        while True:
            state.metrics.flush(state)
            await asyncio.sleep(FLUSH_EVERY)

    task = asyncio.create_task(keep_flushing())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(OSError):  # the supervisor may have removed the folder
            state.metrics.flush(state)


async def scrape(state: State) -> tuple[bytes, str]:
    """The text of `GET /metrics` and its media type."""
    return await run_in_threadpool(_render, state.metrics.flush(state), state.settings)


def _render(families: _Families, settings: Any) -> tuple[bytes, str]:
    from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

    try:
        families.jobs = jobs_service.counts(settings)
    except StoreError:
        families.jobs = {}  # the other metrics are right all the same
    return generate_latest(families), CONTENT_TYPE_PLAIN_0_0_4
