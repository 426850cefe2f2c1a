"""Floor 10: how long a body may be.

In: a request. Out: the same, with a `Problem` in the place of a body that is longer
than its route allows, as soon as that shows; or of one more long body than memory is set
aside for. Deadlines and the limits on headers and
connections belong into the protocol below and have no place here.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mindtrace.application.problems import Problem

# A body up to here is always taken; what is beyond comes out of what all share.
SHORT = 256 * 1024
# Bytes of long bodies that a process holds at a time, at least one of the longest.
TOGETHER = 256 * 1024 * 1024


class BodyLimit:
    """Pure ASGI: counts what arrives, whether the client said its length or not.

    Attributes:
        held: bytes of long bodies, of the requests that are not answered yet.
    """

    def __init__(self, app: ASGIApp, default: int, by_path: Mapping[str, int]) -> None:
        """Set the limits.

        Args:
            app: what is inside.
            default: bytes.
            by_path: bytes, for the paths that have a limit of their own.
        """
        self.app = app
        self.default = default
        self.by_path = by_path
        self.held = 0
        self._together = max(TOGETHER, default)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on; raise a `Problem` once its body is too long."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.by_path.get(scope["path"], self.default)
        for name, value in scope["headers"]:
            if name == b"content-length" and _number(value) > limit:
                raise too_long(limit)
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            before, seen = seen, seen + len(message.get("body", b""))
            if seen > limit:
                raise too_long(limit)
            if seen > SHORT:
                self.held += seen - max(before, SHORT)
                if self.held > self._together:
                    raise _too_much_at_once()
            return message

        try:
            await self.app(scope, counted, send)
        finally:
            self.held -= max(0, seen - SHORT)


def _number(value: bytes) -> int:
    """The length that a client announces; one that is no number is left to the protocol."""
    if not value.isdigit():
        return 0
    return int(value) if len(value) < 20 else 1 << 63


def _too_much_at_once() -> Problem:
    return Problem(
        503,
        "too many long bodies are on their way at the same time",
        headers={"Connection": "close", "Retry-After": "1"},
        kind="overloaded",
    )


def too_long(limit: int) -> Problem:
    """The answer to a body of more than `limit` bytes."""
    return Problem(
        413,
        f"the body is longer than {limit:,} bytes",
        # What is still on its way is not read; the connection cannot be used again.
        headers={"Connection": "close"},
    )
