"""Floor 10: the FastAPI application, put together.

In: settings and, if one was named, a model reference. Out: `create_app`, and `app` for
`uvicorn mindtrace.application.api:app`, made from the configuration when it is first
asked for. The order of the layers, outermost first: front (the usual question, answered
at once), envelope (request id, problem documents, counting), guard (who may ask), limits
(how much), then the routes.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from mindtrace.application import (
    front,
    guard,
    health,
    inference,
    jobs,
    metrics,
    models,
    page,
    promotion,
    v2,
)
from mindtrace.application.access_log import AccessLog
from mindtrace.application.admission import Admission
from mindtrace.application.document import ProblemDocument, problems
from mindtrace.application.envelope import Envelope
from mindtrace.application.limits import BodyLimit
from mindtrace.application.meters import Meters
from mindtrace.application.problems import Problem
from mindtrace.application.slot import ModelSlot
from mindtrace.application.watch import Watch
from mindtrace.config.settings import Settings, load_settings
from mindtrace.service import retrain
from mindtrace.service.serving import read_token
from mindtrace.utils.system import available_cores
from mindtrace.version import VERSION

if TYPE_CHECKING:
    app: FastAPI

_ABOUT = "Serves a registered version of an image classifier, and trains the next one."
_ROOMS = (page, inference, models, promotion, jobs, health, metrics, v2)


def create_app(
    settings: Settings,
    model_ref: str | None = None,
    *,
    worker: bool = True,
    allow_label_change: bool = False,
    shared: Path | None = None,
) -> FastAPI:
    """Build the application; its model is loaded when it starts.

    Args:
        settings: of the server.
        model_ref: what to serve; None is the champion, also one that is yet to come.
        worker: whether a process that trains is started where jobs wait.
        allow_label_change: whether a champion may have other classes than the one before.
        shared: the folder of all workers of this server; None for one that is alone.

    Raises:
        UsageError: the token file cannot be used.
    """
    serve = settings.serve
    token = None if serve.token_file is None else read_token(serve.token_file)
    rules = guard.rules(token, serve.allowed_hosts)
    meters, access_log = Meters(), AccessLog() if serve.access_log else None
    application = _Application(
        title="mindtrace",
        version=VERSION,
        description=_ABOUT,
        lifespan=_lifespan,
        redoc_url=None,
        responses=problems(400, 401, 403, 421, 422, 500),
        generate_unique_id_function=lambda route: route.name,
        middleware=[
            Middleware(Envelope, meters=meters, access_log=access_log, paths=_plain_paths()),
            Middleware(guard.Guard, rules=rules),
            Middleware(
                BodyLimit,
                default=serve.max_body,
                by_path=dict.fromkeys(("/retrain", "/retrain/check"), serve.max_retrain_body),
            ),
        ],
        exception_handlers={
            HTTPException: _http_problem,
            RequestValidationError: _validation_problem,
        },
    )
    state = application.state
    state.settings, state.worker, state.shared = settings, worker, shared
    state.meters, state.access_log, state.exchange = meters, access_log, None
    state.slot = ModelSlot(settings, model_ref, allow_label_change=allow_label_change)
    state.admission = Admission(
        serve.queue, serve.request_timeout, max(1, available_cores() // serve.workers)
    )
    state.runner = retrain.runner(settings, serving=True)
    application.front = front.Front(
        *(state.slot, rules, state.admission, meters),
        access_log=access_log,
        max_body=serve.max_body,
        max_pixels=serve.max_pixels,
    )
    for room in _ROOMS:
        application.include_router(room.router)
    return application


def _plain_paths() -> set[str]:
    """The paths of all routes that have no parameters."""
    paths = {getattr(route, "path", "") for room in _ROOMS for route in room.router.routes}
    return {path for path in paths if path and "{" not in path}


class _Application(FastAPI):
    """FastAPI behind the short way; it knows the shape of refusals, which no route returns.

    Attributes:
        front: the short way.
    """

    front: front.Front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == front.ROUTE:
            further = await self.front(scope, receive, send)
            if further is None:
                return
            receive = further
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        shapes = document["components"]["schemas"]
        shapes[ProblemDocument.__name__] = ProblemDocument.model_json_schema()
        return document


@contextlib.asynccontextmanager
async def _lifespan(application: FastAPI) -> AsyncIterator[None]:
    state = application.state
    if state.slot.model is None:
        state.slot.fill()
    watch = Watch(state.slot, state.settings)
    watch.start()
    if state.access_log is not None:
        state.access_log.start()
    if state.worker:
        state.runner.start()
    async with metrics.telling(state):
        with _settled_memory():
            yield
    # From here on the loop is blocked: it has nothing left to do, all requests are answered.
    watch.stop()
    state.admission.close()
    if state.access_log is not None:
        state.access_log.close()
    state.runner.stop()


@contextlib.contextmanager
def _settled_memory() -> Iterator[None]:
    """What is loaded stays: the collector of garbage need not look at it again and again."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def _http_problem(request: Request, error: Exception) -> Any:
    assert isinstance(error, HTTPException)
    detail, headers = str(error.detail), error.headers
    if error.status_code == 404:
        detail = f"there is nothing at {request.url.path[:200]}"
    elif error.status_code == 405:
        detail = f"{request.method} is not for {request.url.path[:200]}"
        headers = {"Allow": _allowed(request)}
    hint = "GET /docs lists what there is" if error.status_code in (404, 405) else None
    raise Problem(error.status_code, detail, hint=hint, headers=headers)


def _allowed(request: Request) -> str:
    """What all routes of a path take together; Starlette says what the first of them does."""
    scope = request.scope
    methods = {
        method
        for room in _ROOMS
        for route in room.router.routes
        if route.matches(scope)[0] is not Match.NONE
        for method in getattr(route, "methods", None) or ()
    }
    return ", ".join(sorted(methods))


def _validation_problem(_: Request, error: Exception) -> Any:
    assert isinstance(error, RequestValidationError)
    faults = [
        {
            "message": fault["msg"],
            "in": fault["loc"][0],
            "name": ".".join(map(str, fault["loc"][1:])),
        }
        for fault in error.errors()
    ]
    raise Problem(422, "the request does not fit", errors=faults)


def __getattr__(name: str) -> Any:
    # Made on demand: who imports `create_app` wants no configuration to be read.
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    application = globals()["app"] = create_app(load_settings())
    return application
