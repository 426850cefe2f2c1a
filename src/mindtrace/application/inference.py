"""`POST /inference`: the fast path of the usual request, and the full path of every other one."""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import orjson
from fastapi import APIRouter, Query, Request, Response
from numpy.typing import NDArray
from starlette.datastructures import State
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from mindtrace.application import bodies, schemas
from mindtrace.application.admission import Admission, Result, Wanted, always, overloaded
from mindtrace.application.metrics import Metrics
from mindtrace.application.middleware import AccessLog, Reply, request_id, send_problem
from mindtrace.application.problems import Problem
from mindtrace.application.security import Rules
from mindtrace.application.served_model import ServedModel
from mindtrace.config.sections import ServeSettings
from mindtrace.errors import ImageError
from mindtrace.preprocess import DAMAGE, encode_png, opened
from mindtrace.service.predict import LoadedModel, compose

Pixels = NDArray[np.uint8]  # of one image, as the network sees it
ROUTE = "/inference"
# Up to these limits a request is answered on the event loop, faster than a thread would wake up.
SMALL_BODY = 16 * 1024
SMALL_PIXELS = 256 * 256
LIGHT_SECONDS = 0.001
# Images that run together: enough to be quick, few enough for the memory of a large network.
BATCH = 32
# Values in JSON, the images among them: base64 has neither commas nor brackets, so that more
# of them can be counted before parsing.
_MAX_VALUES = 2 * schemas.MAX_IMAGES
_TOP_K = (
    "how many of the likeliest classes to list, 1 if left out; where the body is JSON it is there"
)

router = APIRouter(tags=["inference"])


@router.post(
    ROUTE,
    summary="Classify images",
    response_model=schemas.Answer | schemas.Answers,
    responses=schemas.problems(413, 415, 503, 504),
    openapi_extra={"requestBody": schemas.INFERENCE_BODY},
)
async def inference(
    request: Request,
    # Without a default: a generated client would send it beside another one in the body.
    top_k: Annotated[int | None, Query(ge=1, description=_TOP_K)] = None,
) -> Response:
    """Classify one image, or several with one bad image hurting only itself."""
    state = request.app.state
    images = [f"image/{name}" for name in state.settings.serve.formats]
    kind = bodies.require_type(request, ("application/json", *images, "multipart/form-data"))
    model: LoadedModel = state.served.require_model()
    if not is_light(model):
        state.admission.require_free_place()
    is_form = kind == "multipart/form-data"
    content = await (bodies.form_file(request, "image") if is_form else request.body())
    is_json = kind == "application/json"

    def run(asked: InferenceRequest, wanted: Wanted) -> tuple[dict[str, Any], list[str]]:
        fields = answer(model, asked, state.settings.serve.max_pixels, wanted)
        rows = fields.get("items", [fields])
        return fields, [row["class_name"] for row in rows if "class_name" in row]

    fields = await classify(state, model, content, lambda: _parse(content, is_json, top_k), run)
    fields["request_id"] = request.state.request_id
    return Response(orjson.dumps(fields), media_type="application/json")


async def classify(
    state: State,
    model: LoadedModel,
    body: bytes,
    parse: Callable[[], Any],
    run: Callable[[Any, Wanted], tuple[Result, list[str]]],
) -> Result:
    """Parse a body and run it, on the event loop if both are quick; count the classes found."""
    asked = parse() if len(body) <= SMALL_BODY else None

    def work(wanted: Wanted) -> tuple[Result, list[str], float]:
        start = time.perf_counter()
        result, class_names = run(asked or parse(), wanted)
        return result, class_names, time.perf_counter() - start

    if asked is not None and is_light(model) and has_few_pixels(model, asked.images):
        result, class_names, seconds = work(always)
    else:
        result, class_names, seconds = await state.admission.run(work)
    state.metrics.predicted(class_names, seconds)
    return result


def is_light(model: LoadedModel) -> bool:
    """Whether the network takes less time than it takes to wake a thread."""
    return model.predictor.seconds <= LIGHT_SECONDS


def has_few_pixels(model: LoadedModel, images: Sequence[bytes | Problem]) -> bool:
    """Whether all images together are quickly decoded, as their headers say."""
    pixels = 0
    for image in images:
        # A file that is no image is refused as quickly.
        with contextlib.suppress(*DAMAGE):
            if isinstance(image, bytes):
                with opened(io.BytesIO(image), formats=model.predictor.formats) as found:
                    pixels += found.width * found.height
    return pixels <= SMALL_PIXELS


