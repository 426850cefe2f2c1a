"""Floor 10: infer requests of the Open Inference Protocol v2, answered.

In: a request and the model that it is for. Out: the answer, in JSON or with tensors
behind it. As for `POST /inference`, what is quick is done on the event loop, and what
takes long waits for a thread.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from fastapi import Request, Response
from numpy.typing import NDArray

from mindtrace.application import bodies
from mindtrace.application.admission import Admission, Wanted
from mindtrace.application.bodies import Question
from mindtrace.application.guard import media_type
from mindtrace.application.inference import BATCH, SMALL_BODY, has_few_pixels, is_light
from mindtrace.application.problems import Problem
from mindtrace.application.tensors import LENGTH, OUTPUTS, InferRequest, read_infer
from mindtrace.errors import ImageError
from mindtrace.service.predict import LoadedModel

JSON_LENGTH = "Inference-Header-Content-Length"
BINARY = "application/octet-stream"


async def infer(request: Request, model: LoadedModel, names: Mapping[str, str]) -> Response:
    """Answer one request.

    Args:
        request: of the protocol.
        model: who answers.
        names: `model_name` and, if there is one, `model_version`.

    Raises:
        Problem: 400 not of the protocol, 415 another type, 503 or 504 too much to do.
        ImageError: an element is no image; no other is answered then.
    """
    state = request.app.state
    admission: Admission = state.admission
    length = _json_length(request)
    light = is_light(model)
    if not light:
        admission.demand_room()
    body = await request.body()
    wish = (
        read_infer(body, length, model.predictor.model_config.spec)
        if len(body) <= SMALL_BODY
        else None
    )
    max_pixels = state.settings.serve.max_pixels
    if light and wish is not None and has_few_pixels(Question(wish.images)):
        answer = _answer(model, names, wish, max_pixels)
    else:

        def work(wanted: Wanted) -> _Answer:
            read = wish or read_infer(body, length, model.predictor.model_config.spec)
            return _answer(model, names, read, max_pixels, wanted)

        answer = await admission.run(work)
    state.meters.predicted(answer.class_names, answer.seconds)
    if answer.json_length is None:
        return Response(answer.content, media_type="application/json")
    headers = {JSON_LENGTH: str(answer.json_length)}
    return Response(answer.content, media_type=BINARY, headers=headers)


def _json_length(request: Request) -> int | None:
    """How much of the body is JSON; None is all.

    Raises:
        Problem: 400 not a length, 415 another type of body.
    """
    text = request.headers.get(JSON_LENGTH)
    kind = media_type(request.headers.get("content-type", "").encode("latin-1"))
    # Triton's own client says the length and no type.
    accepted = ("application/json",) if text is None else ("", BINARY, "application/json")
    if kind not in accepted:
        raise bodies.unsupported(kind, [one for one in accepted if one])
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Problem(415, "a compressed body is not accepted here")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise Problem(400, f"{JSON_LENGTH} must be a number of bytes")
    return int(text)


@dataclass(frozen=True)
class _Answer:
    """A body, how much of it is JSON where tensors stand behind it, and what is counted."""

    content: bytes
    json_length: int | None
    class_names: Sequence[str]
    seconds: float


def _answer(
    model: LoadedModel,
    names: Mapping[str, str],
    wish: InferRequest,
    max_pixels: int,
    wanted: Wanted = lambda: True,
) -> _Answer:
    start = time.perf_counter()
    rows = _rows(model, wish, max_pixels, wanted)
    if not np.isfinite(rows).all():
        raise Problem(422, "the values are so large that the answer is not a number")
    labels = rows.argmax(axis=1)
    class_names = [model.predictor.model_config.class_names[label] for label in labels.tolist()]
    columns = {"probabilities": rows, "label": labels, "class_name": class_names}
    content, length = _written(wish, names, columns)
    return _Answer(content, length, class_names, time.perf_counter() - start)


def _rows(
    model: LoadedModel, wish: InferRequest, max_pixels: int, wanted: Wanted
) -> NDArray[np.float32]:
    """Probabilities, a few images at a time: float32, (n, classes)."""
    parts = []
    for start in range(0, wish.rows, BATCH):
        if wish.pixels is not None:
            _demand_wanted(wanted)
            parts.append(model.predictor.run_input(wish.pixels[start : start + BATCH]))
            continue
        decoded = []
        for place, image in enumerate(wish.images[start : start + BATCH], start):
            _demand_wanted(wanted)
            decoded.append(_decoded(model, image, place, max_pixels))
        parts.append(model.predictor.run(np.stack(decoded)))
    return np.concatenate(parts)


def _demand_wanted(wanted: Wanted) -> None:
    if not wanted():
        raise Problem(504, "nobody waits for the answer any longer")


def _decoded(model: LoadedModel, image: bytes, place: int, max_pixels: int) -> NDArray[np.uint8]:
    try:
        return model.predictor.decode(image, max_pixels)
    except ImageError as error:
        raise ImageError(f"image {place}: {error.message}", hint=error.hint) from error


def _written(
    wish: InferRequest, names: Mapping[str, str], columns: Mapping[str, Any]
) -> tuple[bytes, int | None]:
    """The body of the answer, and the bytes of JSON it begins with; None is JSON alone."""
    tensors: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for name, binary in wish.outputs.items():
        values = columns[name]
        shape = list(np.shape(values))
        tensor: dict[str, Any] = {"name": name, "shape": shape, "datatype": OUTPUTS[name]}
        if binary:
            tail.append(_binary(values))
            tensor["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            tensor["data"] = values if isinstance(values, list) else values.ravel().tolist()
        tensors.append(tensor)
    given = {} if wish.request_id is None else {"id": wish.request_id}
    head = orjson.dumps({**names, **given, "outputs": tensors})
    return b"".join((head, *tail)), len(head) if tail else None


def _binary(values: Any) -> bytes:
    """A tensor as it stands behind the JSON: little-endian, texts behind their lengths."""
    if isinstance(values, list):
        texts = [text.encode() for text in values]
        return b"".join(LENGTH.pack(len(text)) + text for text in texts)
    kind = "<f4" if values.dtype == np.float32 else "<i8"
    return bytes(values.astype(kind).tobytes())
