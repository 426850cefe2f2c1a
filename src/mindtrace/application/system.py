"""What is not about models: health, `GET /metrics`, and the files of the web page."""

from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from mindtrace.application.metrics import scrape
from mindtrace.application.schemas import Alive, problems
from mindtrace.application.served_model import ServedModel

router = APIRouter(tags=["health"])

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        # data: the image as the network sees it; blob: the picture that the user chose.
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
# Swagger UI and Redoc parse HTML; Redoc makes its styles in the browser.
_POLICIES = {
    "/docs": POLICY,
    "/redoc": POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'"),
}
_HEADERS = {
    "Content-Security-Policy": POLICY
    + "; require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # Kept by the browser, and asked for again each time: a new version shows at once.
    "Cache-Control": "no-cache",
}
_METRICS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
    **problems(503),
}


@router.get("/healthz/live", summary="Does the process answer", response_model_exclude_none=True)
async def live() -> Alive:
    """Never touches the model."""
    return Alive(status="live")


@router.get(
    "/healthz/ready",
    summary="Can it classify",
    response_model_exclude_unset=True,
    responses=problems(503),
)
async def ready(request: Request) -> Alive:
    """A model is loaded, its golden images have passed, and the server means to stay."""
    served: ServedModel = request.app.state.served
    model = served.require_ready()
    found = Alive(status="ready", model_name=model.model_name, version=model.version)
    if served.away:
        found.registry = "away"
    return found


@router.get(
    "/metrics", summary="Counters for Prometheus", response_class=Response, responses=_METRICS
)
async def metrics(request: Request) -> Response:
    """Of all workers of this server; gauges of those that live."""
    text, media_type = await scrape(request.app.state)
    return Response(text, media_type=media_type)


class _PageFiles(StaticFiles):
    """The page's files, under a policy that lets nothing else run."""

    def file_response(self, full_path: Any, stat: Any, scope: Scope, *rest: Any) -> Response:
        response = super().file_response(full_path, stat, scope, *rest)
        response.headers.update(_HEADERS)
        if policy := _POLICIES.get(scope["path"]):
            response.headers["Content-Security-Policy"] = policy
        return response


# The package has the scripts of Swagger UI and Redoc.
_files = _PageFiles(packages=[("mindtrace.application", "static"), ("fastapi_offline", "static")])


@router.get("/", include_in_schema=False)
async def page(request: Request) -> Response:
    """The page."""
    return await _files.get_response("index.html", request.scope)


@router.get("/docs", include_in_schema=False)
@router.get("/redoc", include_in_schema=False)
async def docs(request: Request) -> Response:
    """The OpenAPI document for people."""
    return await _files.get_response("docs.html", request.scope)


@router.get("/static/{name}", include_in_schema=False)
async def static(request: Request, name: str) -> Response:
    """A file of the page."""
    return await _files.get_response(name, request.scope)
