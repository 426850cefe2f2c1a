"""Floor 10: from the body of a request to the image files in it.

In: JSON with base64, an image file as it is, or a form with a file. Out: a `Question`
with each image's bytes, or the fault in its place where several were sent. Reading is
for the event loop; making a question of what was read may be left to another thread.
"""

from __future__ import annotations

import binascii
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from starlette.datastructures import UploadFile
from starlette.requests import Request

from mindtrace.application.guard import media_type
from mindtrace.application.problems import Problem
from mindtrace.config.urls import shown

IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp")
ACCEPTED = ("application/json", *IMAGE_TYPES, "multipart/form-data")
MAX_IMAGES = 1024
# Values in the JSON of a question, the images among them: base64 has neither commas nor
# brackets, so that more of them tell before parsing that it is none.
_MAX_VALUES = 2 * MAX_IMAGES


@dataclass(frozen=True)
class Question:
    """What a client asks.

    Attributes:
        images: the encoded files; a `Problem` where one of several is not base64.
        top_k: how many of the likeliest classes to list, from 1.
        many: whether the answer is a list.
        show_input: whether the answer shows each image as the network sees it.
    """

    images: Sequence[bytes | Problem]
    top_k: int = 1
    many: bool = False
    show_input: bool = False


@dataclass(frozen=True)
class Body:
    """What a client sent, as it came.

    Attributes:
        content: JSON, or an image file.
        is_json: which of the two.
        top_k: of the query, for an image file.
    """

    content: bytes
    is_json: bool
    top_k: int = 1

    def question(self) -> Question:
        """What is asked.

        Raises:
            Problem: 400 not JSON or not base64, 422 without an image.
        """
        if self.is_json:
            return from_json(self.content)
        return Question([_not_empty(self.content)], self.top_k)


async def read_body(request: Request) -> Body:
    """Read a body of any of the accepted types.

    Raises:
        Problem: 415 another type, 422 a form without an image.
    """
    kind = media_type(request.headers.get("content-type", "").encode("latin-1"))
    if kind == "application/json":
        if "top_k" in request.query_params:
            raise Problem(422, "'top_k' stands in the body where that is JSON")
        return Body(await request.body(), is_json=True)
    if kind in IMAGE_TYPES:
        return Body(await request.body(), False, _top_k_of_query(request))
    if kind == "multipart/form-data":
        return Body(await form_file(request, "image"), False, _top_k_of_query(request))
    raise unsupported(kind, ACCEPTED)


def from_json(body: bytes) -> Question:
    """Read `{"image": base64, "top_k": 3}` or `{"images": [base64, ...]}`.

    Raises:
        Problem: 400 not JSON or not base64, 422 other fields or types.
    """
    if body.count(b",") + body.count(b"[") + body.count(b"{") > _MAX_VALUES:
        raise Problem(400, f"the body is not JSON that we read: more than {_MAX_VALUES} values")
    fields = parse_object(body)
    unknown = sorted(set(fields) - {"image", "images", "top_k", "show_input"})
    if unknown or ("image" in fields) == ("images" in fields):
        found = f"unknown field '{shown(unknown[0])}'" if unknown else "found both or neither"
        raise Problem(
            422,
            "the body must have 'image' or 'images', and may have 'top_k' and 'show_input': "
            + found,
            hint='{"image": "<base64 of a PNG, JPEG or WebP file>", "top_k": 3}',
        )
    top_k, show_input = _top_k(fields.get("top_k", 1)), fields.get("show_input", False)
    if not isinstance(show_input, bool):
        raise Problem(422, "'show_input' must be true or false")
    if "image" in fields:
        return Question([from_base64(fields["image"], "image")], top_k, show_input=show_input)
    images = fields["images"]
    if not isinstance(images, list) or not 0 < len(images) <= MAX_IMAGES:
        raise Problem(422, f"'images' must be a list of 1 to {MAX_IMAGES} images in base64")
    read = [_or_problem(text, f"images[{i}]") for i, text in enumerate(images)]
    return Question(read, top_k, many=True, show_input=show_input)


def parse_object(body: bytes) -> dict[str, Any]:
    """A JSON object; of two fields of one name nobody could say which is meant.

    Raises:
        Problem: 400 not JSON, or a field twice; 422 another type of value.
    """
    try:
        # Decoded here: `json` itself would guess UTF-16 and UTF-32 too.
        text = body.decode("utf-8")
        fields = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_each_once)
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


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        # Counted in one go: a look through all names for each of them would take minutes.
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"field '{shown(twice)}' is there twice")
    return fields
