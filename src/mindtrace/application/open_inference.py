"""The Open Inference Protocol v2 (REST, binary tensor data extension) for the served model."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import orjson
from fastapi import APIRouter, Depends, Request, Response
from numpy.typing import NDArray
from pydantic import ValidationError

from mindtrace.application import bodies, system
from mindtrace.application.admission import Wanted
from mindtrace.application.inference import BATCH, classify, is_light, predict, require_wanted
from mindtrace.application.open_inference_schemas import (
    BINARY,
    INFER_ROUTE,
    INPUTS,
    JSON_LENGTH,
    OUTPUTS,
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
    WantedOutput,
)
from mindtrace.application.problems import Problem
from mindtrace.application.schemas import MAX_IMAGES, problems
from mindtrace.config.sections import ServeSettings
from mindtrace.errors import ImageError, NotFoundError
from mindtrace.preprocess import ImageSpec
from mindtrace.service.predict import LoadedModel
from mindtrace.version import VERSION

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
UNNAMED = "bundle"  # the name of a bundle that was named by its folder
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


async def _named(name: str) -> None: ...


async def _of_version(name: str, version: str) -> None: ...


def _of_model(method: str, path: str, **options: Any) -> Callable[[Endpoint], Endpoint]:
    """Declare a route of the served model, and the same of the served version."""

    def add(endpoint: Endpoint) -> Endpoint:
        for start, declared in (("", _named), ("/versions/{version}", _of_version)):
            name = endpoint.__name__ + ("_version" if start else "")
            options.update(methods=[method], name=name, dependencies=[Depends(declared)])
            router.add_api_route(f"/models/{{name}}{start}{path}", endpoint, **options)
        return endpoint

    return add


@_of_model("GET", "", summary="The model", response_model_exclude_none=True, responses=_UNREADY)
async def v2_model(request: Request) -> ModelMetadata:
    """What it takes and gives: one of the two inputs, any of the outputs."""
    return _metadata(_served(request))


@_of_model("GET", "/ready", summary="Is the model ready", responses=_UNREADY)
async def v2_model_ready(request: Request) -> ModelReady:
    """Loaded, and its golden images passed."""
    _served(request)
    await system.ready(request)
    return ModelReady(name=request.path_params["name"], ready=True)


@_of_model("POST", "/infer", **INFER_ROUTE)
async def v2_infer(request: Request) -> Response:
    """Answer with probabilities, label and class_name of each image."""
    state, length = request.app.state, _json_length(request)
    model = _served(request)
    if not is_light(model):
        state.admission.require_free_place()
    body = await request.body()
    spec, run = model.predictor.model_config.spec, partial(_run, model, state.settings.serve)
    return await classify(state, model, body, lambda: read_infer(body, length, spec), run)


@router.post("/repository/index", summary="The models that can be asked")
async def v2_index(request: Request) -> list[IndexEntry]:
    """The served model, while it answers."""
    bodies.require_type(request, ("", "application/json"))
    served = request.app.state.served
    if served.model is None or served.draining:
        return []
    names = _names(served.model)
    version = names.get("model_version", "")
    return [IndexEntry(name=names["model_name"], version=version, state="READY", reason="")]


def _served(request: Request) -> LoadedModel:
    """The served model, if it is the one that the path names; else 404."""
    model: LoadedModel = request.app.state.served.require_model()
    names, asked = _names(model), request.path_params
    name, version = asked["name"], asked.get("version")
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
    spec, classes, names = model.predictor.model_config.spec, model.class_names, _names(model)
    side = [spec.channels, spec.height, spec.width]
    shapes = {"input": [-1, *side], "probabilities": [-1, len(classes)]}
    about = {"input": spec.document(), "class_name": {"class_names": classes}}
    inputs, outputs = (
        [
            TensorMetadata(
                name=name, datatype=kind, shape=shapes.get(name, [-1]), parameters=about.get(name)
            )
            for name, kind in kinds.items()
        ]
        for kinds in (INPUTS, OUTPUTS)
    )
    return ModelMetadata(
        name=names["model_name"],
        versions=[names["model_version"]] if "model_version" in names else [],
        platform="onnxruntime_onnx",
        inputs=inputs,
        outputs=outputs,
    )


def _json_length(request: Request) -> int | None:
    """How many bytes of the body are JSON; None is all of it."""
    length = bodies.number_in_header(request, JSON_LENGTH)
    # Triton's own client sends no type.
    accepted = ("", "application/json")
    bodies.require_type(request, accepted if length is None else (*accepted, BINARY))
    return length


@dataclass(frozen=True)
class InferRequest:
    """What is asked: encoded images, or `pixels`: float32, (n, channels, height, width)."""

    body: InferBody
    images: Sequence[bytes] = ()
    pixels: NDArray[np.float32] | None = None


def read_infer(body: bytes, json_length: int | None, spec: ImageSpec) -> InferRequest:
    """Read the body of an infer request; 400 with the place and what was expected there."""
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
    size = tensor.parameters.binary_data_size
    if (tensor.data is None) == (size is None) or (size or 0) != len(tail):
        message = "must have either a list 'data', or a parameter binary_data_size"
        raise _wrong(f"'{tensor.name}' {message} of the {len(tail)} bytes behind the JSON")
    if isinstance(tensor, ImageInput):
        return InferRequest(asked, _images(tensor, tail))
    return InferRequest(asked, pixels=_pixels(tensor, tail, spec))


def _images(tensor: ImageInput, tail: memoryview) -> list[bytes]:
    """Encoded files, from base64 or from behind the JSON."""
    if tensor.shape[1:] not in ([], [1]):
        raise _wrong("the shape of 'image' must be [n] or [n, 1]")
    if tensor.data is None:
        found = list(_elements(tail))
        _require_count(tensor, len(found))
        return found
    texts = enumerate(_values(tensor, tensor.data).flat)
    return [bodies.from_base64(text, f"data[{place}]") for place, text in texts]


def _pixels(tensor: PixelInput, tail: memoryview, spec: ImageSpec) -> NDArray[np.float32]:
    """float32, (n, channels, height, width), every value finite."""
    expected = [spec.channels, spec.height, spec.width]
    if tensor.shape[0] > MAX_IMAGES or tensor.shape[1:] != expected:
        sides = ", ".join(map(str, expected))
        raise _wrong(f"the shape of 'input' must be [n, {sides}], with 1 to {MAX_IMAGES} rows")
    if tensor.data is None:
        _require_count(tensor, len(tail) / 4)
        values = np.frombuffer(tail, "<f4")
    else:
        values = _values(tensor, tensor.data)
        if not all(type(value) in (int, float) for value in values.flat):
            raise _wrong("the data of 'input' must be numbers")
    with np.errstate(over="ignore"):  # refused below
        array = values.reshape(tensor.shape).astype(np.float32)
    if not np.isfinite(array).all():
        raise _wrong("a value of 'input' is NaN, infinite or beyond float32")
    return array


def _values(tensor: ImageInput | PixelInput, data: list[Any]) -> NDArray[Any]:
    """The values, whether they came in one list or nested as the shape says."""
    values = np.array(data, object)
    _require_count(tensor, values.size)
    if values.ndim not in (1, len(tensor.shape)):
        raise _wrong(f"the data of '{tensor.name}' is not nested as its shape")
    return values


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
        if isinstance(found, ImageError | Problem):
            raise ImageError(f"image {place}: {found}", hint=found.hint) from found
        parts.append(found[1][np.newaxis])
    rows = np.concatenate(parts)
    if not np.isfinite(rows).all():
        raise Problem(422, "the values are so large that the answer is not a number")
    labels = rows.argmax(axis=1)
    class_names = [model.predictor.model_config.class_names[label] for label in labels.tolist()]
    columns = {
        "probabilities": rows,
        "label": labels,
        "class_name": np.array(class_names, object),
    }
    return _compose(asked.body, _names(model), columns), class_names


def _compose(
    asked: InferBody, names: Mapping[str, str], columns: Mapping[str, NDArray[Any]]
) -> Response:
    """JSON, with the tensors behind it that are wanted as binary data."""
    tensors: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for wanted in asked.outputs or [WantedOutput(name=name) for name in OUTPUTS]:
        values, binary = columns[wanted.name], wanted.parameters.binary_data
        shape, kind = list(values.shape), OUTPUTS[wanted.name]
        tensor: dict[str, Any] = {"name": wanted.name, "shape": shape, "datatype": kind}
        if asked.parameters.binary_data_output if binary is None else binary:
            tail.append(_as_binary(values, kind))
            tensor["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            tensor["data"] = values.ravel().tolist()
        tensors.append(tensor)
    given = {} if asked.id is None else {"id": asked.id}
    head = orjson.dumps({**names, **given, "outputs": tensors})
    if not tail:
        return Response(head, media_type="application/json")
    headers = {JSON_LENGTH: str(len(head))}
    return Response(b"".join((head, *tail)), media_type=BINARY, headers=headers)


def _as_binary(values: NDArray[Any], kind: Kind) -> bytes:
    """A tensor as it stands behind the JSON: little-endian, texts behind their lengths."""
    if kind == "BYTES":
        texts = [text.encode() for text in values]
        return b"".join(_LENGTH.pack(len(text)) + text for text in texts)
    return values.astype("<f4" if kind == "FP32" else "<i8").tobytes()
