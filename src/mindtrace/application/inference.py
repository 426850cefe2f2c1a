"""Floor 10: `POST /inference`: images come in, what the served model says goes out.

This is the long way, for every kind of body and every refusal; the usual question is
answered by `front.py` before it comes here. What is quick is done on the event loop;
what takes long waits for a thread (`admission.py`).
"""

from __future__ import annotations

import base64
import contextlib
import time
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from mindtrace.application.admission import Admission, Wanted
from mindtrace.application.bodies import IMAGE_TYPES, Question, read_body
from mindtrace.application.document import problems
from mindtrace.application.problems import Problem
from mindtrace.application.schemas import EXAMPLE_IMAGE, Answer, Answers, ManyImages, OneImage
from mindtrace.application.slot import ModelSlot
from mindtrace.errors import ImageError
from mindtrace.preprocess import count_pixels, encode_png
from mindtrace.service import predict
from mindtrace.service.predict import LoadedModel

# Up to here a question is answered on the event loop: sooner than a thread would be woken.
SMALL_BODY = 16 * 1024
SMALL_PIXELS = 256 * 256
LIGHT_SECONDS = 0.001
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
    responses=problems(413, 415, 503, 504),
    openapi_extra={"requestBody": _BODY, "parameters": [_TOP_K]},
)
async def inference(request: Request) -> Response:
    """Classify one image, or several with one bad image hurting only itself."""
    state = request.app.state
    slot: ModelSlot = state.slot
    admission: Admission = state.admission
    model = await slot.current()
    light = is_light(model)
    if not light:
        admission.demand_room()
    body = await read_body(request)
    question = body.question() if len(body.content) <= SMALL_BODY else None
    max_pixels = state.settings.serve.max_pixels
    if light and question is not None and has_few_pixels(question):
        fields, seconds = _timed(model, question, max_pixels)
    else:
        fields, seconds = await admission.run(
            lambda wanted: _timed(model, question or body.question(), max_pixels, wanted)
        )
    rows = fields.get("items", [fields])
    state.meters.predicted([row["class_name"] for row in rows if "class_name" in row], seconds)
    fields["request_id"] = request.state.request_id
    return Response(orjson.dumps(fields), media_type="application/json")


def is_light(model: LoadedModel) -> bool:
    """Whether the network is done with an image before a thread would have been woken."""
    return model.predictor.seconds <= LIGHT_SECONDS


def has_few_pixels(question: Question) -> bool:
    """Whether all images of a question together are quickly decoded, as their headers say."""
    pixels = 0
    for image in question.images:
        # One that is no image is as quickly refused.
        with contextlib.suppress(ImageError):
            pixels += count_pixels(image) if isinstance(image, bytes) else 0
    return pixels <= SMALL_PIXELS


def answer(
    model: LoadedModel, question: Question, max_pixels: int, wanted: Wanted = lambda: True
) -> dict[str, Any]:
    """What the model says: of one image, or `items` with one entry for each.

    Args:
        model: who answers.
        question: the images.
        max_pixels: of the largest image that is read.
        wanted: tells before each image whether somebody still waits for the answer.

    Raises:
        ImageError: the only image cannot be read.
        Problem: it was not base64; 504, nobody waits any longer.
    """
    if question.many:
        return {"items": _items(model, question, max_pixels, wanted)}
    pixels = _decode(model, question.images[0], max_pixels)
    return _fields(model, question, pixels, model.predictor.run_one(pixels))


def _timed(
    model: LoadedModel, question: Question, max_pixels: int, wanted: Wanted = lambda: True
) -> tuple[dict[str, Any], float]:
    start = time.perf_counter()
    fields = answer(model, question, max_pixels, wanted)
    return fields, time.perf_counter() - start


def _items(
    model: LoadedModel, question: Question, max_pixels: int, wanted: Wanted
) -> list[dict[str, Any]]:
    """Decode each, run those that could be read together, answer in their order."""
    items: list[dict[str, Any]] = [{} for _ in question.images]
    readable: list[tuple[int, NDArray[np.uint8]]] = []
    for place, image in enumerate(question.images):
        if not wanted():
            raise Problem(504, "nobody waits for the answer any longer")
        try:
            readable.append((place, _decode(model, image, max_pixels)))
        except (ImageError, Problem) as error:
            items[place] = {"error": {"type": "ImageError", "message": str(error)}}
        if len(readable) == BATCH:
            _run(model, question, readable, items)
    _run(model, question, readable, items)
    return items


def _run(
    model: LoadedModel,
    question: Question,
    readable: list[tuple[int, NDArray[np.uint8]]],
    items: list[dict[str, Any]],
) -> None:
    """Answer decoded images in their places, and forget them."""
    if readable:
        rows = model.predictor.run(np.stack([pixels for _, pixels in readable]))
        for (place, pixels), row in zip(readable, rows, strict=True):
            items[place] = _fields(model, question, pixels, row)
        readable.clear()


def _decode(model: LoadedModel, image: bytes | Problem, max_pixels: int) -> NDArray[np.uint8]:
    if isinstance(image, Problem):
        raise image
    return model.predictor.decode(image, max_pixels)


def _fields(
    model: LoadedModel, question: Question, pixels: NDArray[np.uint8], row: NDArray[np.float32]
) -> dict[str, Any]:
    fields = predict.answer(model, row, question.top_k).document()
    chosen = {name: fields[name] for name in _FIELDS}
    if question.show_input:
        chosen["input"] = base64.b64encode(encode_png(pixels)).decode()
    return chosen
