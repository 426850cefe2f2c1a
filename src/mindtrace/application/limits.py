"""Floor 10: how long a body may be.

In: a request. Out: the same, with a `Problem` in the place of a body that is longer
than its route allows, as soon as that shows. Deadlines and the limits on headers and
connections belong into the protocol below and have no place here.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mindtrace.application.problems import Problem


class BodyLimit:
    """Pure ASGI: counts what arrives, whether the client said its length or not."""

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
            seen += len(message.get("body", b""))
            if seen > limit:
                raise too_long(limit)
            return message

        await self.app(scope, counted, send)


def _number(value: bytes) -> int:
    """The length that a client announces; one that is no number is left to the protocol."""
    if not value.isdigit():
        return 0
    return int(value) if len(value) < 20 else 1 << 63


def too_long(limit: int) -> Problem:
    """The answer to a body of more than `limit` bytes."""
    return Problem(
        413,
        f"the body is longer than {limit:,} bytes",
        # What is still on its way is not read; the connection cannot be used again.
        headers={"Connection": "close"},
    )
