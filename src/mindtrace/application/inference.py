"""Floor 10: `POST /inference`: images come in, what the served model says goes out."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool

from mindtrace.application.bodies import IMAGE_TYPES, Question, read_question
from mindtrace.application.problems import Problem
from mindtrace.application.schemas import (
    EXAMPLE_IMAGE,
    Answer,
    Answers,
    ManyImages,
    OneImage,
    problems,
)
from mindtrace.application.slot import ModelSlot
from mindtrace.errors import ImageError
from mindtrace.service import predict
from mindtrace.service.predict import LoadedModel

# Up to here an image is decoded and run in well under a millisecond, less than a
# thread would cost; above it the event loop must not wait.
SMALL_FILE = 16 * 1024
SMALL_INPUT = 64 * 64
# Images that run together: enough to be quick, few enough for the memory of a large network.
BATCH = 32
_FIELDS = (
    "label",
    "class_name",
    "confidence",
    "probabilities",
    "top_k",
    "model_name",
    "version",
)

router = APIRouter(tags=["inference"])

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"oneOf": [OneImage.model_json_schema(), ManyImages.model_json_schema()]},
            "examples": {
                "one image": {"value": {"image": EXAMPLE_IMAGE, "top_k": 3}},
                "several images": {"value": {"images": [EXAMPLE_IMAGE, EXAMPLE_IMAGE]}},
            },
        },
        **dict.fromkeys(IMAGE_TYPES, _BINARY),
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {"image": _BINARY["schema"]},
            }
        },
    },
}
_TOP_K: dict[str, Any] = {
    "name": "top_k",
    "in": "query",
    "description": "how many of the likeliest classes to list; in JSON it stands in the body",
    "schema": {"type": "integer", "minimum": 1, "default": 1},
}


@router.post(
    "/inference",
    summary="Classify images",
    response_model=Answer | Answers,
    responses=problems(413, 415, 503),
    openapi_extra={"requestBody": _BODY, "parameters": [_TOP_K]},
)
async def inference(request: Request) -> Response:
    """Classify one image, or several with one bad image hurting only itself."""
    slot: ModelSlot = request.app.state.slot
    model = await slot.current()
    question = await read_question(request)
    max_pixels = request.app.state.settings.serve.max_pixels
    if is_light(model, question):
        fields = answer(model, question, max_pixels)
    else:
        fields = await run_in_threadpool(answer, model, question, max_pixels)
    fields["request_id"] = request.state.request_id
    return Response(json.dumps(fields, ensure_ascii=False).encode(), media_type="application/json")


def is_light(model: LoadedModel, question: Question) -> bool:
    """Whether a question is answered faster than it is handed to a thread."""
    spec = model.predictor.card.spec
    sizes = (len(image) for image in question.images if isinstance(image, bytes))
    return spec.height * spec.width <= SMALL_INPUT and sum(sizes) <= SMALL_FILE


def answer(model: LoadedModel, question: Question, max_pixels: int) -> dict[str, Any]:
    """What the model says: of one image, or `items` with one entry for each.

    Raises:
        ImageError: the only image cannot be read.
        Problem: it was not base64.
    """
    if question.many:
        return {"items": _items(model, question, max_pixels)}
    pixels = _decode(model, question.images[0], max_pixels)
    return _fields(model, model.predictor.run(pixels[None])[0], question.top_k)


def _items(model: LoadedModel, question: Question, max_pixels: int) -> list[dict[str, Any]]:
    """Decode each, run those that could be read together, answer in their order."""
    items: list[dict[str, Any]] = [{} for _ in question.images]
    readable: list[tuple[int, NDArray[np.uint8]]] = []
    for place, image in enumerate(question.images):
        try:
            readable.append((place, _decode(model, image, max_pixels)))
        except (ImageError, Problem) as error:
            items[place] = {"error": {"type": "ImageError", "message": str(error)}}
    for start in range(0, len(readable), BATCH):
        places, pixels = zip(*readable[start : start + BATCH], strict=True)
        for place, row in zip(places, model.predictor.run(np.stack(pixels)), strict=True):
            items[place] = _fields(model, row, question.top_k)
    return items


def _decode(model: LoadedModel, image: bytes | Problem, max_pixels: int) -> NDArray[np.uint8]:
    if isinstance(image, Problem):
        raise image
    return model.predictor.decode(image, max_pixels)


def _fields(model: LoadedModel, row: NDArray[np.float32], top_k: int) -> dict[str, Any]:
    fields = predict.answer(model, row, top_k).document()
    return {name: fields[name] for name in _FIELDS}