@dataclass(frozen=True)
class InferenceRequest:
    """What a client asks; an image is a `Problem` where one of several is not base64."""

    images: Sequence[bytes | Problem]
    top_k: int = 1
    many: bool = False
    show_input: bool = False

    @classmethod
    def from_json(cls, body: bytes) -> InferenceRequest:
        """Parse `{"image": base64, "top_k": 3}` or `{"images": [base64, ...]}`."""
        if body.count(b",") + body.count(b"[") + body.count(b"{") > _MAX_VALUES:
            detail = f"the body is not JSON that we read: more than {_MAX_VALUES} values"
            raise Problem(400, detail)
        fields = bodies.parse_object(body)
        shape: type[schemas.OneImage | schemas.ManyImages] = (
            schemas.ManyImages if "images" in fields else schemas.OneImage
        )
        asked = bodies.validated(shape, fields)
        if isinstance(asked, schemas.OneImage):
            image = bodies.from_base64(asked.image, "image")
            return cls([image], asked.top_k, show_input=asked.show_input)
        images: list[bytes | Problem] = []
        for place, text in enumerate(asked.images):
            try:
                images.append(bodies.from_base64(text, f"images[{place}]"))
            except Problem as problem:
                images.append(problem)
        return cls(images, asked.top_k, many=True, show_input=asked.show_input)


def _parse(content: bytes, is_json: bool, top_k: int | None) -> InferenceRequest:
    if not is_json:
        return InferenceRequest([bodies.not_empty(content)], top_k or 1)
    asked = InferenceRequest.from_json(content)
    if top_k not in (None, asked.top_k):
        detail = f"'top_k' is {top_k} in the query and {asked.top_k} in the body"
        raise Problem(422, detail, hint="it stands in the body where that is JSON")
    return asked


def answer(
    model: LoadedModel, asked: InferenceRequest, max_pixels: int, wanted: Wanted
) -> dict[str, Any]:
    """The fields of the answer: of one image, or `items` with one entry per image."""
    items: list[dict[str, Any]] = []
    for found in predict(model, asked.images, max_pixels, wanted):
        if not isinstance(found, Exception):
            items.append(_shown(model, asked, *found))
        elif asked.many:
            items.append({"error": {"type": "ImageError", "message": str(found)}})
        else:
            raise found
    return {"items": items} if asked.many else items[0]


def predict(
    model: LoadedModel, images: Sequence[bytes | Problem], max_pixels: int, wanted: Wanted
) -> Iterator[tuple[Pixels, NDArray[np.float32]] | ImageError | Problem]:
    """Of each image its pixels and probabilities, or why it has none; a few images at a time."""

    def decoded(image: bytes | Problem) -> Pixels | ImageError | Problem:
        require_wanted(wanted)
        if isinstance(image, Problem):
            return image
        try:
            return model.predictor.decode(image, max_pixels)
        except ImageError as error:
            return error

    for start in range(0, len(images), BATCH):
        batch = [decoded(image) for image in images[start : start + BATCH]]
        good = [one for one in batch if not isinstance(one, Exception)]
        rows = iter(model.predictor.run(np.stack(good)) if good else ())
        yield from (one if isinstance(one, Exception) else (one, next(rows)) for one in batch)


def require_wanted(wanted: Wanted) -> None:
    """504 if the client no longer waits for the answer."""
    if not wanted():
        raise Problem(504, "nobody waits for the answer any longer")


def _shown(
    model: LoadedModel, asked: InferenceRequest, pixels: Pixels, row: NDArray[np.float32]
) -> dict[str, Any]:
    fields = compose(model, row.tolist(), asked.top_k)
    if asked.show_input:
        fields["input"] = base64.b64encode(encode_png(pixels)).decode()
    return fields


