"""The Open Inference Protocol v2 (REST, binary tensor data extension) for the served model."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray
from pydantic import ValidationError

from mindtrace.application import bodies, system
from mindtrace.application.admission import Wanted
from mindtrace.application.inference import BATCH, classify, is_light, predict, require_wanted
from mindtrace.application.open_inference_schemas import (
    BINARY,
    INFER_ROUTE,
    JSON_LENGTH,
    ImageInput,
    IndexEntry,
    InferBody,
    Kind,
    Metadata,
    ModelMetadata,
    ModelReady,
    PixelInput,
    ServerLive,
    ServerReady,
    TensorMetadata,
)
from mindtrace.application.problems import Problem
from mindtrace.application.schemas import MAX_IMAGES, problems
from mindtrace.config.sections import ServeSettings
from mindtrace.errors import ImageError, NotFoundError
from mindtrace.preprocess import ImageSpec
from mindtrace.service.predict import LoadedModel
from mindtrace.version import VERSION

UNNAMED = "bundle"  # the name of a bundle that was named by its folder
INPUTS: dict[str, Kind] = {"image": "BYTES", "input": "FP32"}
OUTPUTS: dict[str, Kind] = {"probabilities": "FP32", "label": "INT64", "class_name": "BYTES"}
# Would change the answer, and is not offered: to leave it out would be a guess.
_NOT_OFFERED = ("classification", "shared_memory_region")
# In JSON; what is more takes seconds to parse, and has a better way.
MAX_VALUES, MAX_OBJECTS = 2**20, 64
_LENGTH = struct.Struct("<I")

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol v2"])
_UNREADY = problems(404, 503)


@router.get("", summary="The server")
async def v2() -> Metadata:
    """Name, version and extensions."""
    return Metadata(name="mindtrace", version=VERSION, extensions=["binary_tensor_data"])


@router.get("/health/live", summary="Does the process answer")
async def v2_live() -> ServerLive:
    """Never touches the model."""
    return ServerLive(live=True)


@router.get("/health/ready", summary="Can it classify", responses=problems(503))
async def v2_ready(request: Request) -> ServerReady:
    """As /healthz/ready."""
    await system.ready(request)
    return ServerReady(ready=True)


@router.get(
    "/models/{name}", summary="The model", response_model_exclude_none=True, responses=_UNREADY
)
async def v2_model(request: Request, name: str) -> ModelMetadata:
    """What it takes and gives: one of the two inputs, any of the outputs."""
    return _metadata(_served(request, name))


@router.get(
    "/models/{name}/versions/{version}",
    summary="The model, if it is this version",
    response_model_exclude_none=True,
    responses=_UNREADY,
)
async def v2_model_version(request: Request, name: str, version: str) -> ModelMetadata:
    """What it takes and gives."""
    return _metadata(_served(request, name, version))


@router.get("/models/{name}/ready", summary="Is the model ready", responses=_UNREADY)
async def v2_model_ready(request: Request, name: str) -> ModelReady:
    """Loaded, and its golden images passed."""
    _served(request, name)
    await system.ready(request)
    return ModelReady(name=name, ready=True)


@router.get(
    "/models/{name}/versions/{version}/ready", summary="Is this version ready", responses=_UNREADY
)
async def v2_model_version_ready(request: Request, name: str, version: str) -> ModelReady:
    """Loaded, and its golden images passed."""
    _served(request, name, version)
    await system.ready(request)
    return ModelReady(name=name, ready=True)


@router.post("/models/{name}/infer", **INFER_ROUTE)
async def v2_infer(request: Request, name: str) -> Response:
    """Answer with probabilities, label and class_name of each image."""
    return await _infer(request, name)


@router.post("/models/{name}/versions/{version}/infer", **INFER_ROUTE)
async def v2_infer_version(request: Request, name: str, version: str) -> Response:
    """The same, if the server serves this version."""
    return await _infer(request, name, version)


@router.post("/repository/index", summary="The models that can be asked")
async def v2_index(request: Request) -> list[IndexEntry]:
    """The served model, or none; `{"ready": true}` leaves out what does not answer now."""
    bodies.require_type(request, ("", "application/json"))
    text, served = await request.body(), request.app.state.served
    only_ready = bodies.parse_object(text).get("ready") is True if text.strip() else False
    if served.model is None or (served.draining and only_ready):
        return []
    names = _names(served.model)
    version = names.get("model_version", "")
    entry = IndexEntry(name=names["model_name"], version=version, state="READY", reason="")
    if served.draining:
        entry.state, entry.reason = "UNAVAILABLE", "stopping"
    return [entry]


def _served(request: Request, name: str, version: str | None = None) -> LoadedModel:
    """The served model, if it is the one that is meant; else 404."""
    model: LoadedModel = request.app.state.served.require_model()
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


def _metadata(model: LoadedModel) -> ModelMetadata:
    card, names = model.predictor.model_config, _names(model)
    shapes = {
        "image": [-1],
        "input": [-1, card.spec.channels, card.spec.height, card.spec.width],
        "probabilities": [-1, len(card.class_names)],
        "label": [-1],
        "class_name": [-1],
    }
    about = {"input": card.spec.document(), "class_name": {"class_names": card.class_names}}

    def tensors(kinds: dict[str, Kind]) -> list[TensorMetadata]:
        return [
            TensorMetadata(name=name, datatype=kind, shape=shapes[name], parameters=about.get(name))
            for name, kind in kinds.items()
        ]

    return ModelMetadata(
        name=names["model_name"],
        versions=[names["model_version"]] if "model_version" in names else [],
        platform="onnxruntime_onnx",
        inputs=tensors(INPUTS),
        outputs=tensors(OUTPUTS),
    )


async def _infer(request: Request, name: str, version: str | None = None) -> Response:
    state, length = request.app.state, _json_length(request)
    model = _served(request, name, version)
    if not is_light(model):
        state.admission.require_free_place()
    body = await request.body()
    spec, run = model.predictor.model_config.spec, partial(_run, model, state.settings.serve)
    return await classify(state, model, body, lambda: read_infer(body, length, spec), run)


def _json_length(request: Request) -> int | None:
    """How many bytes of the body are JSON; None is all of it."""
    text = request.headers.get(JSON_LENGTH)
    # Triton's own client sends no type.
    accepted = ("", "application/json")
    bodies.require_type(request, accepted if text is None else (*accepted, BINARY))
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise Problem(400, f"{JSON_LENGTH} must be a number of bytes")
    return int(text)


@dataclass(frozen=True)
class InferRequest:
    """What is asked: encoded images, or `pixels`: float32, (n, channels, height, width)."""

    request_id: str | None
    images: Sequence[bytes]
    pixels: NDArray[np.float32] | None
    outputs: Mapping[str, bool]  # by name, whether it is wanted as binary data


def read_infer(body: bytes, json_length: int | None, spec: ImageSpec) -> InferRequest:
    """Read the body of an infer request; 400 with the place and what was expected there."""
    if json_length is not None and json_length > len(body):
        raise _wrong(f"{JSON_LENGTH} is more than the body's {len(body)} bytes")
    text = body[:json_length]
    tail = memoryview(body)[len(text) :]
    # Neither base64 nor numbers have these characters, so they can be counted beforehand.
    if text.count(b",") + text.count(b"[") > MAX_VALUES or text.count(b"{") > MAX_OBJECTS:
        raise _wrong(f"more than {MAX_VALUES} values in JSON; send tensors as binary data")
    try:
        asked = InferBody.model_validate(bodies.parse_object(text))
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part)[:64] for part in fault["loc"] if part not in INPUTS)
        # A message may quote the name that was sent, however long it is.
        raise _wrong(f"{place}: {fault['msg'][:300]}") from error
    (tensor,) = asked.inputs
    data = _data(tensor, tail)
    if isinstance(tensor, ImageInput):
        return InferRequest(asked.id, _images(tensor, data), None, _outputs(asked))
    return InferRequest(asked.id, (), _pixels(tensor, data, spec), _outputs(asked))


def _data(tensor: ImageInput | PixelInput, tail: memoryview) -> list[Any] | memoryview:
    """The list from JSON, or the bytes behind it."""
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        if tensor.data is None or len(tail):
            message = f"'{tensor.name}' must have a list 'data', or a parameter binary_data_size"
            raise _wrong(message)
        return tensor.data
    if type(size) is not int or size != len(tail) or tensor.data is not None:
        raise _wrong(
            f"binary_data_size of '{tensor.name}' must be the {len(tail)} bytes behind the JSON, "
            "and stand in place of 'data'"
        )
    return tail


def _images(tensor: ImageInput, data: list[Any] | memoryview) -> list[bytes]:
    """Encoded files, from base64 or from behind the JSON."""
    if tensor.shape[1:] not in ([], [1]):
        raise _wrong("the shape of 'image' must be [n] or [n, 1]")
    if isinstance(data, list):
        texts = _flat(tensor, data)
        found = [bodies.from_base64(text, f"data[{place}]") for place, text in enumerate(texts)]
    else:
        found = list(_elements(data))
    _require_count(tensor, len(found))
    return found


def _pixels(
    tensor: PixelInput, data: list[Any] | memoryview, spec: ImageSpec
) -> NDArray[np.float32]:
    """float32, (n, channels, height, width), every value finite."""
    expected = [spec.channels, spec.height, spec.width]
    if tensor.shape[0] > MAX_IMAGES or tensor.shape[1:] != expected:
        sides = ", ".join(map(str, expected))
        raise _wrong(f"the shape of 'input' must be [n, {sides}], with 1 to {MAX_IMAGES} rows")
    if isinstance(data, list):
        values = _flat(tensor, data)
        if not all(type(value) in (int, float) for value in values):
            raise _wrong("the data of 'input' must be numbers")
        _require_count(tensor, len(values))
        flat = np.asarray(values, np.float64)
    else:
        _require_count(tensor, len(data) / 4)
        flat = np.frombuffer(data, "<f4")
    with np.errstate(over="ignore"):  # refused below
        array = np.ascontiguousarray(flat.reshape(tensor.shape), np.float32)
    if not np.isfinite(array).all():
        raise _wrong("a value of 'input' is NaN, infinite or beyond float32")
    return array


def _flat(tensor: ImageInput | PixelInput, data: list[Any]) -> list[Any]:
    """The values, whether they came in one list or nested as the shape says."""
    for side in tensor.shape[:-1]:
        if not data or not isinstance(data[0], list):
            break
        if len(data) % side or not all(isinstance(row, list) for row in data):
            raise _wrong(f"the data of '{tensor.name}' is not nested as its shape")
        data = list(itertools.chain.from_iterable(data))
    return data


def _require_count(tensor: ImageInput | PixelInput, found: float) -> None:
    expected = math.prod(tensor.shape)
    if found != expected:
        raise _wrong(f"'{tensor.name}' has {found:g} values, its shape says {expected}")


def _elements(data: memoryview) -> Iterator[bytes]:
    """The elements of a binary BYTES tensor: each behind its length, 4 bytes, little-endian."""
    place = 0
    while place < len(data):
        if place + 4 > len(data):
            raise _wrong("the binary data ends within the length of an element")
        (length,) = _LENGTH.unpack_from(data, place)
        place += 4 + length
        if place > len(data):
            raise _wrong("the binary data ends within an element")
        yield bytes(data[place - length : place])


def _outputs(asked: InferBody) -> dict[str, bool]:
    binary = _flag(asked.parameters, "binary_data_output", False)
    outputs: dict[str, bool] = {}
    for one in asked.outputs or ():
        if one.name in outputs:
            raise _wrong(f"outputs are {', '.join(OUTPUTS)}, each at most once")
        for parameter in _NOT_OFFERED:
            if parameter in one.parameters:
                raise _wrong(f"the parameter {parameter} of '{one.name}' is not offered here")
        outputs[one.name] = _flag(one.parameters, "binary_data", binary)
    return outputs or dict.fromkeys(OUTPUTS, binary)


def _flag(parameters: Mapping[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise _wrong(f"the parameter {name} must be true or false")
    return value


def _wrong(reason: str) -> Problem:
    return Problem(400, reason, hint="GET /v2/models/NAME says what the model takes and gives")


def _run(
    model: LoadedModel, limits: ServeSettings, asked: InferRequest, wanted: Wanted
) -> tuple[Response, list[str]]:
    """The answer, and the classes in it, which are counted."""
    parts = []
    if asked.pixels is not None:
        for start in range(0, len(asked.pixels), BATCH):
            require_wanted(wanted)
            parts.append(model.predictor.run_input(asked.pixels[start : start + BATCH]))
    for place, found in enumerate(predict(model, asked.images, limits.max_pixels, wanted)):
        if isinstance(found, ImageError):
            raise ImageError(f"image {place}: {found.message}", hint=found.hint) from found
        if isinstance(found, Problem):
            raise found
        parts.append(found[1][np.newaxis])
    rows = np.concatenate(parts)
    if not np.isfinite(rows).all():
        raise Problem(422, "the values are so large that the answer is not a number")
    labels = rows.argmax(axis=1)
    class_names = [model.predictor.model_config.class_names[label] for label in labels.tolist()]
    columns = {"probabilities": rows, "label": labels, "class_name": class_names}
    return _compose(asked, _names(model), columns), class_names


def _compose(asked: InferRequest, names: Mapping[str, str], columns: Mapping[str, Any]) -> Response:
    """JSON, with the tensors behind it that are wanted as binary data."""
    tensors: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for name, binary in asked.outputs.items():
        values = columns[name]
        shape = list(np.shape(values))
        tensor: dict[str, Any] = {"name": name, "shape": shape, "datatype": OUTPUTS[name]}
        if binary:
            tail.append(_as_binary(values))
            tensor["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            tensor["data"] = values if isinstance(values, list) else values.ravel().tolist()
        tensors.append(tensor)
    given = {} if asked.request_id is None else {"id": asked.request_id}
    head = orjson.dumps({**names, **given, "outputs": tensors})
    if not tail:
        return Response(head, media_type="application/json")
    headers = {JSON_LENGTH: str(len(head))}
    return Response(b"".join((head, *tail)), media_type=BINARY, headers=headers)


def _as_binary(values: Any) -> bytes:
    """A tensor as it stands behind the JSON: little-endian, texts behind their lengths."""
    if isinstance(values, list):
        texts = [text.encode() for text in values]
        return b"".join(_LENGTH.pack(len(text)) + text for text in texts)
    kind = "<f4" if values.dtype == np.float32 else "<i8"
    return bytes(values.astype(kind).tobytes())
