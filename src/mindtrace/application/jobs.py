"""Floor 10: `POST /retrain` and `/jobs`: wishes come in, the document of a job goes out."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from mindtrace.application import bodies
from mindtrace.application.guard import media_type
from mindtrace.application.problems import Problem
from mindtrace.application.schemas import EXAMPLE_INI, Job, JobPage, problems, retrain_schema
from mindtrace.core.settings import Settings
from mindtrace.service import retrain as service
from mindtrace.service.retrain import Overlay

router = APIRouter(tags=["retraining"])

ACCEPTED = ("application/json", "text/x-ini", "multipart/form-data")
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
# Seconds after which a client should look at its job again.
_LOOK_AGAIN = "2"

_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": retrain_schema(),
            "examples": {
                "sections": {"value": {"data": {"source": "digits"}, "train": {"max_epochs": 1}}},
                "INI text": {"value": {"config": EXAMPLE_INI}},
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
    "schema": {"type": "string", "maxLength": 255},
}


@router.post(
    "/retrain",
    status_code=202,
    summary="Train a new version",
    response_model=Job,
    responses=problems(413, 415, 429, 503),
    openapi_extra={"requestBody": _BODY, "parameters": [_IDEMPOTENCY_KEY]},
)
async def retrain(request: Request) -> JSONResponse:
    """Queue a training; the body is laid over the server's own configuration."""
    overlay = await read_overlay(request)
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise Problem(400, "Idempotency-Key must be 1 to 255 visible ASCII characters")
    job = await run_in_threadpool(service.submit, _settings(request), overlay, idempotency_key=key)
    request.app.state.runner.wake()
    headers = {"Location": f"/jobs/{job.job_id}", "Retry-After": _LOOK_AGAIN}
    return JSONResponse(job.document(), 202, headers)


@router.get("/jobs", summary="Jobs, newest first", response_model=JobPage, responses=problems(503))
def list_jobs(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
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


@router.get("/jobs/{job_id}", summary="A job", response_model=Job, responses=problems(404))
def get_job(request: Request, job_id: str) -> JSONResponse:
    """A job as it is now."""
    job = service.get_job(_settings(request), job_id)
    headers = {} if job.ended else {"Retry-After": _LOOK_AGAIN}
    return JSONResponse(job.document(), headers=headers)


@router.delete(
    "/jobs/{job_id}",
    status_code=202,
    summary="Cancel a job",
    response_model=Job,
    responses=problems(404, 409),
)
def cancel_job(request: Request, job_id: str) -> JSONResponse:
    """Take a job out of the queue, or ask for its end."""
    return JSONResponse(service.cancel_job(_settings(request), job_id).document(), 202)


async def read_overlay(request: Request) -> Overlay:
    """The wishes in a body of any of the accepted types.

    Raises:
        Problem: 400 not JSON, 415 another type, 422 without a configuration.
    """
    kind = media_type(request.headers.get("content-type", "").encode("latin-1"))
    if kind == "application/json":
        fields = bodies.parse_object(await request.body())
        return _from_fields(fields)
    if kind == "text/x-ini":
        return Overlay.from_ini(_utf8(await request.body()))
    if kind == "multipart/form-data":
        return Overlay.from_ini(_utf8(await bodies.form_file(request, "config")))
    raise bodies.unsupported(kind, ACCEPTED)


def _from_fields(fields: dict[str, Any]) -> Overlay:
    if "config" not in fields:
        return Overlay.from_mapping(fields)
    if len(fields) > 1 or not isinstance(fields["config"], str):
        raise Problem(422, "'config' must be INI text, and then be the only field")
    return Overlay.from_ini(fields["config"])


def _utf8(body: bytes) -> str:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Problem(422, "the configuration is not UTF-8 text") from error
    if "\0" in text:
        raise Problem(422, "the configuration is not a text")
    return text


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings
