"""HTTP/1.1 over a raw socket: bytes out, a reply in.

A client library costs as much as the server that is measured with it. This one speaks just
enough of the protocol, and takes note of the moment at which an answer was complete. The
benchmarks load servers with it, and the endurance tests harass them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit


@dataclass(slots=True)
class Reply:
    """What came back; `status` 0 where the connection broke instead.

    Attributes:
        status: of HTTP.
        headers: names in small letters; of a name sent twice, the last.
        body: whole.
        at: when the last byte was here, in seconds of `time.perf_counter`.
        error: what broke the connection.
    """

    status: int
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    at: float = 0.0
    error: str = ""


class Connection(asyncio.Protocol):
    """One connection of HTTP/1.1 that asks one question at a time.

    Attributes:
        open: whether it can be asked.
        local: our end of it.
    """

    def __init__(self) -> None:
        self.open = False
        self.local: tuple[str, int] = ("", 0)
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._reply: Reply | None = None
        self._left = -1  # bytes of the body that are still to come; -1: until the end
        self._chunked = False
        self._bodiless = False
        self._waiting: asyncio.Future[Reply] | None = None

    @classmethod
    async def to(cls, host: str, port: int) -> Connection:
        """Connect.

        Raises:
            OSError: nobody listens there.
        """
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, host, port)
        return connection

    def ask(self, request: bytes) -> asyncio.Future[Reply]:
        """Send the bytes of one request; its reply, which never raises."""
        assert self._waiting is None
        self._waiting = waiting = asyncio.get_running_loop().create_future()
        self._bodiless = request.startswith(b"HEAD ")
        if self.open and self._transport is not None:
            self._transport.write(request)
        else:
            self._finish(Reply(0, error="closed before the request"))
        return waiting

    def write(self, data: bytes) -> None:
        """Send more bytes, whatever they are."""
        assert self._transport is not None
        self._transport.write(data)

    def close(self) -> None:
        """Hang up, whatever is still on its way."""
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.open = cast(asyncio.Transport, transport), True
        self.local = transport.get_extra_info("sockname")[:2]

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        reply = self._reply
        if reply is not None and self._left < 0 and not self._chunked and exc is None:
            reply.body, self._reply = self._buffer, None
            self._finish(reply)  # a body without a length ends with its connection
        else:
            self._finish(Reply(0, error=repr(exc) if exc else "closed without an answer"))

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        while self._reply is None:
            head, separator, rest = self._buffer.partition(b"\r\n\r\n")
            if not separator:
                return
            self._buffer = rest
            self._begin(head)
        self._body()

    def _begin(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        status = int(first.split(b" ", 2)[1])
        if status < 200:  # 100 Continue: the answer is still to come
            return
        headers = {}
        for line in lines:
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        self._reply = Reply(status, headers)
        self._chunked = headers.get(b"transfer-encoding") == b"chunked"
        self._left = int(headers.get(b"content-length", -1))
        if self._bodiless or status in (204, 304):
            self._left, self._chunked = 0, False

    def _body(self) -> None:
        reply = self._reply
        assert reply is not None
        if self._chunked:
            found = _unchunked(self._buffer)
            if found is None:
                return
            reply.body, self._buffer = found
        elif self._left < 0 or len(self._buffer) < self._left:
            return
        else:
            reply.body, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
        self._reply = None
        if reply.headers.get(b"connection") == b"close":
            self.close()
        self._finish(reply)

    def _finish(self, reply: Reply) -> None:
        reply.at = time.perf_counter()
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)


def _unchunked(data: bytes) -> tuple[bytes, bytes] | None:
    """The body and what follows it; None while it is not complete."""
    body: list[bytes] = []
    while True:
        size, separator, data = data.partition(b"\r\n")
        if not separator:
            return None
        length = int(size.partition(b";")[0], 16)
        if len(data) < length + 2:
            return None
        if length == 0:
            return b"".join(body), data[2:]
        body.append(data[:length])
        data = data[length + 2 :]


def post(url: str, body: bytes, content_type: str = "application/json", **headers: str) -> bytes:
    """The bytes of a POST to `url`."""
    parts = urlsplit(url)
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = (
        f"POST {parts.path or '/'} HTTP/1.1\r\nhost: {parts.netloc}\r\n"
        f"content-type: {content_type}\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    )
    return head.encode("latin-1") + body
