"""Floor 10: what is asked in the words of the Open Inference Protocol v2.

In: the body of an infer request, as JSON alone or as JSON with tensors behind it (the
binary data extension). Out: an `InferRequest`, or a `Problem` with the place and what
was expected there.

Source: the protocol's REST specification, and Triton's binary tensor data extension.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mindtrace.application.bodies import MAX_IMAGES, from_base64, parse_object
from mindtrace.application.problems import Problem
from mindtrace.preprocess import ImageSpec

IMAGE, PIXELS = "image", "input"
DATATYPES = {IMAGE: "BYTES", PIXELS: "FP32"}
OUTPUTS = {"probabilities": "FP32", "label": "INT64", "class_name": "BYTES"}
# What would change the answer, and is not offered: to leave it out would be a guess.
_NOT_OFFERED = ("classification", "shared_memory_region")
# Values in JSON, and objects: what is more takes seconds to parse, and has a better way.
MAX_VALUES, MAX_OBJECTS = 2**20, 64
LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class InferRequest:
    """What a client of the protocol asks.

    Attributes:
        request_id: to be echoed, or None.
        images: encoded files; empty where `pixels` is given.
        pixels: float32, (n, channels, height, width), normalised; None where images are.
        outputs: names, and whether each is wanted as binary data.
    """

    request_id: str | None
    images: Sequence[bytes]
    pixels: NDArray[np.float32] | None
    outputs: Mapping[str, bool]

    @property
    def rows(self) -> int:
        """How many images there are."""
        return len(self.images) if self.pixels is None else len(self.pixels)


def read_infer(body: bytes, json_length: int | None, spec: ImageSpec) -> InferRequest:
    """Read the body of an infer request.

    Args:
        body: the whole of it.
        json_length: bytes of the JSON before the tensors; None is all of it.
        spec: what the served network wants to see.

    Raises:
        Problem: 400, it is none; with the place and what was expected.
    """
    if json_length is not None and json_length > len(body):
        raise _wrong(f"Inference-Header-Content-Length is more than the body's {len(body)} bytes")
    fields = _parsed(body[:json_length])
    tail = memoryview(body)[json_length:] if json_length is not None else memoryview(b"")
    _demand_fields(fields, "the request", {"id", "parameters", "inputs", "outputs"})
    request_id = fields.get("id")
    if not (request_id is None or _is_text(request_id)):
        raise _wrong("'id' must be a text")
    inputs = fields.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise _wrong(f"'inputs' must be a list of one tensor, '{IMAGE}' or '{PIXELS}'")
    outputs = _outputs(fields)
    tensor = _Tensor.of(inputs[0], tail)
    if tensor.name == IMAGE:
        return InferRequest(request_id, tensor.images(), None, outputs)
    return InferRequest(request_id, (), tensor.pixels(spec), outputs)


@dataclass(frozen=True)
class _Tensor:
    """An input as it was sent: a list from JSON, or bytes from behind it."""

    name: str
    shape: Sequence[int]
    data: list[Any] | memoryview

    @classmethod
    def of(cls, fields: Mapping[str, Any], tail: memoryview) -> _Tensor:
        _demand_fields(fields, "an input", {"name", "shape", "datatype", "parameters", "data"})
        name, shape = fields.get("name"), fields.get("shape")
        if not isinstance(name, str) or name not in DATATYPES:
            raise _wrong(f"the input's name must be '{IMAGE}' or '{PIXELS}'")
        if fields.get("datatype") != DATATYPES[name]:
            raise _wrong(f"the datatype of '{name}' must be {DATATYPES[name]}")
        if not isinstance(shape, list) or not all(type(side) is int and side > 0 for side in shape):
            raise _wrong(f"the shape of '{name}' must be a list of positive integers")
        if not shape or shape[0] > MAX_IMAGES:
            raise _wrong(f"the shape of '{name}' must begin with 1 to {MAX_IMAGES} rows")
        size = _parameters(fields, f"'{name}'").get("binary_data_size")
        data = fields.get("data")
        if size is None:
            if not isinstance(data, list) or len(tail):
                raise _wrong(f"'{name}' must have a list 'data', or a parameter binary_data_size")
            return cls(name, shape, data)
        if type(size) is not int or size != len(tail) or data is not None:
            raise _wrong(
                f"binary_data_size of '{name}' must be the {len(tail)} bytes behind the JSON, "
                "and stand in place of 'data'"
            )
        return cls(name, shape, tail)

    def images(self) -> list[bytes]:
        """Encoded files, from base64 or from behind the JSON."""
        if len(self.shape) > 2 or self.shape[1:] not in ([], [1]):
            raise _wrong(f"the shape of '{self.name}' must be [n] or [n, 1]")
        if isinstance(self.data, list):
            texts = self._flat(self.data)
            found = [from_base64(text, f"data[{place}]") for place, text in enumerate(texts)]
        else:
            found = list(_elements(self.data))
        self._demand_count(len(found))
        return found

    def pixels(self, spec: ImageSpec) -> NDArray[np.float32]:
        """float32, (n, channels, height, width), every value finite."""
        wanted = [spec.channels, spec.height, spec.width]
        if self.shape[1:] != wanted:
            raise _wrong(f"the shape of '{self.name}' must be [n, {', '.join(map(str, wanted))}]")
        if isinstance(self.data, list):
            values = self._flat(self.data)
            if not all(type(value) in (int, float) for value in values):
                raise _wrong(f"the data of '{self.name}' must be numbers")
            self._demand_count(len(values))
            try:
                flat = np.asarray(values, np.float64)
            except OverflowError as error:
                raise _wrong(f"a value of '{self.name}' is too large") from error
        else:
            self._demand_count(len(self.data) / 4)
            flat = np.frombuffer(self.data, "<f4")
        with np.errstate(over="ignore"):  # told below
            array = np.ascontiguousarray(flat.reshape(self.shape), np.float32)
        if not np.isfinite(array).all():
            raise _wrong(f"a value of '{self.name}' is NaN, infinite or beyond float32")
        return array

    def _flat(self, data: list[Any]) -> list[Any]:
        """The values, whether they came in one list or nested as the shape says."""
        for side in self.shape[:-1]:
            if not data or not isinstance(data[0], list):
                break
            if len(data) % side or not all(isinstance(row, list) for row in data):
                raise _wrong(f"the data of '{self.name}' is not nested as its shape")
            data = list(itertools.chain.from_iterable(data))
        return data

    def _demand_count(self, found: float) -> None:
        expected = math.prod(self.shape)
        if found != expected:
            raise _wrong(f"'{self.name}' has {found:g} values, its shape says {expected}")


def _parsed(text: bytes) -> dict[str, Any]:
    # Neither base64 nor numbers have these signs, so what is too much tells beforehand.
    if text.count(b",") + text.count(b"[") > MAX_VALUES or text.count(b"{") > MAX_OBJECTS:
        raise _wrong(f"more than {MAX_VALUES} values in JSON; send tensors as binary data")
    return parse_object(text)


def _is_text(value: object) -> bool:
    """Whether this is a text that can be sent back: JSON lets half a surrogate pair pass."""
    return isinstance(value, str) and not any("\ud800" <= sign <= "\udfff" for sign in value)


def _outputs(fields: Mapping[str, Any]) -> dict[str, bool]:
    binary = _flag(_parameters(fields, "the request"), "binary_data_output", False)
    wanted = fields.get("outputs")
    if wanted is None or wanted == []:
        return dict.fromkeys(OUTPUTS, binary)
    if not isinstance(wanted, list) or not all(isinstance(one, dict) for one in wanted):
        raise _wrong("'outputs' must be a list of objects with a 'name'")
    outputs: dict[str, bool] = {}
    for one in wanted:
        _demand_fields(one, "an output", {"name", "parameters"})
        name = one.get("name")
        if not isinstance(name, str) or name not in OUTPUTS or name in outputs:
            raise _wrong(f"outputs are {', '.join(OUTPUTS)}, each at most once")
        parameters = _parameters(one, f"'{name}'")
        refused = [key for key in _NOT_OFFERED if key in parameters]
        if refused:
            raise _wrong(f"the parameter {refused[0]} of '{name}' is not offered here")
        outputs[name] = _flag(parameters, "binary_data", binary)
    return outputs


def _parameters(fields: Mapping[str, Any], whose: str) -> Mapping[str, Any]:
    parameters = fields.get("parameters", {})
    if not isinstance(parameters, dict):
        raise _wrong(f"the parameters of {whose} must be an object")
    return parameters


def _flag(parameters: Mapping[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise _wrong(f"the parameter {name} must be true or false")
    return value


def _demand_fields(fields: Mapping[str, Any], whose: str, known: set[str]) -> None:
    unknown = sorted(set(fields) - known)
    if unknown:
        raise _wrong(f"{whose} has an unknown field '{unknown[0][:64]}'")


def _elements(data: memoryview) -> Iterator[bytes]:
    """The elements of a binary BYTES tensor: each behind its length, 4 bytes, little-endian."""
    place = 0
    while place < len(data):
        if place + 4 > len(data):
            raise _wrong("the binary data ends within the length of an element")
        (length,) = LENGTH.unpack_from(data, place)
        place += 4 + length
        if place > len(data):
            raise _wrong("the binary data ends within an element")
        yield bytes(data[place - length : place])


def _wrong(reason: str) -> Problem:
    return Problem(400, reason, hint="GET /v2/models/NAME says what the model takes and gives")
