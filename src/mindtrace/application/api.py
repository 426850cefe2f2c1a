"""The FastAPI application, put together."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from mindtrace.application import inference, jobs, metrics, models, open_inference, system
from mindtrace.application.admission import Admission
from mindtrace.application.middleware import AccessLog, BodyLimit, RequestMiddleware
from mindtrace.application.open_inference_schemas import InferBody
from mindtrace.application.problems import Problem
from mindtrace.application.schemas import COMPONENT, ProblemDocument, problems
from mindtrace.application.security import Rules
from mindtrace.application.served_model import ChampionPoller, ServedModel
from mindtrace.config.settings import Settings, load_settings
from mindtrace.config.urls import shown
from mindtrace.service import jobs as jobs_service
from mindtrace.service.serve import read_token
from mindtrace.utils.system import available_cores
from mindtrace.version import VERSION

_MOST_FAULTS = 10  # told of a request: a body may have a hundred thousand
_ABOUT = "Serves a registered version of an image classifier, and trains the next one."
_MODULES = (system, inference, models, jobs, open_inference)
_ROUTES: list[Any] = [route for module in _MODULES for route in module.router.routes]


def create_app(
    settings: Settings,
    model_ref: str | None = None,
    *,
    worker: bool = True,
    allow_label_change: bool = False,
    shared: Path | None = None,
) -> FastAPI:
    """Build the application; its model is loaded when it starts."""
    serve = settings.serve
    rules = Rules(read_token(serve.token_file), serve.allowed_hosts)
    counters, access_log = metrics.Metrics(shared), AccessLog() if serve.access_log else None
    paths = {route.path for route in _ROUTES if "{" not in route.path}
    limits = dict.fromkeys(("/retrain", "/retrain/check"), serve.max_retrain_body)
    handlers: Any = {HTTPException: _http_problem, RequestValidationError: _validation_problem}
    application = _Application(
        title="mindtrace",
        version=VERSION,
        description=_ABOUT,
        lifespan=_lifespan,
        docs_url=None,  # see system.py
        redoc_url=None,
        responses=problems(400, 401, 403, 408, 413, 421, 422, 431, 500, 503),
        generate_unique_id_function=lambda route: route.name,
        middleware=[
            Middleware(RequestMiddleware, counters, access_log, rules, paths),
            Middleware(BodyLimit, serve.max_body, limits),
        ],
        exception_handlers=handlers,
    )
    state = application.state
    state.settings, state.worker = settings, worker
    state.metrics, state.access_log = counters, access_log
    state.served = ServedModel(settings, model_ref, allow_label_change=allow_label_change)
    threads = max(1, available_cores() // serve.workers)
    state.admission = Admission(serve.queue, serve.request_timeout, threads)
    state.sidecar = jobs_service.sidecar(settings, serving=True)
    application.fast_path = inference.FastPath(state, rules)
    for module in _MODULES:
        application.include_router(module.router)
    return application


def load_app(settings: Settings, model_ref: str | None = None, **options: Any) -> FastAPI:
    """The application with its model loaded, so that what is wrong shows now."""
    application = create_app(settings, model_ref, **options)
    application.state.served.load()
    return application


class _Application(FastAPI):
    """FastAPI behind the fast path; it knows the shape of refusals, which no route returns."""

    fast_path: inference.FastPath

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == inference.ROUTE:
            further = await self.fast_path(scope, receive, send)
            if further is None:
                return
            receive = further
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        others = TypeAdapter(ProblemDocument | InferBody).json_schema(ref_template=COMPONENT)
        document["components"]["schemas"] |= others["$defs"]
        return document


@contextlib.asynccontextmanager
async def _lifespan(application: FastAPI) -> AsyncIterator[None]:
    state = application.state
    if state.served.model is None:
        state.served.load()
    poller = ChampionPoller(state.served)
    poller.start()
    if state.access_log is not None:
        state.access_log.start()
    if state.worker:
        state.sidecar.start()
    # What is loaded stays: the garbage collector need not visit it again.
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    try:
        async with metrics.flushed_regularly(state):
            yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
    # This blocks the loop, which has nothing left to do: all requests are answered.
    poller.stop()
    state.admission.close()
    if state.access_log is not None:
        state.access_log.stop()
    state.sidecar.stop()


def _http_problem(request: Request, error: HTTPException) -> Any:
    detail, headers = str(error.detail), error.headers
    if error.status_code == 404:
        detail = f"there is nothing at {request.url.path[:200]}"
    elif error.status_code == 405:
        detail = f"{request.method} is not for {request.url.path[:200]}"
        # Starlette names those of the first route with this path.
        own = [route for route in _ROUTES if route.matches(request.scope)[0] is not Match.NONE]
        methods = {method for route in own for method in route.methods}
        headers = {"Allow": ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))}
    hint = "GET /docs lists what there is" if error.status_code in (404, 405) else None
    raise Problem(error.status_code, detail, hint=hint, headers=headers)


def _validation_problem(_: Request, error: RequestValidationError) -> Any:
    faults = []
    for fault in error.errors()[:_MOST_FAULTS]:
        place, *names = map(str, fault["loc"])
        faults.append({"message": fault["msg"], "in": place, "name": shown(".".join(names))})
    first = "{in} {name}: {message}".format(**faults[0])
    hint = "GET /docs shows what fits"
    raise Problem(422, f"the request does not fit: {first}", hint=hint, errors=faults)


def __getattr__(name: str) -> Any:
    # Made on demand: who imports `create_app` wants no configuration to be read.
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    application = globals()["app"] = create_app(load_settings())
    return application
