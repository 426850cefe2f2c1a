"""Floor 10: the Open Inference Protocol v2, for clients that speak it already.

In: what a stock client sends (Triton's, KServe's). Out: what it expects, of the one
model that this server serves. A failure is the problem document of every other route;
the envelope adds the member `error`, which is what those clients read.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from mindtrace.application import health
from mindtrace.application.document import inlined, problems
from mindtrace.application.schemas import EXAMPLE_IMAGE
from mindtrace.application.slot import ModelSlot
from mindtrace.application.tensors import DATATYPES, IMAGE, OUTPUTS, PIXELS
from mindtrace.application.v2_infer import BINARY, JSON_LENGTH, infer
from mindtrace.application.v2_schemas import (
    InferBody,
    Inferred,
    Metadata,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerReady,
)
from mindtrace.errors import NotFoundError
from mindtrace.service.predict import LoadedModel
from mindtrace.version import VERSION

# A bundle that was named by its folder has no name of its own.
UNNAMED = "bundle"

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol v2"])

_UNREADY = problems(404, 503)
_INFER: dict[str, Any] = {
    "summary": "Classify images",
    "response_model": Inferred,
    "responses": {
        **problems(404, 413, 415, 503, 504),
        200: {
            "description": "The answer; with tensors behind the JSON where they were asked for so.",
            "content": {BINARY: {"schema": {"type": "string", "format": "binary"}}},
        },
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": inlined(InferBody),
                    "example": {
                        "inputs": [
                            {
                                "name": IMAGE,
                                "datatype": "BYTES",
                                "shape": [1],
                                "data": [EXAMPLE_IMAGE],
                            }
                        ]
                    },
                },
                BINARY: {"schema": {"type": "string", "format": "binary"}},
            },
        },
        "parameters": [
            {
                "name": JSON_LENGTH,
                "in": "header",
                "description": "bytes of JSON, where tensors stand behind it",
                "schema": {"type": "integer", "minimum": 0},
            }
        ],
    },
}


@router.get("", summary="The server", response_model=Metadata)
async def v2() -> dict[str, Any]:
    """Name, version and extensions."""
    return {"name": "mindtrace", "version": VERSION, "extensions": ["binary_tensor_data"]}


@router.get("/health/live", summary="Does the process answer", response_model=ServerLive)
async def v2_live() -> dict[str, Any]:
    """Never touches the model."""
    return {"live": True}


@router.get(
    "/health/ready", summary="Can it classify", response_model=ServerReady, responses=problems(503)
)
async def v2_ready(request: Request) -> dict[str, Any]:
    """As /healthz/ready."""
    await health.ready(request)
    return {"ready": True}


@router.get("/models/{name}", summary="The model", response_model=ModelMetadata, responses=_UNREADY)
async def v2_model(request: Request, name: str) -> dict[str, Any]:
    """What it takes and gives: one of the two inputs, any of the outputs."""
    return _metadata(await _served(request, name))


@router.get(
    "/models/{name}/versions/{version}",
    summary="The model, if it is this version",
    response_model=ModelMetadata,
    responses=_UNREADY,
)
async def v2_model_version(request: Request, name: str, version: str) -> dict[str, Any]:
    """What it takes and gives."""
    return _metadata(await _served(request, name, version))


@router.get(
    "/models/{name}/ready",
    summary="Is the model ready",
    response_model=ModelReady,
    responses=_UNREADY,
)
async def v2_model_ready(request: Request, name: str) -> dict[str, Any]:
    """Loaded, and its golden images passed."""
    return await _ready(request, name)


@router.get(
    "/models/{name}/versions/{version}/ready",
    summary="Is this version ready",
    response_model=ModelReady,
    responses=_UNREADY,
)
async def v2_model_version_ready(request: Request, name: str, version: str) -> dict[str, Any]:
    """Loaded, and its golden images passed."""
    return await _ready(request, name, version)


@router.post("/models/{name}/infer", **_INFER)
async def v2_infer(request: Request, name: str) -> Response:
    """Answer with probabilities, label and class_name of each image."""
    model = await _served(request, name)
    return await infer(request, model, _names(model))


@router.post("/models/{name}/versions/{version}/infer", **_INFER)
async def v2_infer_version(request: Request, name: str, version: str) -> Response:
    """The same, if the server serves this version."""
    model = await _served(request, name, version)
    return await infer(request, model, _names(model))


async def _served(request: Request, name: str, version: str | None = None) -> LoadedModel:
    """The model that is served, if it is the one that is meant.

    Raises:
        NotFoundError: it is another one.
        Problem: 503, there is none yet.
    """
    slot: ModelSlot = request.app.state.slot
    model = await slot.current()
    names = _names(model)
    if name != names["model_name"]:
        raise NotFoundError("model", name[:64], [names["model_name"]])
    if version is not None and version != names.get("model_version"):
        known = f"{name}/{model.version}"
        raise NotFoundError("version", f"{name}/{version[:64]}", [known] if model.version else [])
    return model


def _names(model: LoadedModel) -> dict[str, str]:
    if model.model_name is None:
        return {"model_name": UNNAMED}
    return {"model_name": model.model_name, "model_version": str(model.version)}


def _metadata(model: LoadedModel) -> dict[str, Any]:
    card, names = model.predictor.model_config, _names(model)
    shapes = {
        IMAGE: [-1],
        PIXELS: [-1, card.spec.channels, card.spec.height, card.spec.width],
        "probabilities": [-1, len(card.class_names)],
        "label": [-1],
        "class_name": [-1],
    }

    def tensors(kinds: dict[str, str]) -> list[dict[str, Any]]:
        return [{"name": n, "datatype": kind, "shape": shapes[n]} for n, kind in kinds.items()]

    return {
        "name": names["model_name"],
        "versions": [names["model_version"]] if "model_version" in names else [],
        "platform": "onnxruntime_onnx",
        "inputs": tensors(DATATYPES),
        "outputs": tensors(OUTPUTS),
    }


async def _ready(request: Request, name: str, version: str | None = None) -> dict[str, Any]:
    await _served(request, name, version)
    await health.ready(request)
    return {"name": name, "ready": True}
