"""Floor 10: the outermost layer: every answer has a request id, every failure a document.

In: any request. Out: the inner application's answer with `X-Request-ID`; where the
inner application raises instead, the problem document that says so. Whatever was
answered is counted, and noted if there is an access log.
"""

from __future__ import annotations

import itertools
import os
import re
import secrets
import time
from collections.abc import Collection
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mindtrace.application.access_log import AccessLog
from mindtrace.application.meters import Meters
from mindtrace.application.problems import MEDIA_TYPE, Problem, from_error, log
from mindtrace.errors import MindtraceError

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# Of this process alone; a number behind it tells its requests apart.
_prefix = ""
_numbers = itertools.count()
# The label of whatever has no route: a path of a client's own would be a series for ever.
OTHER = "other"


def _begin() -> None:
    """Workers are forked from one process, and each must give ids of its own."""
    global _prefix
    _prefix = secrets.token_hex(10)


_begin()
os.register_at_fork(after_in_child=_begin)


class Envelope:
    """Pure ASGI; stands outside of every other layer."""

    def __init__(
        self,
        app: ASGIApp,
        meters: Meters,
        access_log: AccessLog | None = None,
        paths: Collection[str] = (),
    ) -> None:
        """Wrap an application.

        Args:
            app: what is inside.
            meters: count what is answered.
            access_log: takes notes of it, if there is one.
            paths: those that are a route's template as they stand; a request that is
                refused before it finds its route is counted under them.
        """
        self.app = app
        self.meters = meters
        self.access_log = access_log
        self.paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens inside."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        reply = Reply(request_id(_given(scope)), send)
        scope.setdefault("state", {})["request_id"] = reply.request_id
        try:
            await self.app(scope, receive, reply.send)
        except ClientDisconnect:
            return  # nobody is left to be answered, and nothing of ours went wrong
        except Exception as error:
            if reply.status:
                raise
            problem = as_problem(error, reply.request_id)
            if scope["path"].startswith("/v2"):
                problem.members["error"] = problem.detail  # the one that its clients read
            await send_problem(problem, reply.request_id, reply.send)
        finally:
            reply.take_down(scope, self._label(scope), self.meters, self.access_log)

    def _label(self, scope: Scope) -> str:
        route = getattr(scope.get("route"), "path", None)
        if route is not None:
            return str(route)
        return scope["path"] if scope["path"] in self.paths else OTHER


class Reply:
    """An answer on its way out.

    Attributes:
        request_id: goes into its head.
        status: 0 until it has begun.
    """

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
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self.request_id.encode()),
            ]
        else:
            self._length += len(message.get("body", b""))
        await self._send(message)

    def take_down(
        self, scope: Scope, route: str, meters: Meters, access_log: AccessLog | None
    ) -> None:
        """Count it under its route's template, and note it; nothing if it never began."""
        if not self.status:
            return
        meters.answered(route, self.status, self._seconds)
        if access_log is not None:
            seconds = time.perf_counter() - self._start
            access_log.note(scope, self.request_id, self.status, seconds, self._length)


def as_problem(error: Exception, request_id: str) -> Problem:
    """The answer to an exception; one that nobody expected goes to the log whole."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, MindtraceError):
        return from_error(error)
    log.error("request %s failed", request_id, exc_info=error)
    return Problem(500, "the server failed; its log says more under this request_id")


async def send_problem(problem: Problem, request_id: str, send: Send) -> None:
    """Send a problem document as an answer of its own."""
    body = problem.body(request_id)
    headers = {
        "content-type": MEDIA_TYPE,
        "content-length": str(len(body)),
        **{name.lower(): value for name, value in problem.headers.items()},
    }
    start: dict[str, Any] = {
        "type": "http.response.start",
        "status": problem.status,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
    }
    await send(start)
    await send({"type": "http.response.body", "body": body})


def request_id(given: bytes | None) -> str:
    """The id that a client gave, or one of ours: 32 hexadecimal digits.

    A strange one is replaced: it would end in logs and headers.
    """
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return f"{_prefix}{next(_numbers):012x}"


def _given(scope: Scope) -> bytes | None:
    return next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
