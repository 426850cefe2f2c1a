"""What a server process counts, and all workers together in Prometheus' format.

Requests cost plain additions; twice a second, and before each scrape, what is new is added to
prometheus-client's metrics. With several workers its multiprocess mode shares them through files.
"""

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

# The label of whatever has no route: a client's own path would be a new time series each.
OTHER = "other"
# Upper bounds in seconds, of both histograms.
BOUNDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01),
    *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
FLUSH_EVERY = 0.5  # seconds


class Histogram:
    """How many values fell below each of `BOUNDS`, beyond them, and their sum."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one value."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def flush(self, family: Any) -> None:
        """Add everything to a histogram of prometheus-client, and begin anew."""
        # Its public `observe` takes one value at a time, and there are thousands a second.
        for bucket, count in zip(family._buckets, self.counts, strict=True):
            if count:
                bucket.inc(count)
        family._sum.inc(self.total)
        self.counts, self.total = [0] * len(self.counts), 0.0


class Metrics:
    """The counters of this process; for the event loop's thread alone."""

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

    def flush(
        self, swaps: Mapping[str, int], queue_depth: int, model: tuple[str, str] | None
    ) -> _Families:
        """Add what is new to prometheus-client's metrics."""
        if self._families is None:
            self._families = _Families(self.shared)
        families = self._families
        for counts, family in (
            (self._requests, families.requests),
            (self._predictions, families.predictions),
        ):
            for labels, count in counts.items():
                family.labels(*labels).inc(count)
            counts.clear()
        # These are counted by another thread, which goes on adding to them.
        for result, count in swaps.items():
            families.swaps.labels(result).inc(count - self._swaps.get(result, 0))
            self._swaps[result] = count
        self._request_seconds.flush(families.request_seconds)
        self._inference_seconds.flush(families.inference_seconds)
        families.queue_depth.set(queue_depth)
        if model is not None:
            self._models.add(model)
        for known in self._models:
            families.model_info.labels(*known).set(known == model)
        return families


class _Families:
    """The metrics of this process in prometheus-client's types; imported when first needed."""

    def __init__(self, shared: Path | None) -> None:
        from prometheus_client import CollectorRegistry, Gauge, disable_created_metrics
        from prometheus_client import Counter as Count
        from prometheus_client import Histogram as Buckets
        from prometheus_client.multiprocess import MultiProcessCollector

        disable_created_metrics()  # type: ignore[no-untyped-call]
        own = CollectorRegistry()
        self.requests = Count(
            "mindtrace_requests", "Requests that were answered.", ("route", "code"), registry=own
        )
        self.request_seconds = Buckets(
            "mindtrace_request_duration_seconds",
            "From the head of a request to the head of its answer.",
            buckets=BOUNDS,
            registry=own,
        )
        self.inference_seconds = Buckets(
            "mindtrace_inference_duration_seconds",
            "Decoding and the network, of one request.",
            buckets=BOUNDS,
            registry=own,
        )
        self.predictions = Count(
            "mindtrace_predictions", "Images that were classified.", ("class_name",), registry=own
        )
        self.swaps = Count(
            "mindtrace_model_swaps", "Changes of the served version.", ("result",), registry=own
        )
        self.queue_depth = Gauge(
            "mindtrace_queue_depth",
            "Requests that wait for a thread.",
            registry=own,
            multiprocess_mode="livesum",
        )
        self.model_info = Gauge(
            "mindtrace_model_info",
            "The version that answers.",
            ("model_name", "version"),
            registry=own,
            multiprocess_mode="livemax",
        )
        # In multiprocess mode the files are read, which hold what this process counted too.
        collected: Any = own
        if shared is not None:
            collected = CollectorRegistry()
            MultiProcessCollector(collected, str(shared))  # type: ignore[no-untyped-call]
        self.collected = collected


def flush(state: State) -> _Families:
    """Flush this process's metrics; for the event loop's thread."""
    model = state.served.model
    names = None if model is None else (model.model_name or "", str(model.version or ""))
    families: _Families = state.metrics.flush(state.served.swaps, state.admission.depth, names)
    return families


@contextlib.asynccontextmanager
async def flushed_regularly(state: State) -> AsyncIterator[None]:
    """While inside, the other workers of this server see what this one has counted."""
    if state.metrics.shared is None:
        yield
        return

    async def keep_flushing() -> None:
        while True:
            flush(state)
            await asyncio.sleep(FLUSH_EVERY)

    task = asyncio.create_task(keep_flushing())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(OSError):  # the folder goes with the server
            flush(state)


async def scrape(state: State) -> tuple[bytes, str]:
    """The text of `GET /metrics` and its media type."""
    families = flush(state)
    return await run_in_threadpool(_render, families, state.settings)


def _render(families: _Families, settings: Any) -> tuple[bytes, str]:
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

    try:
        jobs = jobs_service.counts(settings)
    except StoreError:
        jobs = {}  # the rest is right all the same
    registry = CollectorRegistry()
    registry.register(_Collector(families, jobs))
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


class _Collector:
    """All metrics of one scrape."""

    def __init__(self, families: _Families, jobs: Mapping[str, int]) -> None:
        self._families, self._jobs = families, jobs

    def collect(self) -> Iterator[Any]:
        """All families."""
        from prometheus_client.core import GaugeMetricFamily

        for family in self._families.collected.collect():
            if family.name == "mindtrace_model_info":
                # A gauge's labels cannot be taken back in multiprocess mode: 0 is a version before.
                family.samples = [sample for sample in family.samples if sample.value]
            yield family
        jobs = GaugeMetricFamily("mindtrace_jobs", "Retrainings by state.", labels=("state",))
        for state, count in self._jobs.items():
            jobs.add_metric((state,), count)
        yield jobs
