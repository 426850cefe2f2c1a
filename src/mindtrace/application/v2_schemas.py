"""Floor 10: the shapes of the Open Inference Protocol v2, for the OpenAPI document.

As in `schemas`, nothing here runs for a request.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mindtrace.application.bodies import MAX_IMAGES
from mindtrace.application.schemas import Base64


class _Shape(BaseModel):
    model_config = ConfigDict(protected_namespaces=())


class _Wish(_Shape):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Metadata(_Shape):
    """The server."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(_Shape):
    """The process answers."""

    live: bool


class ServerReady(_Shape):
    """It can classify."""

    ready: bool


class ModelReady(_Shape):
    """The model can classify."""

    name: str
    ready: bool


class TensorMetadata(_Shape):
    """A tensor that the model takes or gives; -1 is any number of rows."""

    name: str
    datatype: Literal["BYTES", "FP32", "INT64"]
    shape: list[int]


class ModelMetadata(_Shape):
    """What the model takes (one of `inputs`) and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


_Rows = Annotated[int, Field(ge=1, le=MAX_IMAGES)]


class ImageInput(_Wish):
    """Image files: a PNG, JPEG or WebP in each element."""

    name: Literal["image"]
    datatype: Literal["BYTES"]
    shape: list[_Rows] = Field(min_length=1, max_length=2, description="[n] or [n, 1]")
    data: list[Base64] = Field(description="image files", min_length=1)
    parameters: dict[str, Any] = Field(default={})


class PixelInput(_Wish):
    """Normalised input, (n, channels, height, width)."""

    name: Literal["input"]
    datatype: Literal["FP32"]
    shape: list[Annotated[int, Field(ge=1)]] = Field(min_length=4, max_length=4)
    data: list[Any] = Field(description="numbers, flat or nested as the shape", min_length=1)
    parameters: dict[str, Any] = Field(default={})


class WantedOutput(_Wish):
    """One of the outputs."""

    name: Literal["probabilities", "label", "class_name"]
    parameters: dict[str, Any] = Field(default={}, examples=[{"binary_data": False}])


class InferBody(_Wish):
    """What is asked."""

    id: str | None = Field(default=None, description="echoed")
    inputs: list[ImageInput | PixelInput] = Field(min_length=1, max_length=1)
    outputs: list[WantedOutput] | None = Field(default=None, description="all, if left out")
    parameters: dict[str, Any] = Field(default={}, examples=[{"binary_data_output": False}])


class OutputTensor(_Shape):
    """An answer: `data` in row-major order, or `binary_data_size` bytes behind the JSON."""

    name: str
    datatype: Literal["BYTES", "FP32", "INT64"]
    shape: list[int]
    data: list[float | str] | None = None
    parameters: dict[str, Any] | None = None


class Inferred(_Shape):
    """What the model says."""

    model_name: str
    model_version: str | None = None
    id: str | None = None
    outputs: list[OutputTensor]
