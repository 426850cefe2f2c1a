"""Floor 10: an answer in one piece.

In: the `send` of a request, and a whole answer. Out: the same answer that two ASGI
messages would have given. uvicorn hands every message to the system at once, and for a
small answer the second call costs as much as running a small network: where the server
below is uvicorn, head and body are written together.
"""

from __future__ import annotations

from starlette.types import Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

_JSON_LINE = b"content-type: application/json\r\ncontent-length: %d\r\nx-request-id: %s\r\n"


class Writer:
    """Writes answers of JSON with status 200."""

    def __init__(self) -> None:
        # What uvicorn puts first into every head; it makes a new list each second.
        self._defaults: list[tuple[bytes, bytes]] | None = None
        self._start = b""

    async def write(self, send: Send, request_id: bytes, content: bytes) -> None:
        """Answer a request; `request_id` is one that may stand in a head."""
        cycle = getattr(send, "__self__", None)
        if type(cycle) is RequestResponseCycle and _may_write(cycle):
            self._write_at_once(cycle, request_id, content)
            return
        head = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(content)),
            (b"x-request-id", request_id),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": content})

    def _write_at_once(
        self, cycle: RequestResponseCycle, request_id: bytes, content: bytes
    ) -> None:
        """What `RequestResponseCycle.send` does with the two messages."""
        if cycle.default_headers is not self._defaults:
            self._defaults = cycle.default_headers
            lines = [b"%s: %s\r\n" % pair for pair in self._defaults]
            self._start = b"".join((b"HTTP/1.1 200 OK\r\n", *lines))
        end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
        head = _JSON_LINE % (len(content), request_id)
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        cycle.transport.write(b"".join((self._start, head, end, content)))
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()


def _may_write(cycle: RequestResponseCycle) -> bool:
    """Whether nothing is in the way that `send` would wait for, or be silent about."""
    return not (cycle.flow.write_paused or cycle.disconnected or cycle.response_started)
