"""Registered models and versions, with the fields of the command line's `registry` verbs."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import JSONResponse

from mindtrace.application.problems import Problem
from mindtrace.application.schemas import (
    ComparisonItem,
    ModelPage,
    VersionItem,
    VersionPage,
    problems,
)
from mindtrace.config.settings import Settings
from mindtrace.documents import document
from mindtrace.errors import NotFoundError, UsageError
from mindtrace.registry.names import NAME
from mindtrace.service import promotion
from mindtrace.service import registry as service

router = APIRouter(prefix="/models", tags=["models"])

Limit = Annotated[int, Query(ge=1, le=100)]
Version = Annotated[int, Query(ge=1, le=1 << 31)]


@router.get("", summary="Registered models", response_model=ModelPage, responses=problems(503))
def list_models(
    request: Request,
    limit: Limit = 20,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> JSONResponse:
    """Models by name, each with its champion and its newest version."""
    settings = _settings(request)
    names = [name for name in service.list_models(settings) if cursor is None or name > cursor]
    page = names[:limit]
    return JSONResponse(
        {
            "items": [_model(settings, name) for name in page],
            "next_cursor": page[-1] if len(names) > limit else None,
        }
    )


@router.get(
    "/{name}/versions",
    summary="Versions of a model",
    response_model=VersionPage,
    responses=problems(404, 422, 503),
)
def list_versions(
    request: Request,
    name: str,
    limit: Limit = 20,
    cursor: Annotated[int | None, Query(ge=1, le=1 << 31)] = None,
    where: Annotated[str | None, Query(max_length=2000, examples=["val_acc > 0.97"])] = None,
    sort: Annotated[str | None, Query(max_length=500, examples=["-val_acc"])] = None,
) -> JSONResponse:
    """Versions, newest first or as `sort` says; the cursor is the last version that was seen.

    `where` and `sort` are those of `mindtrace registry list`.
    """
    settings = _settings(request)
    _require_name(name)
    rows = service.list_versions(settings, name, limit + 1, where=where, sort=sort, after=cursor)
    return JSONResponse(
        {
            "items": [document(row) for row in rows[:limit]],
            "next_cursor": str(rows[limit - 1].version) if len(rows) > limit else None,
        }
    )


@router.get(
    "/{name}/versions/{version}",
    summary="All about one version",
    response_model=VersionItem,
    responses=problems(404, 503),
)
def show_version(
    request: Request, name: str, version: Annotated[int, Path(ge=1, le=1 << 31)]
) -> JSONResponse:
    """The fields of `mindtrace registry show --json`."""
    _require_name(name)
    detail = service.show_version(_settings(request), f"{name}/{version}")
    return JSONResponse(document(detail))


@router.get(
    "/{name}/compare",
    summary="Two versions on one test set",
    response_model=ComparisonItem,
    responses=problems(404, 409, 503),
)
def compare_versions(request: Request, name: str, a: Version, b: Version) -> JSONResponse:
    """Version b beside version a; 409 where they were tested on different images.

    The fields of `mindtrace registry compare --json`.
    """
    _require_name(name)
    try:
        comparison = promotion.compare(_settings(request), f"{name}/{a}", f"{name}/{b}")
    except UsageError as error:
        # The request is well made; it is the two versions that have nothing in common.
        raise Problem(409, error.message, hint=error.hint, kind="not-comparable") from error
    return JSONResponse(document(comparison))


def _model(settings: Settings, name: str) -> dict[str, Any]:
    newest = service.list_versions(settings, name, limit=1)
    try:
        champion = service.show_version(settings, f"{name}@champion").version
    except NotFoundError:
        champion = None
    latest = newest[0].version if newest else None
    return document({"model_name": name, "champion": champion, "latest": latest})


def _require_name(name: str) -> None:
    """A text that is no name names nothing, and must not reach what reads references."""
    if not re.fullmatch(NAME, name):
        raise NotFoundError("model", name[:64])


def _settings(request: Request) -> Settings:
    found: Settings = request.app.state.settings
    return found
