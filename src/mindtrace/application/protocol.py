"""Floor 10: the connection itself: who may speak, for how long, how much.

In: the bytes of a client. Out: requests for the application; a small problem document
and a closed connection for whoever is too slow, too long, one too many, or makes no
sense. Requests set no timers: one sweeper (`sweeper.py`) looks at every connection.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import (
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from mindtrace.application import refusals
from mindtrace.application.envelope import send_problem
from mindtrace.application.limits import too_long
from mindtrace.application.problems import Problem, log
from mindtrace.application.sweeper import LINGER, Sweeper, sweeper_of

# What we wait to hear: anything, the rest of a head, the rest of a body, nothing more.
READY, HEAD, BODY, DEAF = range(4)
# Requests that wait for the answer before theirs; each holds its head in memory.
MAX_PIPELINED = 64
# Seconds that an answer under way has to end by itself when the server stops.
_STREAM = 1.0
# What uvicorn and we raise where a head makes no sense; a path that is none is an AttributeError.
_EXPECTED = (Problem, httptools.HttpParserError, UnicodeError, AttributeError)


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol with limits.

    Attributes:
        stage: what we wait to hear.
        deadline: when the stage must have ended, on the loop's clock; None until the
            sweeper has seen it.
        unread: when the client must have taken what is written; None if it has.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.sweeper: Sweeper = sweeper_of(config.loaded_app, server_state, self.loop)
        self.limits = self.sweeper.limits
        self.stage = READY
        self.deadline: float | None = None
        self.unread: float | None = None
        self._running: RequestResponseCycle | None = None
        self._lingers = False
        self._problem: Problem | None = None
        self._upgrade = b""
        # The piece that is being read: its length, whether it brought a head or a part of
        # a body, and whether a head began in its middle.
        self._piece = 0
        self._moved = False
        self._midway = False
        # Bytes of the pieces that moved nothing: parts of a head, trailers, padding.
        self._silent = 0
        self._body = 0

    @property
    def busy(self) -> bool:
        """Whether an answer is still to come."""
        return self.cycle is not None and not self.cycle.response_complete

    # What the transport says.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or send it away where there are too many."""
        super().connection_made(transport)
        if not self.sweeper.come():
            self.refuse(refusals.crowded())

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every request that nobody waits for its answer; uvicorn tells the newest."""
        super().connection_lost(exc)
        self.sweeper.go(self._lingers)
        for cycle in (self._running, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                _forsake(cycle)
        self._running = None
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        """Read a piece; what is wrong with it is answered by hand."""
        if self.stage == READY:
            # Empty lines before a request begin the head too: they may not go on for ever.
            self.stage, self.deadline, self._silent = HEAD, None, 0
        elif self.stage == DEAF:
            return
        self._piece = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._without_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            cause = error.__context__
            if cause is not None and not isinstance(cause, _EXPECTED):
                log.error("a request could not be read", exc_info=cause)
            self.refuse(self._problem or refusals.malformed())
            return
        if self._moved:
            self._moved = False
            return
        self._silent += self._piece
        if self._silent > self.limits.max_header:
            self.refuse(refusals.long_head(self.limits.max_header))

    def say_goodbye(self) -> None:
        """The server will stop: let the answer under way be the last one, if there is one."""
        if self.busy:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """The server stops: what has begun is answered, nothing else begins."""
        self.sweeper.slot.drain()
        if self.busy:
            self.say_goodbye()
            self.loop.call_later(_STREAM, self._end_stream)
        elif self.stage in (READY, DEAF):
            self.transport.close()

    def _end_stream(self) -> None:
        """Whoever still streams has no end that one could wait for."""
        cycle = self._running
        if cycle is None or cycle.response_complete or self.flow.write_paused:
            return
        if cycle.response_started:
            _forsake(cycle)
            self.transport.close()

    def look(self, now: float) -> None:
        """What the sweeper asks of every connection: give the slow an end.

        Args:
            now: seconds on the loop's clock.
        """
        if self.transport.get_write_buffer_size() == 0:
            self.unread = None
        elif self.unread is None:
            self.unread = now + self.limits.body_timeout
        elif now >= self.unread:
            # Not closed: that would wait for the client to take the rest.
            self.transport.abort()
            return
        allowed = self._allowed()
        if allowed is None:
            self.deadline = None
        elif self.deadline is None:
            self.deadline = now + allowed
        elif now >= self.deadline:
            self._too_slow(allowed)

    def _allowed(self) -> float | None:
        """Seconds for this stage; None while the next word is ours."""
        if self.stage == READY:
            if self.busy:
                return None
            return self.limits.header_timeout if self.cycle is None else self.timeout_keep_alive
        if self.stage == DEAF:
            return None if self.busy else LINGER
        if self.flow.read_paused:
            return None
        return self.limits.header_timeout if self.stage == HEAD else self.limits.body_timeout

    def _too_slow(self, allowed: float) -> None:
        if self.stage == READY:
            self.transport.close()
        elif self.stage == DEAF:
            self.transport.abort()
        elif self.stage == BODY or not self.busy:
            self.refuse(refusals.slow("head" if self.stage == HEAD else "body", allowed))

    # What the parser says.

    def on_message_begin(self) -> None:
        """A request begins; `stage` tells whether in the middle of a piece."""
        if self.stage != HEAD:
            if len(self.pipeline) >= MAX_PIPELINED:
                raise self._wrong(refusals.too_many_at_once(MAX_PIPELINED))
            self.stage, self.deadline, self._silent = HEAD, None, 0
            self._midway, self._moved = True, True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is complete, the application may start."""
        if self._midway or self._silent + self._piece > self.limits.max_header:
            self._midway = False
            if _head_size(self.url, self.headers) > self.limits.max_header:
                raise self._wrong(refusals.long_head(self.limits.max_header))
        if self.parser.should_upgrade():
            self._upgrade = self._plain_head()
            return
        super().on_headers_complete()
        # Trailers would be added to the headers of a request that was judged already.
        self.headers = []
        self.stage, self.deadline = BODY, None
        self._silent, self._moved, self._body = 0, True, 0
        if self.sweeper.slot.draining:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A part of a body, counted whether its length was announced or not."""
        self._silent, self._moved = 0, True
        self._body += len(body)
        if self._body > self.sweeper.short_body:
            limit = self.sweeper.body_of(self.cycle.scope["path"])
            if self._body > limit:
                raise self._wrong(too_long(limit))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._upgrade:
            return
        self.stage, self.deadline = READY, None
        super().on_message_complete()

    # What an answer says.

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """The next request's turn; the sweeper ends what stays idle, so no timer is set."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self.stage == BODY and self.expect_100_continue:
            # Nobody can know whether the body still comes.
            self.transport.close()

    # Refusals.

    def refuse(self, problem: Problem) -> None:
        """Answer by hand, after the answers that are still to come, and hear no more."""
        if self.transport.is_closing():
            return
        broken = self.cycle if self.stage == BODY else None
        behind = bool(self.pipeline) or (broken is None and self.busy)
        self.stage, self.deadline = DEAF, None
        self.sweeper.refused(problem.status)
        request_id = problem.headers["X-Request-ID"] = secrets.token_hex(16)
        if behind:
            self._answer_in_turn(broken, problem, request_id)
        elif broken is not None and broken.response_started:
            _forsake(broken)
            self.transport.close()
        else:
            if broken is not None:
                _forsake(broken)
            self._hang_up(refusals.raw(problem, request_id, self.server_state.default_headers))

    def _answer_in_turn(
        self, broken: RequestResponseCycle | None, problem: Problem, request_id: str
    ) -> None:
        async def application(_: Any, __: Any, send: Any) -> None:
            await send_problem(problem, request_id, send)

        if broken is not None:
            self.pipeline[0] = (broken, application)
        else:
            self.pipeline.appendleft((self._cycle_without_head(), application))

    def _cycle_without_head(self) -> RequestResponseCycle:
        scope: Any = {**self.scope, "method": "GET", "path": "", "query_string": b""}
        return RequestResponseCycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=False,
            on_response=self.on_response_complete,
        )

    def _hang_up(self, words: bytes) -> None:
        """Say it, and listen on for a moment: a reset could overtake our words."""
        self.transport.write(words)
        self._lingers = self.sweeper.linger()
        if self._lingers:
            self.flow.resume_reading()
            self.transport.write_eof()
        else:
            self.transport.close()

    def _wrong(self, problem: Problem) -> Problem:
        """Keep what a callback has to say: the parser hands on only that it failed."""
        self._problem = problem
        return problem

    # Upgrades.

    def _plain_head(self) -> bytes:
        """The head again, without its wish to speak something else.

        Raises:
            Problem: 400, we speak nothing that it could mean.
        """
        wishes = [value.strip().lower() for name, value in self.headers if name == b"upgrade"]
        if self.parser.get_method() == b"CONNECT" or b"websocket" in wishes:
            raise self._wrong(refusals.no_upgrade())
        kept = [pair for pair in self.headers if pair[0] not in (b"upgrade", b"http2-settings")]
        lines = [b"%s: %s\r\n" % pair for pair in kept if pair[0] != b"connection"]
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        return b"".join((b"%s %s HTTP/%s\r\n" % (method, self.url, version), *lines, b"\r\n"))

    def _without_upgrade(self, rest: bytes) -> None:
        """Read a request as if it had not asked for HTTP/2: that is ours to decide.

        The parser stops behind a head that asks for an upgrade, even if a body follows.
        """
        head, self._upgrade = self._upgrade, b""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.stage = READY
        self.data_received(head + rest)


def _forsake(cycle: RequestResponseCycle) -> None:
    """Nobody hears the answer: the application learns that its client is gone."""
    cycle.disconnected = True
    cycle.waiting_for_100_continue = False
    cycle.message_event.set()


def _head_size(url: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    return len(url) + sum(len(name) + len(value) + 4 for name, value in headers)
