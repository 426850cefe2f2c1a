"""The shapes of the Open Inference Protocol v2; those of requests validate them."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, WithJsonSchema
from pydantic.config import JsonDict

from mindtrace.application import schemas

JSON_LENGTH = "Inference-Header-Content-Length"
BINARY = "application/octet-stream"
Kind = Literal["BYTES", "FP32", "INT64"]
INPUTS: dict[str, Kind] = {"image": "BYTES", "input": "FP32"}
OUTPUTS: dict[Literal["probabilities", "label", "class_name"], Kind] = {
    "probabilities": "FP32",
    "label": "INT64",
    "class_name": "BYTES",
}


class Metadata(schemas.Shape):
    """The server."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(schemas.Shape):
    """The process answers."""

    live: bool


class ServerReady(schemas.Shape):
    """It can classify."""

    ready: bool


class ModelReady(schemas.Shape):
    """The model can classify."""

    name: str
    ready: bool


class TensorMetadata(schemas.Shape):
    """A tensor that the model takes or gives; -1 is any number of rows."""

    name: str
    datatype: Kind
    shape: list[int]
    parameters: dict[str, Any] | None = Field(
        default=None,
        description="of `input`: size, mode, scale, mean and std of its pixels; of `class_name`: "
        "`class_names`, by label",
    )


class ModelMetadata(schemas.Shape):
    """What the model takes (one of `inputs`) and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class IndexEntry(schemas.Shape):
    """A model of the repository."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class _Known(schemas.Shape):
    """The parameters that mean something here; others are passed over."""

    model_config = ConfigDict(strict=True)
    binary_data_size: int | None = None
    binary_data: bool | None = None
    binary_data_output: bool = False
    # They would change the answer, and are not offered: to leave them out would be a guess.
    classification: None = None
    shared_memory_region: None = None


_Parameters = Annotated[_Known, WithJsonSchema({"type": "object"})]
_Rows = Annotated[int, Field(ge=1, le=schemas.MAX_IMAGES)]

# Binary data stands behind the JSON, in place of `data`.
_DATA_REQUIRED: JsonDict = {"required": ["name", "datatype", "shape", "data"]}
_IMAGES = {"type": "array", "minItems": 1, "description": "image files"}
_IMAGES["items"] = {"type": "string", "minLength": 1, "contentEncoding": "base64"}
_NUMBERS = {"type": "array", "items": {}, "minItems": 1}
_NUMBERS["description"] = "numbers, flat or nested as the shape"


class ImageInput(schemas.Strict):
    """Image files: a PNG, JPEG or WebP in each element."""

    model_config = ConfigDict(json_schema_extra=_DATA_REQUIRED)
    name: Literal["image"]
    datatype: Literal["BYTES"]
    shape: list[_Rows] = Field(min_length=1, max_length=2, description="[n] or [n, 1]")
    data: Annotated[list[Any] | None, WithJsonSchema(_IMAGES)] = None
    parameters: _Parameters = Field(default_factory=_Known)


class PixelInput(schemas.Strict):
    """(n, channels, height, width), normalised as GET /v2/models/NAME says."""

    model_config = ConfigDict(json_schema_extra=_DATA_REQUIRED)
    name: Literal["input"]
    datatype: Literal["FP32"]
    shape: list[Annotated[int, Field(ge=1)]] = Field(min_length=4, max_length=4)
    data: Annotated[list[Any] | None, WithJsonSchema(_NUMBERS)] = None
    parameters: _Parameters = Field(default_factory=_Known)


_Input = Annotated[ImageInput | PixelInput, Field(discriminator="name")]


class WantedOutput(schemas.Strict):
    """One of the outputs."""

    name: Literal["probabilities", "label", "class_name"]
    parameters: _Parameters = Field(default_factory=_Known, examples=[{"binary_data": False}])


class InferBody(schemas.Strict):
    """What is asked."""

    id: str | None = Field(default=None, description="echoed")
    inputs: list[_Input] = Field(min_length=1, max_length=1)
    outputs: list[WantedOutput] | None = Field(default=None, description="all, if left out")
    parameters: _Parameters = Field(
        default_factory=_Known, examples=[{"binary_data_output": False}]
    )


class OutputTensor(schemas.Shape):
    """An answer: `data` in row-major order, or `binary_data_size` bytes behind the JSON."""

    name: str
    datatype: Kind
    shape: list[int]
    data: list[float | str] | None = None
    parameters: dict[str, Any] | None = None


class Inferred(schemas.Shape):
    """What the model says."""

    model_name: str
    model_version: str | None = None
    id: str | None = None
    outputs: list[OutputTensor]


_BYTES = {BINARY: {"schema": {"type": "string", "format": "binary"}}}
_EXAMPLE = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [schemas.EXAMPLE_IMAGE]}
INFER_ROUTE: dict[str, Any] = {
    "summary": "Classify images",
    "response_model": Inferred,
    "responses": {
        **schemas.problems(404, 413, 415, 503, 504),
        200: {
            "description": "The answer; with tensors behind the JSON where they were asked for so.",
            "content": _BYTES,
        },
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": schemas.reference(InferBody),
                    "example": {"inputs": [_EXAMPLE]},
                },
                **_BYTES,
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
