"""Floor 10: `GET /metrics`: what all workers of this server have counted, for Prometheus.

In: the counters of this process, and through `shared` those of the others. Out: text in
Prometheus' format. Its library is loaded with the first scrape.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import State

from mindtrace.application.document import problems
from mindtrace.application.meters import BOUNDS, Exchange, Snapshot, together
from mindtrace.application.problems import log
from mindtrace.errors import StoreError
from mindtrace.service import retrain

# Seconds between two times that a worker tells the others.
TELL_EVERY = 0.5

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    summary="Counters for Prometheus",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **problems(503),
    },
)
async def metrics(request: Request) -> Response:
    """Of all workers of this server; gauges of those that live."""
    state = request.app.state
    text, media_type = await run_in_threadpool(
        _scrape, snapshot(state), state.exchange, state.settings
    )
    return Response(text, media_type=media_type)


def snapshot(state: State) -> Snapshot:
    """What this worker has counted; for the event loop's thread."""
    model = state.slot.model
    names = None if model is None else (model.model_name or "", str(model.version or ""))
    taken: Snapshot = state.meters.snapshot(state.slot.swaps, state.admission.depth, names)
    return taken


@contextlib.asynccontextmanager
async def telling(state: State) -> AsyncIterator[None]:
    """While inside, the other workers of this server hear what this one has counted."""
    if state.shared is None:
        yield
        return
    state.exchange = Exchange(state.shared)
    task = asyncio.create_task(_keep_telling(state))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(OSError):  # the folder goes with the server
            state.exchange.tell(snapshot(state))
        state.exchange.close()


async def _keep_telling(state: State) -> None:
    told: Snapshot | None = None
    while True:
        await asyncio.sleep(TELL_EVERY)
        now = snapshot(state)
        if now != told:
            try:
                await run_in_threadpool(state.exchange.tell, now)
            except OSError as error:
                log.error("the other workers cannot be told what was counted: %s", error.strerror)
            told = now


def _scrape(own: Snapshot, exchange: Exchange | None, settings: Any) -> tuple[bytes, str]:
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

    workers = [own]
    if exchange is not None:
        # Told before it is answered: whoever is asked next must not know less.
        exchange.tell(own)
        workers += exchange.others()
    try:
        jobs = retrain.queue(settings).counts()
    except StoreError:
        jobs = {}  # the rest can be told all the same
    registry = CollectorRegistry()
    registry.register(_Collector(together(workers), jobs))
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


class _Collector:
    """Turns a snapshot into what Prometheus' library prints."""

    def __init__(self, snapshot: Snapshot, jobs: Mapping[str, int]) -> None:
        self._snapshot = snapshot
        self._jobs = jobs

    def collect(self) -> Iterator[Any]:
        """All families."""
        from prometheus_client.core import GaugeMetricFamily

        seen = self._snapshot
        yield _counter(
            "mindtrace_requests",
            "Requests that were answered.",
            ("route", "code"),
            {(route, str(code)): count for route, code, count in seen.requests},
        )
        yield _histogram(
            "mindtrace_request_duration_seconds",
            "From the head of a request to the head of its answer.",
            seen.request_counts,
            seen.request_seconds,
        )
        yield _histogram(
            "mindtrace_inference_duration_seconds",
            "Decoding and the network, of one request.",
            seen.inference_counts,
            seen.inference_seconds,
        )
        yield _counter(
            "mindtrace_predictions",
            "Images that were classified.",
            ("class_name",),
            {(name,): count for name, count in seen.predictions.items()},
        )
        yield _counter(
            "mindtrace_model_swaps",
            "Changes of the served version.",
            ("result",),
            {(result,): count for result, count in seen.swaps.items()},
        )
        yield GaugeMetricFamily(
            "mindtrace_queue_depth", "Requests that wait for a thread.", value=seen.queue_depth
        )
        info = GaugeMetricFamily(
            "mindtrace_model_info", "The version that answers.", labels=("model_name", "version")
        )
        for labels in seen.models:
            info.add_metric(labels, 1)
        yield info
        jobs = GaugeMetricFamily("mindtrace_jobs", "Retrainings by state.", labels=("state",))
        for state, count in self._jobs.items():
            jobs.add_metric((state,), count)
        yield jobs


def _counter(
    name: str, about: str, labels: tuple[str, ...], counts: Mapping[tuple[str, ...], int]
) -> Any:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(name, about, labels=labels)
    for values, count in counts.items():
        family.add_metric(values, count)
    return family


def _histogram(name: str, about: str, counts: Sequence[int], total: float) -> Any:
    from prometheus_client.core import HistogramMetricFamily

    bounds = [*map(str, BOUNDS), "+Inf"]
    buckets = list(zip(bounds, accumulate(counts), strict=True))
    return HistogramMetricFamily(name, about, buckets=buckets, sum_value=total)
