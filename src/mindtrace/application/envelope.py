"""Floor 10: the outermost layer: every answer has a request id, every failure a document.

In: any request. Out: the inner application's answer with `X-Request-ID`; where the
inner application raises instead, the problem document that says so.
"""

from __future__ import annotations

import re
import secrets
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mindtrace.application.problems import MEDIA_TYPE, Problem, from_error, log
from mindtrace.errors import MindtraceError

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class Envelope:
    """Pure ASGI; stands outside of every other layer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens inside."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                ]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            return  # nobody is left to be answered, and nothing of ours went wrong
        except Exception as error:
            if started:
                raise
            await send_problem(as_problem(error, request_id), request_id, send_with_id)


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


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            # A strange one is replaced: it would end in logs and headers.
            return value.decode() if _REQUEST_ID.fullmatch(value) else secrets.token_hex(16)
    return secrets.token_hex(16)
