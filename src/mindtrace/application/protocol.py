"""uvicorn's HTTP/1.1 protocol with deadlines, size limits and refusals as problem documents."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import httptools
from starlette.datastructures import State
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from mindtrace.application.metrics import OTHER, Metrics
from mindtrace.application.problems import Problem, log
from mindtrace.application.served_model import ServedModel
from mindtrace.config.sections import ServeSettings

# A connection waits for: any byte, the rest of a head or of a body, its end.
IDLE, HEAD, BODY, CLOSING = range(4)
MAX_PIPELINED = 64  # requests that wait for earlier answers of their connection
MAX_LINGERING = 256  # refused connections that stay open until the client has read the refusal
_LINGER = 1.0  # seconds
_REAP_EVERY = 0.5  # seconds
# Raised by uvicorn and here for a bad head; a missing path is an AttributeError.
_EXPECTED = (Problem, httptools.HttpParserError, UnicodeError, AttributeError)
_CLOSE = {"Connection": "close"}
_H2C = b"\r\nUpgrade: h2c"


class ConnectionReaper:
    """Closes connections that exceed their deadline: one timer for all of a process."""

    def __init__(self, state: State) -> None:
        self.limits: ServeSettings = state.settings.serve
        self.served: ServedModel = state.served
        self.lingering = 0
        self.metrics: Metrics = state.metrics
        self.connections: set[Protocol] = set()
        self._maximum = -(-self.limits.max_connections // self.limits.workers)
        shortest = min(self.limits.header_timeout, self.limits.body_timeout)
        self._every = min(_REAP_EVERY, shortest / 4)
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: Protocol) -> bool:
        """Watch a connection; False if there are too many."""
        self.connections.add(connection)
        if self._timer is None:
            self._timer = connection.loop.call_later(self._every, self._reap, connection.loop)
        return bool(len(self.connections) - self.lingering <= self._maximum)

    def _reap(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        try:
            for connection in tuple(self.connections):
                connection.check_deadlines(loop.time())
        finally:
            if self.connections:
                self._timer = loop.call_later(self._every, self._reap, loop)


class Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, reaper: ConnectionReaper, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reaper, self.limits = reaper, reaper.limits
        self.stage = IDLE
        # On the loop's clock; None until the reaper has seen the stage.
        self.deadline: float | None = None
        self._unread_deadline: float | None = None
        self._running: RequestResponseCycle | None = None
        self._refusal = b""  # sent after the answers before it
        self._lingers = False
        self._piece = 0  # bytes of the piece being parsed
        self._unparsed = 0  # bytes since a body or the end of a head: trailers, chunk extensions

    @property
    def busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if not self.reaper.add(self):
            detail, headers = "there are too many connections", {**_CLOSE, "Retry-After": "1"}
            self.refuse(Problem(503, detail, headers=headers, kind="too-many-connections"))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.reaper.connections.discard(self)
        self.reaper.lingering -= self._lingers
        # uvicorn notifies the newest request only.
        for cycle in (self._running, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                _abandon(cycle)
        self._running = None
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        if self.stage == IDLE:
            # Empty lines before a request count as its head, so that they are limited too.
            self.stage, self.deadline, self._unparsed = HEAD, None, 0
            if _H2C in data:
                # Java's client offers HTTP/2 by default, and the parser would skip its body.
                # RFC 9110, 7.8 lets a server ignore Upgrade.
                head, end, rest = data.partition(b"\r\n\r\n")
                data = head.replace(_H2C, b"") + end + rest
        elif self.stage == CLOSING:
            return
        self._piece = len(data)
        self._unparsed += self._piece
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            cause = error.__context__  # what a callback has raised
            if cause is not None and not isinstance(cause, _EXPECTED):
                log.error("a request could not be read", exc_info=cause)
            detail = "this is not HTTP/1.1 as in RFC 9112"
            malformed = Problem(400, detail, headers=_CLOSE, kind="malformed")
            self.refuse(cause if isinstance(cause, Problem) else malformed)
        else:
            if self._unparsed > self.limits.max_header:
                self.refuse(self._head_too_long())

    def on_message_begin(self) -> None:
        if self.stage != HEAD:
            if len(self.pipeline) >= MAX_PIPELINED:
                detail = f"more than {MAX_PIPELINED} requests were sent without waiting for answers"
                raise Problem(400, detail, headers=_CLOSE, kind="pipeline")
            self.stage, self.deadline, self._unparsed = HEAD, None, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if max(self._unparsed, self._piece) > self.limits.max_header:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > self.limits.max_header:
                raise self._head_too_long()
        if self.parser.should_upgrade():
            detail = "this server speaks HTTP/1.1 only: no WebSocket or CONNECT"
            hint = "send the request without Upgrade"
            raise Problem(400, detail, hint=hint, headers=_CLOSE, kind="upgrade")
        super().on_headers_complete()
        # Trailers would be added to the headers of this request, which are checked already.
        self.headers = []
        self.stage, self.deadline = BODY, None
        self._unparsed = 0
        if self.reaper.served.draining:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.stage, self.deadline = IDLE, None
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        # Without uvicorn's timer for each request: the reaper closes idle connections.
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal:
            self._send_refusal()
        elif self.stage == BODY and self.expect_100_continue:
            self.transport.close()  # the client may or may not send the body now

    def refuse(self, problem: Problem) -> None:
        """Answer with a problem document after the answers before it, and read no more."""
        if self.transport.is_closing():
            return
        broken = self.cycle if self.stage == BODY else None
        self.stage, self.deadline = CLOSING, None
        # Counted here, since the application does not see this request.
        self.reaper.metrics.answered(OTHER, problem.status, 0.0)
        self._refusal = _as_bytes(problem, self.server_state.default_headers)
        if broken is not None and broken is self._running:
            _abandon(broken)
            if broken.response_started:
                self.transport.close()
                return
        elif broken is not None:
            self.pipeline.popleft()
        if self._running is None or self._running.response_complete or self._running is broken:
            self._send_refusal()

    def _send_refusal(self) -> None:
        self.transport.write(self._refusal)
        # Closing with unread bytes sends a reset, which could overtake the refusal.
        self._lingers = self.reaper.lingering < MAX_LINGERING
        self.reaper.lingering += self._lingers
        if self._lingers:
            self.flow.resume_reading()
            self.transport.write_eof()
        else:
            self.transport.close()

    def _head_too_long(self) -> Problem:
        detail = f"the head is longer than {self.limits.max_header:,} bytes"
        return Problem(431, detail, headers=_CLOSE)

    def check_deadlines(self, now: float) -> None:
        if self.transport.get_write_buffer_size() == 0:
            self._unread_deadline = None
        elif self._unread_deadline is None:
            self._unread_deadline = now + self.limits.body_timeout
        elif now >= self._unread_deadline:
            self.transport.abort()  # close() would wait for the client to read the rest
            return
        allowed = self._allowed_seconds()
        if allowed is None:
            self.deadline = None
        elif self.deadline is None:
            self.deadline = now + allowed
        elif now < self.deadline:
            return
        elif self.stage == IDLE:
            self.transport.close()
        elif self.stage == CLOSING:
            self.transport.abort()
        elif self.stage == BODY or not self.busy:
            part = "head" if self.stage == HEAD else "body"
            detail = f"the {part} did not arrive within {allowed:g} s"
            self.refuse(Problem(408, detail, headers=_CLOSE, kind="too-slow"))

    def _allowed_seconds(self) -> float | None:
        """The time limit of this stage; None while the client waits for the server."""
        if self.stage in (IDLE, CLOSING) and self.busy:
            return None
        if self.stage == IDLE:
            return self.limits.header_timeout if self.cycle is None else self.timeout_keep_alive
        if self.stage == CLOSING:
            return _LINGER
        if self.flow.read_paused:
            return None
        return self.limits.header_timeout if self.stage == HEAD else self.limits.body_timeout

    def disable_keep_alive(self) -> None:
        """The server will stop: the current answer is the last one."""
        if self.busy:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """The server stops: answer requests that have begun, and accept no others."""
        if self.busy:
            self.disable_keep_alive()  # streams end by themselves: `served.draining`
        elif self.stage in (IDLE, CLOSING):
            self.transport.close()


def _abandon(cycle: RequestResponseCycle) -> None:
    """Report to the application that the client has disconnected."""
    cycle.disconnected = True
    cycle.waiting_for_100_continue = False
    cycle.message_event.set()


def _as_bytes(problem: Problem, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    """A problem document as a complete HTTP response."""
    request_id = secrets.token_hex(16)
    body = problem.body(request_id)
    id_header = (b"x-request-id", request_id.encode())
    headers = [*default_headers, *problem.http_headers(body), id_header]
    lines = b"".join(b"%s: %s\r\n" % pair for pair in headers)
    return b"".join((STATUS_LINE[problem.status], lines, b"\r\n", body))
