"""Floor 10: the short way of the usual question, in front of FastAPI.

In: `POST /inference` with a short JSON body of one image, asked without any header that
would need a thought, of a model that is done sooner than a thread would be woken. Out:
the answer that the long way would have given, for a third of its cost. Everything else,
and whatever goes wrong, takes the long way from its beginning: only there is it decided
what is refused, and how.
"""

from __future__ import annotations

import binascii
import re
import time
from collections.abc import Sequence
from typing import Any

import orjson
from starlette.types import Message, Receive, Scope, Send

from mindtrace.application.access_log import AccessLog
from mindtrace.application.admission import Admission, crowded
from mindtrace.application.envelope import Reply, request_id, send_problem
from mindtrace.application.guard import Head, Rule
from mindtrace.application.inference import SMALL_BODY, SMALL_PIXELS, is_light
from mindtrace.application.meters import Meters
from mindtrace.application.problems import Problem
from mindtrace.application.slot import ModelSlot
from mindtrace.application.whole import Writer
from mindtrace.errors import ImageError
from mindtrace.service.predict import LoadedModel

ROUTE = "/inference"
JSON = b"application/json"
# Headers that change nothing of the answer, or that are looked at here.
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
# Heads that passed every rule; forgotten all at once when they are too many.
_REMEMBERED = 256


class Front:
    """Answers what it can, and counts it."""

    def __init__(
        self,
        slot: ModelSlot,
        rules: Sequence[Rule],
        admission: Admission,
        meters: Meters,
        *,
        access_log: AccessLog | None = None,
        max_body: int = SMALL_BODY,
        max_pixels: int = SMALL_PIXELS,
    ) -> None:
        """Put a short way in front of the long one.

        Args:
            slot: holds the model that answers.
            rules: of the guard; a head that passes them passes there too.
            admission: of the long way; where it is full nothing is let through to it.
            meters: count the answers.
            access_log: takes notes of them, if there is one.
            max_body: bytes that the long way would take.
            max_pixels: of an image that the long way would take.
        """
        self._slot = slot
        self._rules = rules
        self._admission = admission
        self._meters = meters
        self._access_log = access_log
        self._max_body = min(max_body, SMALL_BODY)
        self._max_pixels = min(max_pixels, SMALL_PIXELS)
        self._writer = Writer()
        self._passed: set[tuple[Any, ...]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Receive | None:
        """Answer a request, or say what the long way is to receive it from."""
        start = time.perf_counter()
        model = self._slot.model
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if model is None or not self._is_plain(scope, headers):
            return receive
        if not is_light(model):
            return await self._turn_away(scope, headers, receive, send)
        length = headers.get(b"content-length", b"")
        if headers.get(b"content-type") != JSON or not _is_number(length, self._max_body):
            return receive
        message = await receive()
        if message["type"] != "http.request" or message.get("more_body"):
            return _again(message, receive)
        given = request_id(headers.get(b"x-request-id"))
        begun = time.perf_counter()
        try:
            answer = _answer(model, message["body"], given, self._max_pixels)
        except Exception:  # noqa: BLE001 - whatever it is, the long way meets it too and says so
            answer = None
        if answer is None:
            return _again(message, receive)
        class_name, content = answer
        end = time.perf_counter()
        self._meters.predicted((class_name,), end - begun)
        self._meters.answered(ROUTE, 200, end - start)
        if self._access_log is not None:
            self._access_log.note(scope, given, 200, end - start, len(content))
        await self._writer.write(send, given.encode(), content)
        return None

    def _is_plain(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        """Whether the guard would let a request through, and nothing in it is unusual."""
        if scope["method"] != "POST" or scope.get("query_string"):
            return False
        if not headers.keys() <= _COMMON or len(headers) != len(scope["headers"]):
            return False
        # All that the rules look at, of such a request.
        asked = (
            *(headers.get(b"host"), headers.get(b"authorization"), headers.get(b"content-type")),
            *(tuple(scope.get("server") or ()), scope["scheme"]),
        )
        return asked in self._passed or self._passes(scope, asked)

    def _passes(self, scope: Scope, asked: tuple[Any, ...]) -> bool:
        try:
            head = Head.of(scope)
            for rule in self._rules:
                rule(head)
        except Problem:
            return False
        if len(self._passed) >= _REMEMBERED:
            self._passed.clear()
        self._passed.add(asked)
        return True

    async def _turn_away(
        self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send
    ) -> Receive | None:
        """Where a model takes its time and too many wait: say so, at the least cost."""
        if not self._admission.full:
            return receive
        reply = Reply(request_id(headers.get(b"x-request-id")), send)
        await send_problem(crowded(), reply.request_id, reply.send)
        reply.take_down(scope, ROUTE, self._meters, self._access_log)
        return None


def answer_bytes(model: LoadedModel, body: bytes, request_id: str) -> bytes | None:
    """What the short way answers to a body; None where it would leave it to the long way."""
    if len(body) > SMALL_BODY or not is_light(model):
        return None
    try:
        answer = _answer(model, body, request_id, SMALL_PIXELS)
    except (ImageError, ValueError):
        return None
    return None if answer is None else answer[1]


def _answer(
    model: LoadedModel, body: bytes, request_id: str, max_pixels: int
) -> tuple[str, bytes] | None:
    """The class and the body of the answer; None if the question is not of the usual form.

    Raises:
        ImageError: not an image, damaged, too large.
        ValueError: not base64.
    """
    found = _BODY.fullmatch(body)
    if found is None:
        return None
    image = binascii.a2b_base64(found[1], strict_mode=True)
    predictor = model.predictor
    values = predictor.run_one(predictor.decode(image, max_pixels)).tolist()
    names = predictor.model_config.class_names
    order = [values.index(max(values))]
    if found[2] is not None:
        order = sorted(range(len(values)), key=values.__getitem__, reverse=True)[: int(found[2])]
    best = order[0]
    fields = {
        "label": best,
        "class_name": names[best],
        "confidence": values[best],
        "probabilities": values,
        "top_k": [
            {"label": label, "class_name": names[label], "confidence": values[label]}
            for label in order
        ],
        "model_name": model.model_name,
        "version": model.version,
        "request_id": request_id,
    }
    return names[best], orjson.dumps(fields)


def _is_number(text: bytes, limit: int) -> bool:
    return text.isdigit() and len(text) < 10 and int(text) <= limit


def _again(message: Message, receive: Receive) -> Receive:
    """Receives `message` once more, and then what follows it."""
    kept = [message]

    async def receive_again() -> Message:
        return kept.pop() if kept else await receive()

    return receive_again
