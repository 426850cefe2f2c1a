"""Registered models, their versions and champions, with the fields of the `registry` commands."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import AfterValidator, BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from mindtrace.application import bodies, schemas
from mindtrace.application.problems import Problem, kind_of
from mindtrace.config.settings import Settings
from mindtrace.config.urls import shown
from mindtrace.documents import document
from mindtrace.errors import NotFoundError, StoreError, UsageError
from mindtrace.registry.names import NAME
from mindtrace.service import promotion, registry

router = APIRouter(prefix="/models", tags=["models"])


def _require_name(name: str) -> str:
    """A text that is no name names nothing, and must not reach what reads references."""
    if not re.fullmatch(NAME, name):
        raise NotFoundError("model", name[:64])
    return name


Name = Annotated[str, AfterValidator(_require_name)]
Limit = Annotated[int, Query(ge=1, le=100)]
Version = Annotated[int, Query(ge=1, le=1 << 31)]
Cursor = Annotated[int | None, Query(ge=1, le=1 << 31)]

_ETAG = r'(?:W/)?"[\x21\x23-\x7e]*"'
_IF_MATCH: dict[str, Any] = {
    "name": "If-Match",
    "in": "header",
    "required": True,
    "description": 'the ETag of GET /models/{name}/history, such as `"3"`; `*` for any',
    "schema": {"type": "string", "pattern": rf"^(\*|{_ETAG})$"},
}
_JSON, _PNG = {"type": "object"}, {"type": "string", "format": "binary"}
_REPORT = {"content": {"application/json": {"schema": _JSON}, "image/png": {"schema": _PNG}}}
_CHANGES = schemas.problems(404, 409, 412, 413, 415, 428, 429, 503)
# Errors of the child process that are the client's.
_STATUSES = {"NotFoundError": 404, "VerdictError": 409, "ConflictError": 409, "UsageError": 422}


def _json_body(shape: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": shape.model_json_schema(), "example": example}}
    return {"requestBody": {"required": True, "content": content}, "parameters": [_IF_MATCH]}


@router.get(
    "",
    summary="Registered models",
    response_model=schemas.Page[schemas.ModelItem],
    responses=schemas.problems(503),
)
def list_models(
    request: Request, limit: Limit = 20, cursor: Annotated[str | None, Query(max_length=64)] = None
) -> JSONResponse:
    """Models by name, each with its champion and its newest version."""
    settings = request.app.state.settings
    names = [name for name in registry.list_models(settings) if cursor is None or name > cursor]
    items = [_model(settings, name) for name in names[:limit]]
    return _page(items, names[limit - 1] if len(names) > limit else None)


@router.get(
    "/{name}/versions",
    summary="Versions of a model",
    response_model=schemas.Page[schemas.VersionItem],
    responses=schemas.problems(404, 422, 503),
)
def list_versions(
    request: Request,
    name: Name,
    limit: Limit = 20,
    cursor: Cursor = None,
    where: Annotated[str | None, Query(max_length=2000, examples=["val_acc > 0.97"])] = None,
    sort: Annotated[str | None, Query(max_length=500, examples=["-val_acc"])] = None,
) -> JSONResponse:
    """Versions, newest first or as `sort` says; the cursor is the last version that was seen.

    `where` and `sort` are those of `mindtrace registry list`.
    """
    settings = request.app.state.settings
    rows = registry.list_versions(settings, name, limit + 1, where=where, sort=sort, after=cursor)
    items = [document(row) for row in rows[:limit]]
    return _page(items, str(rows[limit - 1].version) if len(rows) > limit else None)


@router.get(
    "/{name}/versions/{version}",
    summary="All about one version",
    response_model=schemas.VersionItem,
    responses=schemas.problems(404, 503),
)
def show_version(
    request: Request, name: Name, version: Annotated[int, Path(ge=1, le=1 << 31)]
) -> JSONResponse:
    """The fields of `mindtrace registry show --json`; of its report only the names of files."""
    detail = registry.show_version(request.app.state.settings, f"{name}/{version}")
    fields = document(detail)
    del fields["report"]  # a path of this machine
    return JSONResponse({**fields, "report_files": list(registry.report_files(detail))})


@router.get(
    "/{name}/versions/{version}/report/{file}",
    summary="A file of its report",
    response_class=Response,
    responses={200: _REPORT, **schemas.problems(404, 503)},
)
def report_file(
    request: Request, name: Name, version: Annotated[int, Path(ge=1, le=1 << 31)], file: str
) -> Response:
    """One of `report_files`: scores by class and the worst mistakes as JSON, or a plot of them."""
    detail = registry.show_version(request.app.state.settings, f"{name}/{version}")
    files = registry.report_files(detail)
    if file not in files:
        raise NotFoundError("file of the report", shown(file[:64]), list(files))
    media_type = "image/png" if file.endswith(".png") else "application/json"
    headers = {"X-Content-Type-Options": "nosniff"}
    return Response(files[file].read_bytes(), media_type=media_type, headers=headers)


@router.get(
    "/{name}/compare",
    summary="Two versions on one test set",
    response_model=schemas.ComparisonItem,
    responses=schemas.problems(404, 409, 503),
)
def compare_versions(request: Request, name: Name, a: Version, b: Version) -> JSONResponse:
    """Version b beside version a; 409 where they were tested on different images.

    The fields of `mindtrace registry compare --json`.
    """
    try:
        comparison = promotion.compare(request.app.state.settings, f"{name}/{a}", f"{name}/{b}")
    except UsageError as error:
        # The request is well made; it is the two versions that have nothing in common.
        raise Problem(409, error.message, hint=error.hint, kind="not-comparable") from error
    return JSONResponse(document(comparison))


@router.get(
    "/{name}/history",
    summary="Champions",
    response_model=schemas.Page[schemas.HistoryItem],
    responses=schemas.problems(404, 503),
)
def history(request: Request, name: Name, limit: Limit = 20, cursor: Cursor = None) -> JSONResponse:
    """Who made which version champion, newest first; the ETag is for If-Match."""
    settings = request.app.state.settings
    rows = promotion.history(settings, name, limit=limit + 1, before=cursor)[::-1]
    items = [entry.document() for entry in rows[:limit]]
    next_cursor = str(rows[limit - 1].revision) if len(rows) > limit else None
    return _page(items, next_cursor, _etag(_revision(request, name)))


@router.post(
    "/{name}/promote",
    summary="Make a version champion",
    response_model=schemas.PromotionItem,
    responses=_CHANGES,
    openapi_extra=_json_body(schemas.PromoteRequest, {"version": 2}),
)
async def promote(request: Request, name: Name) -> JSONResponse:
    """Champion against challenger; 409 with the verdict where the gate says no."""
    asked = await _read(request, schemas.PromoteRequest)
    words = [f"{name}/{asked.version}"]
    words += [] if asked.margin is None else ["--margin", str(asked.margin)]
    words += ["--dry-run"] * asked.dry_run + ["--force"] * asked.force
    return await run_in_threadpool(_change, request, name, "promote", asked.reason, words)


@router.post(
    "/{name}/rollback",
    summary="Put the champion before back",
    response_model=schemas.HistoryItem,
    responses=_CHANGES,
    openapi_extra=_json_body(schemas.RollbackRequest, {}),
)
async def rollback(request: Request, name: Name) -> JSONResponse:
    """Undo the latest promotion not yet undone; 409 where there is none."""
    asked = await _read(request, schemas.RollbackRequest)
    return await run_in_threadpool(_change, request, name, "rollback", asked.reason, [name])


async def _read(request: Request, shape: type[bodies.Body]) -> bodies.Body:
    """The body as `shape`; an empty body has no fields."""
    bodies.require_type(request, ("application/json",))
    body = await request.body()
    return bodies.validated(shape, bodies.parse_object(body) if body.strip() else {})


def _change(
    request: Request, name: str, verb: str, reason: str | None, words: list[str]
) -> JSONResponse:
    """Check the precondition, run the command in a child, translate its answer."""
    seen = _revision(request, name)
    if reason is not None:
        words.append(f"--reason={reason}")
    if not _matches_any(request.headers.get("if-match", "").strip(), seen):
        words += ["--if-revision", str(seen)]
    child = promotion.change_in_child(request.app.state.settings, verb, words)
    result = child.document
    if child.status == 0:
        return JSONResponse(result, headers=_etag(result["revision"]))
    error = child.error.get("type", "MindtraceError")
    message = child.error.get("message", f"{verb} ended with code {child.status}")
    if error == "ConflictError" and (now := _revision(request, name)) != seen:
        raise _stale(now)
    if error not in _STATUSES:
        raise StoreError(f"{error}: {message}")
    verdict = [{"message": message, **result}] if error == "VerdictError" else []
    hint, kind = child.error.get("hint"), kind_of(error)
    raise Problem(_STATUSES[error], message, hint=hint, errors=verdict, kind=kind)


def _matches_any(if_match: str, revision: int) -> bool:
    """Whether If-Match is `*`; a problem if it is neither that nor the ETag of `revision`."""
    if not if_match:
        detail = "a change of the champion wants If-Match"
        raise Problem(428, detail, hint="send the ETag of GET /models/{name}/history")
    if not re.fullmatch(_IF_MATCH["schema"]["pattern"], if_match):
        raise Problem(400, 'If-Match must be * or a tag such as "3"')
    if if_match not in ("*", _etag(revision)["ETag"]):
        raise _stale(revision)
    return if_match == "*"


def _stale(revision: int) -> Problem:
    hint = "look at GET /models/{name}/history, then repeat with its ETag"
    detail = f"somebody else changed the champion: the history is at revision {revision}"
    return Problem(412, detail, hint=hint, headers=_etag(revision), kind="stale")


def _revision(request: Request, name: str) -> int:
    """Of the history now; 0 where there is none."""
    newest = promotion.history(request.app.state.settings, name, limit=1)
    return newest[0].revision if newest else 0


def _etag(revision: int) -> dict[str, str]:
    return {"ETag": f'"{revision}"'}


def _page(
    items: list[dict[str, Any]], next_cursor: str | None, headers: dict[str, str] | None = None
) -> JSONResponse:
    return JSONResponse({"items": items, "next_cursor": next_cursor}, headers=headers)


def _model(settings: Settings, name: str) -> dict[str, Any]:
    newest = registry.list_versions(settings, name, limit=1)
    try:
        champion = registry.show_version(settings, f"{name}@champion").version
    except NotFoundError:
        champion = None
    latest = newest[0].version if newest else None
    return document({"model_name": name, "champion": champion, "latest": latest})
