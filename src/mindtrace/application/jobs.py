"""`POST /retrain` and `/jobs`: queue a training, show it, follow it, cancel it."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from mindtrace.application import bodies
from mindtrace.application.problems import Problem, log
from mindtrace.application.schemas import EXAMPLE_INI, Job, Page, problems
from mindtrace.errors import MindtraceError
from mindtrace.jobs.job import END, JOB_ID, KEY
from mindtrace.service import jobs as service
from mindtrace.service.retrain_request import OPTIONS, RetrainRequest, json_schema

if TYPE_CHECKING:
    from mindtrace.jobs.queue import JobQueue

router = APIRouter(tags=["retraining"])

_RETRY_AFTER = "2"  # seconds until a client should ask for its job again
_POLL = 0.4  # seconds between two queries for events
_AWAY = 5.0  # seconds between two queries of a database that is away
_KEEP_ALIVE = 15.0  # seconds of silence before a comment is sent
_ACCEPTED = ("application/json", "text/x-ini")

_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": json_schema(),
            "examples": {
                "sections": {"value": {"data": {"source": "digits"}, "train": {"max_epochs": 1}}},
                "INI text": {"value": {"config": EXAMPLE_INI}},
                "from a version": {"value": {"base": "digits@champion", "warm_start": True}},
            },
        },
        "text/x-ini": {"schema": {"type": "string"}, "example": EXAMPLE_INI},
    },
}
_IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "the same key with the same body gives the same job",
    "schema": {"type": "string", "pattern": KEY},
}
_OK: dict[str, Any] = {"content": {"application/json": {"example": {"ok": True}}}}
_TEXT: dict[str, Any] = {"content": {"text/plain": {"schema": {"type": "string"}}}}
_SEEN: dict[str, Any] = {"description": "the job has ended, and the last event was seen"}
_EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["event", "data", "id"],
    "properties": {
        "event": {"enum": ["state", "epoch", "end"]},
        "id": {"type": "string", "pattern": "^[0-9]+$"},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
_STREAM: dict[str, Any] = {
    "description": "`state` and `end` carry the job's document, `epoch` an epoch's metrics",
    "content": {"text/event-stream": {"schema": _EVENT}},
}


@router.post(
    "/retrain",
    status_code=202,
    summary="Train a new version",
    response_model=Job,
    responses=problems(404, 413, 415, 429, 503),
    openapi_extra={"requestBody": _BODY, "parameters": [_IDEMPOTENCY_KEY]},
)
async def retrain(request: Request) -> JSONResponse:
    """Queue a training; the body is laid over the server's own configuration."""
    asked = await _read_request(request)
    key = request.headers.get("idempotency-key")
    if key is not None and not re.fullmatch(KEY, key):
        raise Problem(400, "Idempotency-Key must be 1 to 255 visible ASCII characters")
    settings = request.app.state.settings
    job = await run_in_threadpool(service.submit, settings, asked, idempotency_key=key)
    if request.app.state.worker:
        request.app.state.sidecar.wake()
    headers = {"Location": f"/jobs/{job.job_id}", "Retry-After": _RETRY_AFTER}
    return JSONResponse(job.document(), 202, headers)


@router.post(
    "/retrain/check",
    summary="What is wrong with a configuration",
    responses={200: _OK, **problems(404, 413, 415, 503)},
    openapi_extra={"requestBody": _BODY},
)
async def check(request: Request) -> JSONResponse:
    """Read a body as `POST /retrain` would, and queue nothing; 422 lists every fault."""
    asked = await _read_request(request)
    await run_in_threadpool(service.job_settings, request.app.state.settings, asked)
    return JSONResponse({"ok": True})


@router.get(
    "/jobs", summary="Jobs, newest first", response_model=Page[Job], responses=problems(503)
)
def list_jobs(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(pattern=JOB_ID)] = None,
) -> JSONResponse:
    """A page of jobs."""
    jobs = _queue(request).list(limit + 1, cursor)
    items = [job.document() for job in jobs[:limit]]
    next_cursor = jobs[limit - 1].job_id if len(jobs) > limit else None
    return JSONResponse({"items": items, "next_cursor": next_cursor})


@router.get("/jobs/{job_id}", summary="A job", response_model=Job, responses=problems(404, 503))
def get_job(request: Request, job_id: str) -> JSONResponse:
    """A job as it is now."""
    job = _queue(request).get(job_id)
    headers = {} if job.ended else {"Retry-After": _RETRY_AFTER}
    return JSONResponse(job.document(), headers=headers)


