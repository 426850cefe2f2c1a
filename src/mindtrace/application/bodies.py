"""Floor 10: from the body of a request to the image files in it.

In: JSON with base64, an image file as it is, or a form with a file. Out: a `Question`
with each image's bytes, or the fault in its place where several were sent.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from starlette.datastructures import UploadFile
from starlette.requests import Request

from mindtrace.application.guard import media_type
from mindtrace.application.problems import Problem

IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp")
ACCEPTED = ("application/json", *IMAGE_TYPES, "multipart/form-data")
MAX_IMAGES = 1024


@dataclass(frozen=True)
class Question:
    """What a client asks.

    Attributes:
        images: the encoded files; a `Problem` where one of several is not base64.
        top_k: how many of the likeliest classes to list, from 1.
        many: whether the answer is a list.
    """

    images: Sequence[bytes | Problem]
    top_k: int = 1
    many: bool = False


async def read_question(request: Request) -> Question:
    """Read a question from any of the accepted types.

    Raises:
        Problem: 400 not JSON or not base64, 415 another type, 422 without an image.
    """
    kind = media_type(request.headers.get("content-type", "").encode("latin-1"))
    if kind == "application/json":
        return from_json(await request.body())
    if kind in IMAGE_TYPES:
        return Question([_not_empty(await request.body())], _top_k_of_query(request))
    if kind == "multipart/form-data":
        content = _not_empty(await form_file(request, "image"))
        return Question([content], _top_k_of_query(request))
    raise unsupported(kind, ACCEPTED)


def from_json(body: bytes) -> Question:
    """Read `{"image": base64, "top_k": 3}` or `{"images": [base64, ...]}`.

    Raises:
        Problem: 400 not JSON or not base64, 422 other fields or types.
    """
    fields = parse_object(body)
    unknown = sorted(set(fields) - {"image", "images", "top_k"})
    if unknown or ("image" in fields) == ("images" in fields):
        found = f"unknown field '{unknown[0]}'" if unknown else "found both or neither"
        raise Problem(
            422,
            f"the body must have 'image' or 'images', and may have 'top_k': {found}",
            hint='{"image": "<base64 of a PNG, JPEG or WebP file>", "top_k": 3}',
        )
    top_k = _top_k(fields.get("top_k", 1))
    if "image" in fields:
        return Question([from_base64(fields["image"], "image")], top_k)
    images = fields["images"]
    if not isinstance(images, list) or not 0 < len(images) <= MAX_IMAGES:
        raise Problem(422, f"'images' must be a list of 1 to {MAX_IMAGES} images in base64")
    return Question(
        [_or_problem(text, f"images[{i}]") for i, text in enumerate(images)], top_k, many=True
    )


def parse_object(body: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        Problem: 400 not JSON, 422 another type of value.
    """
    try:
        fields = json.loads(body, parse_constant=_no_constant)
    except RecursionError as error:
        raise Problem(400, "the body is not JSON that we read: nested too deeply") from error
    except ValueError as error:
        reason = "not UTF-8" if isinstance(error, UnicodeError) else str(error)
        raise Problem(400, f"the body is not JSON: {reason}") from error
    if not isinstance(fields, dict):
        raise Problem(422, "the body must be a JSON object")
    return fields


def from_base64(text: object, field: str) -> bytes:
    """The bytes of an image in base64.

    Raises:
        Problem: 400 not base64, 422 no text or empty.
    """
    if not isinstance(text, str):
        raise Problem(422, f"'{field}' must be a text in base64")
    try:
        return _not_empty(binascii.a2b_base64(text.encode("ascii"), strict_mode=True))
    except (binascii.Error, UnicodeEncodeError) as error:
        raise Problem(
            400, f"'{field}' is not base64", hint="the file's bytes alone, without data:...;base64,"
        ) from error


async def form_file(request: Request, field: str) -> bytes:
    """The file that a multipart form has under `field`.

    Raises:
        Problem: 422, there is none.
    """
    async with request.form(max_files=1, max_fields=8) as form:
        part = form.get(field)
        if not isinstance(part, UploadFile):
            raise Problem(422, f"the form has no file '{field}'", hint=f"curl -F {field}=@FILE ...")
        return await part.read()


def unsupported(kind: str, accepted: Sequence[str]) -> Problem:
    """The answer to a media type that is not among those accepted."""
    names = ", ".join(accepted)
    return Problem(
        415,
        f"Content-Type {kind} is not accepted here; accepted: {names}",
        headers={"Accept": names},
    )


def _or_problem(text: object, field: str) -> bytes | Problem:
    try:
        return from_base64(text, field)
    except Problem as problem:
        return problem


def _top_k_of_query(request: Request) -> int:
    text = request.query_params.get("top_k", "1")
    return _top_k(int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text)


def _top_k(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise Problem(422, "'top_k' must be a whole number from 1")
    return value


def _not_empty(data: bytes) -> bytes:
    if not data:
        raise Problem(422, "the image is empty")
    return data


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
