"""Floor 10: the FastAPI application, put together.

In: settings and, if one was named, a model reference. Out: `create_app`, and `app` for
`uvicorn mindtrace.application.api:app`, made from the configuration when it is first
asked for. The order of the layers, outermost first: envelope (request id, problem
documents), guard (who may ask), limits (how much), then the routes.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from mindtrace.application import guard, health, inference, jobs, models, promotion
from mindtrace.application.envelope import Envelope
from mindtrace.application.limits import BodyLimit
from mindtrace.application.problems import Problem
from mindtrace.application.schemas import ProblemDocument, problems
from mindtrace.application.slot import ModelSlot
from mindtrace.core.settings import Settings, load_settings
from mindtrace.service import retrain
from mindtrace.service.serving import read_token
from mindtrace.version import VERSION

if TYPE_CHECKING:
    app: FastAPI

_ABOUT = "Serves a registered version of an image classifier, and trains the next one."


def create_app(settings: Settings, model_ref: str | None = None) -> FastAPI:
    """Build the application; its model is loaded when it starts.

    Args:
        settings: of the server.
        model_ref: what to serve; None is the champion, also one that is yet to come.

    Raises:
        UsageError: the token file cannot be used.
    """
    serve = settings.serve
    token = None if serve.token_file is None else read_token(serve.token_file)
    application = _Application(
        title="mindtrace",
        version=VERSION,
        description=_ABOUT,
        lifespan=_lifespan,
        redoc_url=None,
        responses=problems(400, 401, 403, 421, 422, 500),
        generate_unique_id_function=lambda route: route.name,
        middleware=[
            Middleware(Envelope),
            Middleware(guard.Guard, rules=guard.rules(token, serve.allowed_hosts)),
            Middleware(
                BodyLimit, default=serve.max_body, by_path={"/retrain": serve.max_retrain_body}
            ),
        ],
        exception_handlers={
            HTTPException: _http_problem,
            RequestValidationError: _validation_problem,
        },
    )
    application.state.settings = settings
    application.state.slot = ModelSlot(settings, model_ref)
    application.state.runner = retrain.runner(settings)
    for room in (inference, models, promotion, jobs, health):
        application.include_router(room.router)
    return application


class _Application(FastAPI):
    """FastAPI that knows the shape of our refusals, which no route returns itself."""

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
    if retrain.queue(state.settings).unfinished():
        state.runner.wake()
    yield
    # Blocks the loop, which has nothing left to do: every request has been answered.
    state.runner.stop()


def _http_problem(request: Request, error: Exception) -> Any:
    assert isinstance(error, HTTPException)
    detail = str(error.detail)
    if error.status_code == 404:
        detail = f"there is nothing at {request.url.path[:200]}"
    elif error.status_code == 405:
        detail = f"{request.method} is not for {request.url.path[:200]}"
    hint = "GET /docs lists what there is" if error.status_code in (404, 405) else None
    raise Problem(error.status_code, detail, hint=hint, headers=error.headers)


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