# Headers that do not change the answer, or that the fast path evaluates.
_COMMON = frozenset(
    {
        *(b"host", b"content-type", b"content-length", b"authorization", b"x-request-id"),
        *(b"accept", b"accept-encoding", b"accept-language", b"user-agent"),
        *(b"connection", b"keep-alive", b"cache-control", b"pragma", b"via", b"forwarded"),
        *(b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip"),
        *(b"traceparent", b"tracestate"),
    }
)
_BODY = re.compile(
    rb'[ \t\n\r]*\{[ \t\n\r]*"image"[ \t\n\r]*:[ \t\n\r]*"([A-Za-z0-9+/=]+)"[ \t\n\r]*'
    rb'(?:,[ \t\n\r]*"top_k"[ \t\n\r]*:[ \t\n\r]*([1-9][0-9]{0,8})[ \t\n\r]*)?\}[ \t\n\r]*'
)
_JSON_HEADERS = b"content-type: application/json\r\ncontent-length: %d\r\nx-request-id: %s\r\n"
_REMEMBERED = 256  # heads that passed every rule; more than that empty the set


def answer_quickly(
    model: LoadedModel, body: bytes, request_id: str, max_pixels: int
) -> tuple[str, bytes] | None:
    """The class and the JSON of the answer; None if the body is not of the usual form."""
    found = _BODY.fullmatch(body)
    if found is None:
        return None
    image = binascii.a2b_base64(found[1], strict_mode=True)
    row = model.predictor.run(model.predictor.decode(image, max_pixels)[None])[0]
    fields = compose(model, row.tolist(), 1 if found[2] is None else int(found[2]))
    fields["request_id"] = request_id
    return fields["class_name"], orjson.dumps(fields)


def answer_json(model: LoadedModel, body: bytes, max_pixels: int) -> bytes:
    """The answer that a client would get on either path, without a server."""
    if len(body) <= SMALL_BODY and is_light(model):
        with contextlib.suppress(ImageError, ValueError):
            found = answer_quickly(model, body, "golden", SMALL_PIXELS)
            if found is not None:
                return found[1]
    return orjson.dumps(answer(model, InferenceRequest.from_json(body), max_pixels, always))


class FastPath:
    """Answers the usual request in front of FastAPI; every other one takes the full path."""

    # Usual: a short JSON body with one image, common headers, a model quicker than waking a thread.

    def __init__(self, state: State, rules: Rules) -> None:
        self._served: ServedModel = state.served
        self._admission: Admission = state.admission
        self._metrics: Metrics = state.metrics
        self._access_log: AccessLog | None = state.access_log
        self._rules = rules
        limits: ServeSettings = state.settings.serve
        self._max_body = min(limits.max_body, SMALL_BODY)
        self._max_pixels = min(limits.max_pixels, SMALL_PIXELS)
        self._passed: set[tuple[Any, ...]] = set()
        # uvicorn begins every head with these, and makes a new list each second.
        self._default_headers: list[tuple[bytes, bytes]] | None = None
        self._start = b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Receive | None:
        """Answer a request, or return the `receive` with which the full path takes it."""
        start = time.perf_counter()
        model = self._served.model
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if model is None or not self._is_plain(scope, headers):
            return receive
        if not is_light(model):
            if not self._admission.full:
                return receive
            # Too many requests wait for a slow model: refuse at the least cost.
            reply = Reply(request_id(headers.get(b"x-request-id")), send)
            await send_problem(overloaded(), reply.request_id, reply.send)
            reply.count(scope, ROUTE, self._metrics, self._access_log)
            return None
        cycle = getattr(send, "__self__", None)
        # Another server is given messages; a client that reads no answers is made to wait.
        if type(cycle) is not RequestResponseCycle or cycle.flow.write_paused:
            return receive
        if headers.get(b"content-type") != b"application/json":
            return receive
        message = await receive()
        if message.get("more_body") or len(message.get("body", b"")) > self._max_body:
            return _again(message, receive)
        given = request_id(headers.get(b"x-request-id"))
        begun = time.perf_counter()
        try:
            found = answer_quickly(model, message["body"], given, self._max_pixels)
        except Exception:  # noqa: BLE001 - the full path fails likewise and reports it
            found = None
        if found is None:
            return _again(message, receive)
        class_name, content = found
        end = time.perf_counter()
        self._metrics.predicted((class_name,), end - begun)
        self._metrics.answered(ROUTE, 200, end - start)
        if self._access_log is not None:
            self._access_log.note(scope, given, 200, end - start, len(content))
        if not cycle.disconnected:
            self._send(cycle, given.encode(), content)
        return None

    def _is_plain(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        """Whether every rule would let a request through, and nothing in it is unusual."""
        if scope["method"] != "POST" or scope.get("query_string"):
            return False
        if not headers.keys() <= _COMMON or len(headers) != len(scope["headers"]):
            return False
        # All that the rules read of such a request.
        looked_at = (
            *(headers.get(b"host"), headers.get(b"authorization"), headers.get(b"content-type")),
            *(tuple(scope.get("server") or ()), scope["scheme"]),
        )
        if looked_at in self._passed:
            return True
        try:
            self._rules.check(scope)
        except Problem:
            return False
        if len(self._passed) >= _REMEMBERED:
            self._passed.clear()
        self._passed.add(looked_at)
        return True

    def _send(self, cycle: RequestResponseCycle, request_id: bytes, content: bytes) -> None:
        """Answer with head and body in one piece: a second write costs as much as a network."""
        if cycle.default_headers is not self._default_headers:
            self._default_headers = cycle.default_headers
            lines = [b"%s: %s\r\n" % pair for pair in self._default_headers]
            self._start = b"".join((b"HTTP/1.1 200 OK\r\n", *lines))
        end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
        headers = _JSON_HEADERS % (len(content), request_id)
        write_response(cycle, (self._start, headers, end, content))


def write_response(cycle: RequestResponseCycle, parts: Sequence[bytes]) -> None:
    """What `RequestResponseCycle.send` does with two messages, in one write."""
    cycle.response_started = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"".join(parts))
    cycle.response_complete = True
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()


def _again(message: Message, receive: Receive) -> Receive:
    """Receives `message` once more, and then what follows it."""
    kept = [message]

    async def receive_again() -> Message:
        return kept.pop() if kept else await receive()

    return receive_again
