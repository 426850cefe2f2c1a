"""What surrounds every request: id, problem documents, counting, access log, body limits."""

from __future__ import annotations

import itertools
import json
import logging
import logging.handlers
import queue
import re
import secrets
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mindtrace.application.metrics import OTHER, Metrics
from mindtrace.application.problems import Problem, body_too_long, from_error, log
from mindtrace.errors import MindtraceError

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# Ids are the process's prefix and a number.
_PREFIX = secrets.token_hex(10)
_NUMBERS = itertools.count()
_MAX_WAITING = 20_000  # lines of the access log; more are counted, not kept
_MAX_PATH = 512  # of a line; a path may be as long as a head
SHORT_BODY = 256 * 1024  # always taken; longer ones share a budget
# Bytes of long bodies that a process holds at a time, at least one of the longest.
LONG_BODIES = 256 * 1024 * 1024


class AccessLog:
    """A JSON line for each request, written by a thread, so that a slow terminal delays nothing.

    No query, header or body is ever written.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.handler = logging.StreamHandler(stream)
        self.handler.setFormatter(_JsonLine())
        self._listener = logging.handlers.QueueListener(self._queue, self.handler)
        self._dropped = 0

    def start(self) -> None:
        """Begin to write."""
        self._listener.start()

    def stop(self) -> None:
        """Write what is left, and end."""
        self._report_dropped()
        self._listener.stop()

    def note(self, scope: Scope, request_id: str, status: int, seconds: float, length: int) -> None:
        """Note an answer of `length` bytes that took `seconds`."""
        if self._queue.qsize() >= _MAX_WAITING:
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
        self._queue.put(logging.makeLogRecord({"fields": fields}))

    def _report_dropped(self) -> None:
        if self._dropped:
            self._queue.put(logging.makeLogRecord({"fields": {"dropped": self._dropped}}))
            self._dropped = 0


class _JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return json.dumps({"at": at, **vars(record)["fields"]})


class RequestMiddleware:
    """The outermost layer: every answer has a request id, every failure a problem document."""

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        access_log: AccessLog | None = None,
        paths: Collection[str] = (),
    ) -> None:
        self.app = app
        self.metrics = metrics
        self.access_log = access_log
        # Routes without parameters: a request that is refused before routing is counted there.
        self.paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens inside."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
        reply = Reply(request_id(given), send)
        scope.setdefault("state", {})["request_id"] = reply.request_id
        try:
            await self.app(scope, receive, reply.send)
        except ClientDisconnect:
            return
        except Exception as error:
            if reply.status:
                raise
            problem = _as_problem(error, reply.request_id)
            if scope["path"].startswith("/v2"):
                problem.members["error"] = problem.detail  # the one that its clients read
            await send_problem(problem, reply.request_id, reply.send)
        finally:
            route = getattr(scope.get("route"), "path", None)
            path = scope["path"] if scope["path"] in self.paths else OTHER
            reply.count(scope, route or path, self.metrics, self.access_log)


class Reply:
    """An answer on its way out; `status` is 0 until it has begun."""

    def __init__(self, request_id: str, send: Send) -> None:
        self.request_id = request_id
        self.status = 0
        self._send = send
        self._start = time.perf_counter()
        self._seconds, self._length = 0.0, 0

    async def send(self, message: Message) -> None:
        """Pass one message on, with the request id in its head."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._seconds = time.perf_counter() - self._start
            id_header = (b"x-request-id", self.request_id.encode())
            message["headers"] = [*message.get("headers", ()), id_header]
        else:
            self._length += len(message.get("body", b""))
        await self._send(message)

    def count(
        self, scope: Scope, route: str, metrics: Metrics, access_log: AccessLog | None
    ) -> None:
        """Count it under its route, and note it; nothing if it never began."""
        if not self.status:
            return
        metrics.answered(route, self.status, self._seconds)
        if access_log is not None:
            seconds = time.perf_counter() - self._start
            access_log.note(scope, self.request_id, self.status, seconds, self._length)


def _as_problem(error: Exception, request_id: str) -> Problem:
    """The answer to an exception; an unexpected one goes to the log."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, MindtraceError):
        return from_error(error)
    log.error("request %s failed", request_id, exc_info=error)
    return Problem(500, "the server failed; its log says more under this request_id")


async def send_problem(problem: Problem, request_id: str, send: Send) -> None:
    """Send a problem document as an answer of its own."""
    body = problem.body(request_id)
    start: dict[str, Any] = {"type": "http.response.start", "status": problem.status}
    await send({**start, "headers": problem.http_headers(body)})
    await send({"type": "http.response.body", "body": body})


def request_id(given: bytes | None) -> str:
    """The id that a client gave, or 32 hexadecimal digits; a strange one would end in logs."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return f"{_PREFIX}{next(_NUMBERS):012x}"


class BodyLimit:
    """Refuses a body longer than its route allows, and long ones that are too many at a time.

    FastAPI's own limit answers with plain text, and knows no budget of the process.
    """

    def __init__(self, app: ASGIApp, default: int, by_path: Mapping[str, int]) -> None:
        self.app = app
        self.default = default
        self.by_path = by_path
        self.held = 0  # bytes of long bodies of requests that are not answered yet
        self._budget = max(LONG_BODIES, default)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on; raise a `Problem` once its body is too long."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.by_path.get(scope["path"], self.default)
        for name, value in scope["headers"]:
            # What is no number is refused by the protocol.
            if name == b"content-length" and value.isdigit() and _exceeds(value, limit):
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
                if self.held > self._budget:
                    detail = "too many long bodies are on their way at the same time"
                    headers = {"Connection": "close", "Retry-After": "1"}
                    raise Problem(503, detail, headers=headers, kind="overloaded")
            return message

        try:
            await self.app(scope, counted, send)
        finally:
            self.held -= max(0, seen - SHORT_BODY)


def _exceeds(digits: bytes, limit: int) -> bool:
    """Python refuses to convert thousands of digits."""
    return len(digits) >= 20 or int(digits) > limit
