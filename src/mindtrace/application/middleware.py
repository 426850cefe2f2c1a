"""What surrounds every request: id, problem documents, counting, access log, body limits."""

import itertools
import json
import logging
import logging.handlers
import queue
import re
import secrets
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mindtrace.application.metrics import OTHER, Metrics
from mindtrace.application.problems import REQUEST_ID, Problem, body_too_long, from_error
from mindtrace.application.security import Rules

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# Ids are the process's prefix and a number.
_PREFIX = secrets.token_hex(10)
_NUMBERS = itertools.count()
_MAX_WAITING = 20_000  # queued lines of the access log; more are dropped and counted
_MAX_PATH = 512  # characters of a path in the access log
SHORT_BODY = 256 * 1024  # always accepted; longer bodies share a budget
# Bytes of long bodies that a process holds at a time; enough for one of the longest.
LONG_BODIES = 256 * 1024 * 1024


class AccessLog(logging.handlers.QueueListener):
    """Writes a JSON line a request, in a thread; never queries, headers or bodies."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.handler = logging.StreamHandler(stream)
        self.handler.setFormatter(_JsonLine())
        super().__init__(self._waiting, self.handler)
        self._dropped = 0

    def stop(self) -> None:
        """Write the lines that wait, and stop."""
        self._report_dropped()
        super().stop()

    def note(self, scope: Scope, request_id: str, status: int, seconds: float, length: int) -> None:
        """Note an answer of `length` bytes that took `seconds`."""
        if self._waiting.qsize() >= _MAX_WAITING:
            self._dropped += 1
            return
        self._report_dropped()
        client = scope.get("client")
        fields = {
            "request_id": request_id,
            "method": scope["method"],
            "path": scope["path"][:_MAX_PATH],
            "status": status,
            "seconds": round(seconds, 6),
            "client": client[0] if client else None,
            "bytes": length,
        }
        self._waiting.put(logging.makeLogRecord({"fields": fields}))

    def _report_dropped(self) -> None:
        if self._dropped:
            self._waiting.put(logging.makeLogRecord({"fields": {"dropped": self._dropped}}))
            self._dropped = 0


class _JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return json.dumps({"at": at, **vars(record)["fields"]})


@dataclass(eq=False)
class RequestMiddleware:
    """The outermost layer: every answer has a request id, every failure a problem document."""

    app: ASGIApp
    metrics: Metrics
    access_log: AccessLog | None
    rules: Rules
    # Routes without parameters: a request refused before routing is counted under these.
    paths: Collection[str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
        head = scope["method"] == "HEAD"
        reply = Reply(request_id(given), send, head=head)
        scope.setdefault("state", {})["request_id"] = reply.request_id
        REQUEST_ID.set(reply.request_id)
        # HEAD is wherever GET is, and the same but for the body.
        routed = {**scope, "method": "GET"} if head else scope
        try:
            self.rules.check(scope)
            await self.app(routed, receive, reply.send)
        except ClientDisconnect as error:
            _free_frames(error)
        except Exception as error:
            if reply.status:
                raise
            problem = from_error(error)
            _free_frames(error)
            if scope["path"].startswith("/v2"):
                problem.members["error"] = problem.detail  # the one that its clients read
            await send_problem(problem, reply.request_id, reply.send)
        finally:
            route = getattr(routed.get("route"), "path", None)
            path = scope["path"] if scope["path"] in self.paths else OTHER
            reply.count(scope, route or path, self.metrics, self.access_log)


def _free_frames(error: BaseException | None) -> None:
    """Free what the frames of an error hold; cycles keep a body until a garbage collection."""
    while error is not None:
        error.__traceback__, error = None, error.__context__


class Reply:
    """An answer that is being sent; `status` is 0 until it has begun."""

    def __init__(self, request_id: str, send: Send, *, head: bool = False) -> None:
        self.request_id = request_id
        self.status = 0
        self._head, self._ended = head, False
        self._send = send
        self._start = time.perf_counter()
        self._seconds, self._length = 0.0, 0

    async def send(self, message: Message) -> None:
        """Send one message, with the request id among its headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._seconds = time.perf_counter() - self._start
            id_header = (b"x-request-id", self.request_id.encode())
            message["headers"] = [*message.get("headers", ()), id_header]
        elif self._ended:
            return
        elif self._head:
            # The end of a stream too: its server then hears that nobody listens.
            message, self._ended = {"type": "http.response.body"}, True
        else:
            self._length += len(message.get("body", b""))
        await self._send(message)

    def count(
        self, scope: Scope, route: str, metrics: Metrics, access_log: AccessLog | None
    ) -> None:
        """Count and log the answer under its route, if it has begun."""
        if not self.status:
            return
        metrics.answered(route, self.status, self._seconds)
        if access_log is not None:
            seconds = time.perf_counter() - self._start
            access_log.note(scope, self.request_id, self.status, seconds, self._length)


async def send_problem(problem: Problem, request_id: str, send: Send) -> None:
    """Send a problem document as an answer of its own."""
    body = problem.body(request_id)
    start: dict[str, Any] = {"type": "http.response.start", "status": problem.status}
    await send({**start, "headers": problem.http_headers(body)})
    await send({"type": "http.response.body", "body": body})


def request_id(given: bytes | None) -> str:
    """The id that the client gave, if it is safe to log; else 32 hexadecimal digits."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return f"{_PREFIX}{next(_NUMBERS):012x}"


@dataclass(eq=False)
class BodyLimit:
    """Refuses bodies longer than the route allows, and too many long bodies at a time."""

    app: ASGIApp
    default: int
    by_path: Mapping[str, int]
    held: int = 0  # bytes of long bodies of requests that are not answered yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.by_path.get(scope["path"], self.default)
        length = dict(scope["headers"]).get(b"content-length", b"")
        # The protocol refuses what is no number; Python does not convert thousands of digits.
        if length.isdigit() and (len(length) >= 20 or int(length) > limit):
            raise body_too_long(limit)
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            before, seen = seen, seen + len(message.get("body", b""))
            if seen > limit:
                raise body_too_long(limit)
            if seen > SHORT_BODY:
                self.held += seen - max(before, SHORT_BODY)
                if self.held > max(LONG_BODIES, self.default):
                    detail = "too many long bodies are on their way at the same time"
                    headers = {"Connection": "close", "Retry-After": "1"}
                    raise Problem(503, detail, headers=headers, kind="overloaded")
            return message

        try:
            await self.app(scope, counted, send)
        finally:
            self.held -= max(0, seen - SHORT_BODY)