@router.get(
    "/jobs/{job_id}/events",
    summary="What happens to a job, as it happens",
    response_class=StreamingResponse,  # FastAPI would want a generator, which cannot refuse
    responses={200: _STREAM, 204: _SEEN, **problems(404, 503)},
)
async def follow_job(request: Request, job_id: str) -> Response:
    """Server-sent events from the job's first, or from `Last-Event-ID`, to its end."""
    after = bodies.number_in_header(request, "Last-Event-ID") or 0
    queue = _queue(request)
    # Once before the answer begins, while an error can still be a status.
    job = await run_in_threadpool(queue.get, job_id)
    if after:
        seen = await run_in_threadpool(queue.events, job_id, after - 1)
        if job.ended and len(seen) == 1:
            return Response(status_code=204)  # else a browser would reconnect for ever
        # From the first where the job never had that event (its database is a new one).
        after = after if seen else 0
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return EventSourceResponse(_stream(request, job_id, after), headers=headers)


async def _stream(request: Request, job_id: str, after: int) -> AsyncIterator[bytes]:
    """The events after one, as they happen, until the job or this server ends."""
    queue, served = _queue(request), request.app.state.served
    yield format_sse_event(retry=2000)  # at once, so that a reader knows that we answer
    heard, away = time.monotonic(), False
    while not served.draining:
        try:
            found = await run_in_threadpool(queue.events, job_id, after)
        except MindtraceError as error:
            # Not an end of the stream: the job goes on, and so will its readers.
            if not away:
                log.warning("%s", error.message)
            away = True
            await asyncio.sleep(_AWAY)
            continue
        away = False
        for event in found:
            data = json.dumps(event.data, allow_nan=False)
            yield format_sse_event(data_str=data, event=event.name, id=str(event.id))
            after, heard = event.id, time.monotonic()
            if event.name == END:
                return
        if time.monotonic() - heard > _KEEP_ALIVE:
            yield KEEPALIVE_COMMENT
            heard = time.monotonic()
        if not found:
            await asyncio.sleep(_POLL)


@router.get(
    "/jobs/{job_id}/log",
    summary="The log of a job",
    response_class=PlainTextResponse,
    responses={200: _TEXT, **problems(404, 503)},
)
def job_log(
    request: Request, job_id: str, offset: Annotated[int, Query(ge=0, le=1 << 40)] = 0
) -> Response:
    """The log from its beginning, or from `offset` in bytes."""
    found = _queue(request).log(job_id, offset)
    return Response(found, media_type="text/plain; charset=utf-8")


@router.delete(
    "/jobs/{job_id}",
    status_code=202,
    summary="Cancel a job",
    response_model=Job,
    responses=problems(404, 409, 503),
)
def cancel_job(request: Request, job_id: str) -> JSONResponse:
    """Take a job out of the queue, or ask for its end."""
    job = _queue(request).cancel(job_id)
    return JSONResponse(job.document(), 202)


def _queue(request: Request) -> JobQueue:
    return service.queue(request.app.state.settings)


async def _read_request(request: Request) -> RetrainRequest:
    """The body, JSON or INI text; Problem: 400 not JSON, 415 another type, 422 no configuration."""
    kind = bodies.require_type(request, _ACCEPTED)
    parse = _from_json if kind == "application/json" else RetrainRequest.from_ini
    # In another thread: thousands of faults take longer than other requests should wait.
    return await run_in_threadpool(parse, await request.body())


def _from_json(body: bytes) -> RetrainRequest:
    fields = bodies.parse_object(body)
    base = fields.pop("base", None)
    if base is not None and not isinstance(base, str):
        raise Problem(422, "'base' must be a text: NAME, NAME@ALIAS or NAME/VERSION")
    options = {name: fields.pop(name, False) for name in OPTIONS if name != "base"}
    for name, flag in options.items():
        if not isinstance(flag, bool):
            raise Problem(422, f"'{name}' must be true or false")
    if "config" not in fields:
        return RetrainRequest.from_mapping(fields, base=base, **options)
    if len(fields) > 1 or not isinstance(fields["config"], str):
        raise Problem(422, "'config' must be INI text, and then no section may be beside it")
    return RetrainRequest.from_ini(fields["config"], base=base, **options)
