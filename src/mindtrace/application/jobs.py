"""Floor 10: `POST /retrain` and `/jobs`: wishes come in, the document of a job goes out."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from mindtrace.application.job_events import Followed, last_event_id
from mindtrace.application.orders import read_order
from mindtrace.application.problems import Problem
from mindtrace.application.schemas import EXAMPLE_INI, Job, JobPage, problems
from mindtrace.config.settings import Settings
from mindtrace.jobs.job import JOB_ID, KEY, is_key
from mindtrace.service import jobs as service
from mindtrace.service import retrain as retraining
from mindtrace.service.retrain_request import json_schema

router = APIRouter(tags=["retraining"])

_RANGE = re.compile(r"bytes=([0-9]{1,15})-")
# Seconds after which a client should look at its job again.
_LOOK_AGAIN = "2"

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
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["config"],
                "properties": {"config": {"type": "string", "format": "binary"}},
            }
        },
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
_STREAM: dict[str, Any] = {
    "description": "`state` and `end` carry the job's document, `epoch` an epoch's metrics",
    "content": {
        "text/event-stream": {
            "schema": {  # of each event
                "type": "object",
                "required": ["event", "data", "id"],
                "properties": {
                    "event": {"enum": ["state", "epoch", "end"]},
                    "id": {"type": "string", "pattern": "^[0-9]+$"},
                    "data": {"type": "string", "contentMediaType": "application/json"},
                },
            }
        }
    },
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
    order = await read_order(request)
    key = request.headers.get("idempotency-key")
    if key is not None and not is_key(key):
        raise Problem(400, "Idempotency-Key must be 1 to 255 visible ASCII characters")
    settings = _settings(request)
    job = await run_in_threadpool(retraining.submit, settings, order, idempotency_key=key)
    if request.app.state.worker:
        request.app.state.runner.wake()
    headers = {"Location": f"/jobs/{job.job_id}", "Retry-After": _LOOK_AGAIN}
    return JSONResponse(job.document(), 202, headers)


@router.post(
    "/retrain/check",
    summary="What is wrong with a configuration",
    responses={200: _OK, **problems(404, 413, 415, 503)},
    openapi_extra={"requestBody": _BODY},
)
async def check(request: Request) -> JSONResponse:
    """Read a body as `POST /retrain` would, and queue nothing; 422 lists every fault."""
    order = await read_order(request)
    await run_in_threadpool(retraining.check, _settings(request), order)
    return JSONResponse({"ok": True})


@router.get("/jobs", summary="Jobs, newest first", response_model=JobPage, responses=problems(503))
def list_jobs(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(pattern=JOB_ID)] = None,
) -> JSONResponse:
    """A page of jobs."""
    jobs = service.list_jobs(_settings(request), limit + 1, cursor)
    more = len(jobs) > limit
    return JSONResponse(
        {
            "items": [job.document() for job in jobs[:limit]],
            "next_cursor": jobs[limit - 1].job_id if more else None,
        }
    )


@router.get("/jobs/{job_id}", summary="A job", response_model=Job, responses=problems(404, 503))
def get_job(request: Request, job_id: str) -> JSONResponse:
    """A job as it is now."""
    job = service.get_job(_settings(request), job_id)
    headers = {} if job.ended else {"Retry-After": _LOOK_AGAIN}
    return JSONResponse(job.document(), headers=headers)


@router.get(
    "/jobs/{job_id}/events",
    summary="What happens to a job, as it happens",
    response_class=StreamingResponse,
    responses={200: _STREAM, 204: _SEEN, **problems(404, 503)},
)
async def follow_job(request: Request, job_id: str) -> Response:
    """Server-sent events from the job's first, or from `Last-Event-ID`, to its end."""
    after = last_event_id(request)
    settings = _settings(request)
    # Asked once before the answer begins, while a refusal can still be one.
    job = await run_in_threadpool(service.get_job, settings, job_id)
    if after:
        seen = await run_in_threadpool(service.job_events, settings, job_id, after - 1)
        if job.ended and len(seen) == 1:
            return Response(status_code=204)  # a browser would ask again and again
        # An event that this job never had, such as before its database was made anew.
        after = after if seen else 0
    followed = Followed.of(request.app, settings)
    followed.demand_room(job_id)
    return StreamingResponse(
        followed.stream(job_id, after),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


@router.get(
    "/jobs/{job_id}/log",
    summary="The log of a job",
    response_class=PlainTextResponse,
    responses={200: _TEXT, 206: _TEXT, **problems(404, 416, 503)},
)
def job_log(
    request: Request, job_id: str, offset: Annotated[int, Query(ge=0, le=1 << 40)] = 0
) -> Response:
    """The log from its beginning, from `offset` in bytes, or as `Range: bytes=N-` says."""
    wanted = request.headers.get("range")
    ranged = _RANGE.fullmatch(wanted.strip()) if wanted else None
    start = int(ranged[1]) if ranged else offset
    found = _whole_log(_settings(request), job_id, start)
    kind = "text/plain; charset=utf-8"
    if ranged is None:
        return Response(found, media_type=kind, headers={"Accept-Ranges": "bytes"})
    if not found:
        length = len(_whole_log(_settings(request), job_id, 0))
        headers = {"Content-Range": f"bytes */{length}", "Retry-After": _LOOK_AGAIN}
        raise Problem(416, f"the log has no byte {start} yet", headers=headers)
    span = f"bytes {start}-{start + len(found) - 1}/*"
    return Response(found, 206, {"Content-Range": span}, media_type=kind)


@router.delete(
    "/jobs/{job_id}",
    status_code=202,
    summary="Cancel a job",
    response_model=Job,
    responses=problems(404, 409, 503),
)
def cancel_job(request: Request, job_id: str) -> JSONResponse:
    """Take a job out of the queue, or ask for its end."""
    return JSONResponse(service.cancel_job(_settings(request), job_id).document(), 202)


def _whole_log(settings: Settings, job_id: str, start: int) -> bytes:
    """From a place to the end; there is a limit to the length of a log."""
    parts = [service.job_log(settings, job_id, start)]
    while parts[-1]:
        parts.append(service.job_log(settings, job_id, start + sum(map(len, parts))))
    return b"".join(parts)


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings
