"""Parts of requests: types, numbers in headers, JSON objects, base64, files of forms."""

import binascii
import contextlib
from collections.abc import Sequence
from typing import Any, TypeVar

import orjson
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request

from mindtrace.application.problems import Problem

Body = TypeVar("Body", bound=BaseModel)
# Names that browsers, libraries and mail programs give to files that we read.
_MISNAMED = {
    **dict.fromkeys(("image/jpg", "image/jpe", "image/jfif", "image/pjpeg"), "image/jpeg"),
    **dict.fromkeys(("image/x-jpeg", "image/x-jpg", "image/x-citrix-jpeg"), "image/jpeg"),
    **dict.fromkeys(("image/x-png", "image/x-citrix-png", "image/apng"), "image/png"),
    "image/x-webp": "image/webp",
}
_PLAIN = str.maketrans("-_", "+/", " \t\r\n")


def require_type(request: Request, accepted: Sequence[str]) -> str:
    """The media type of a plain body, if it is one of `accepted`; else 415."""
    # A page of another site may send text/plain, form-urlencoded or no type: never accepted but
    # the last on /v2, whose clients send JSON without one; Origin covers it and multipart.
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        detail = f"Content-Encoding {coding[:64]} is not accepted here: send it plain"
        raise Problem(415, detail, headers={"Accept-Encoding": "identity"})
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    kind = _MISNAMED.get(kind, kind)
    if kind not in accepted:
        names = ", ".join(filter(None, accepted))
        given = f"Content-Type {kind} is not accepted here" if kind else "Content-Type is missing"
        hint = f"send Content-Type: {names.partition(',')[0]}"
        raise Problem(415, f"{given}; accepted: {names}", hint=hint, headers={"Accept": names})
    return kind


def number_in_header(request: Request, name: str) -> int | None:
    """The number in a header, if it is there; 400 if it is something else."""
    text = request.headers.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise Problem(400, f"{name} must be a number")
    return int(text)


def parse_object(body: bytes) -> dict[str, Any]:
    """A JSON object; 400 no JSON, 422 another type of value."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # As a shell makes it with "$(base64 FILE)".
        hint = "base64 -w0 FILE writes no line breaks" if "control char" in error.msg else None
        raise Problem(400, f"the body is not JSON: {error}", hint=hint) from error
    if not isinstance(fields, dict):
        raise Problem(422, "the body must be a JSON object")
    return fields


def validated(shape: type[Body], fields: dict[str, Any]) -> Body:
    """`fields` as `shape`; else 422."""
    try:
        return shape.model_validate(fields)
    except ValidationError as error:
        faults = [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]
        raise RequestValidationError(faults) from error


def from_base64(text: object, field: str) -> bytes:
    """The bytes of an image in base64; 400 no base64, 422 no text or empty."""
    if not isinstance(text, str):
        raise Problem(422, f"'{field}' must be a text in base64")
    try:
        with contextlib.suppress(binascii.Error):
            return not_empty(binascii.a2b_base64(text.encode("ascii"), strict_mode=True))
        # As `base64 FILE` writes it, in lines; in the alphabet of URLs; without padding.
        plain = text.translate(_PLAIN)
        plain += "" if plain.endswith("=") else "=" * (-len(plain) % 4)
        return not_empty(binascii.a2b_base64(plain, strict_mode=True))
    except (binascii.Error, UnicodeEncodeError) as error:
        is_url = text.lstrip()[:5].lower() == "data:"
        hint = "the file's bytes alone, without data:...;base64," if is_url else None
        raise Problem(400, f"'{field}' is not base64", hint=hint) from error


def not_empty(image: bytes) -> bytes:
    """The bytes of an image file, if there are any; else 422."""
    if not image:
        raise Problem(422, "the image is empty")
    return image


async def form_file(request: Request, field: str) -> bytes:
    """The file that a multipart form has under `field`; 422 if there is none."""
    async with request.form(max_files=1, max_fields=8) as form:
        part = form.get(field)
        if not isinstance(part, UploadFile):
            raise Problem(422, f"the form has no file '{field}'", hint=f"curl -F {field}=@FILE ...")
        return await part.read()
