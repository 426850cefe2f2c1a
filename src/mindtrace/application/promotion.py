"""Endpoints of champions: history, promote, rollback.

A change runs in a child process, so that the server never imports MLflow. The ETag is the
revision of a model's history, and a change requires If-Match.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from mindtrace.application import bodies
from mindtrace.application.problems import Problem
from mindtrace.application.schemas import (
    HistoryItem,
    HistoryPage,
    PromoteRequest,
    PromotionItem,
    RollbackRequest,
    problems,
)
from mindtrace.application.security import media_type
from mindtrace.config.settings import Settings
from mindtrace.config.urls import shown
from mindtrace.errors import NotFoundError, StoreError
from mindtrace.registry.champions import HistoryEntry
from mindtrace.service import promotion as service

router = APIRouter(prefix="/models/{name}", tags=["models"])

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TAGS = re.compile(r'\s*(?:W/)?"[\x21\x23-\x7e]*"\s*(?:,\s*(?:W/)?"[\x21\x23-\x7e]*"\s*)*')
# Of errors of the child: HTTP status, and the kind of problem.
_STATUSES = {
    "NotFoundError": (404, None),
    "VerdictError": (409, "verdict"),
    "ConflictError": (409, "conflict"),
    "UsageError": (422, "usage"),
}
_CHANGES = problems(404, 409, 412, 413, 415, 428, 429, 503)
_IF_MATCH: dict[str, Any] = {
    "name": "If-Match",
    "in": "header",
    "required": True,
    "description": 'the ETag of GET /models/{name}/history, such as `"3"`; `*` for any',
    "schema": {"type": "string", "pattern": rf"^(\*|{_TAGS.pattern})$"},
}


def _body_of(
    model: type[PromoteRequest | RollbackRequest], example: dict[str, Any]
) -> dict[str, Any]:
    content = {"application/json": {"schema": model.model_json_schema(), "example": example}}
    return {"requestBody": {"required": True, "content": content}, "parameters": [_IF_MATCH]}


@router.get(
    "/history", summary="Champions", response_model=HistoryPage, responses=problems(404, 503)
)
def history(
    request: Request,
    name: str,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[int | None, Query(ge=1, le=1 << 31)] = None,
) -> JSONResponse:
    """Who made which version champion, newest first; the ETag is for If-Match."""
    entries = _history(request, name)
    rows = [entry for entry in reversed(entries) if cursor is None or entry.revision < cursor]
    page = rows[:limit]
    return JSONResponse(
        {
            "items": [entry.document() for entry in page],
            "next_cursor": str(page[-1].revision) if len(rows) > limit else None,
        },
        headers=_etag(len(entries)),
    )


@router.post(
    "/promote",
    summary="Make a version champion",
    response_model=PromotionItem,
    responses=_CHANGES,
    openapi_extra=_body_of(PromoteRequest, {"version": 2}),
)
async def promote(request: Request, name: str) -> JSONResponse:
    """Champion against challenger; 409 with the verdict where the gate says no."""
    wish = await _wish(request, PromoteRequest)
    words = [f"{name}/{wish.version}", "--margin", str(wish.margin)]
    words += ["--dry-run"] * wish.dry_run + ["--force"] * wish.force
    return await run_in_threadpool(_change, request, name, "promote", wish.reason, words)


@router.post(
    "/rollback",
    summary="Put the champion before back",
    response_model=HistoryItem,
    responses=_CHANGES,
    openapi_extra=_body_of(RollbackRequest, {}),
)
async def rollback(request: Request, name: str) -> JSONResponse:
    """Undo the latest promotion not yet undone; 409 where there is none."""
    wish = await _wish(request, RollbackRequest)
    return await run_in_threadpool(_change, request, name, "rollback", wish.reason, [name])


def _change(
    request: Request, name: str, verb: str, reason: str | None, words: list[str]
) -> JSONResponse:
    """Check the precondition, let the child do it, turn its answer into ours."""
    seen = len(_history(request, name))
    given = [] if reason is None else [f"--reason={reason}"]
    if not _any_matches(request.headers.getlist("if-match"), seen):
        given += ["--if-revision", str(seen)]
    child = service.change_in_child(_settings(request), verb, [*words, *given])
    document = child.document
    if child.status == 0:
        return JSONResponse(document, headers=_etag(document["revision"]))
    error = child.error.get("type", "MindtraceError")
    message = child.error.get("message", f"{verb} ended with code {child.status}")
    hint = child.error.get("hint")
    if error == "ConflictError" and (now := len(_history(request, name))) != seen:
        raise _stale(now)
    if error not in _STATUSES:
        raise StoreError(f"{error}: {message}")
    status, kind = _STATUSES[error]
    verdict = [{"message": message, **document}] if error == "VerdictError" else []
    raise Problem(status, message, hint=hint, errors=verdict, kind=kind)


def _any_matches(headers: list[str], revision: int) -> bool:
    """RFC 9110, 13.1.1: one of the tags must be ours, compared strongly; true for `*`.

    Raises:
        Problem: 428 without the header, 400 for what is none, 412 where none fits.
    """
    given = ", ".join(headers).strip()
    if not given:
        raise Problem(
            428,
            "a change of the champion wants If-Match",
            hint="send the ETag of GET /models/{name}/history",
        )
    if given == "*":
        return True
    if not _TAGS.fullmatch(given):
        raise Problem(400, 'If-Match must be * or a list of tags such as "3"')
    if f'"{revision}"' not in [tag.strip() for tag in given.split(",")]:
        raise _stale(revision)
    return False


def _stale(revision: int) -> Problem:
    return Problem(
        412,
        f"somebody else changed the champion: the history is at revision {revision}",
        hint="look at GET /models/{name}/history, then repeat with its ETag",
        headers=_etag(revision),
        kind="stale",
    )


async def _wish(request: Request, shape: Any) -> Any:
    """The body as `shape`; nothing at all is a wish without fields."""
    body = await request.body()
    kind = media_type(request.headers.get("content-type", "").encode("latin-1"))
    if kind != "application/json":
        raise bodies.unsupported(kind, ("application/json",))
    from pydantic import ValidationError

    try:
        return shape.model_validate(bodies.parse_object(body) if body.strip() else {})
    except ValidationError as error:
        faults = [
            {"message": fault["msg"], "in": "body", "name": shown(".".join(map(str, fault["loc"])))}
            for fault in error.errors()
        ]
        raise Problem(422, "the request does not fit", errors=faults) from error


def _history(request: Request, name: str) -> list[HistoryEntry]:
    if not _NAME.fullmatch(name):
        raise NotFoundError("model", name[:64])
    return service.history(_settings(request), name, repair=False)


def _etag(revision: int) -> dict[str, str]:
    return {"ETag": f'"{revision}"'}


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings
