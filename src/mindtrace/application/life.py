"""Floor 10: the life of one process that serves: uvicorn, told exactly what to do.

In: the application with its model, and sockets that listen. Out: signs of life to a
parent, if there is one; after a signal first "not ready", then no new connections, then
the answers to what is open, then the end, in a bounded time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
import threading
import time
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from mindtrace.application.door import Door
from mindtrace.application.problems import log
from mindtrace.application.protocol import Protocol
from mindtrace.application.slot import ModelSlot
from mindtrace.application.tally import Tally
from mindtrace.application.worker import Report
from mindtrace.application.workers import SAME_WISH
from mindtrace.config.settings import Settings

# Seconds between "not ready" and the end of accepting. Whoever balances load looks, and
# every answer meanwhile is the last one on its connection.
GRACE = 0.5
# Seconds for the requests of those who have just come in.
_LAST_WORDS = 0.1
# Of the time to stop in, for open requests; the rest is for putting things away.
_FOR_REQUESTS = 0.9
# Copies of the socket that listens, where one process serves alone.
LISTENERS = 8


class NotCutShort(logging.Filter):
    """Drops uvicorn's tracebacks of what our own stop has cancelled."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is worth a line."""
        cancelled = record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError)
        # That of the lifespan comes as a text.
        return not (cancelled or "CancelledError" in record.getMessage())


# Everything goes to stderr; stdout is for results.
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"not cut short": {"()": NotCutShort}},
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "line",
            "filters": ["not cut short"],
        }
    },
    "loggers": {
        "uvicorn": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        "mindtrace": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        # It would say of every malformed form what the answer to it says already.
        "python_multipart": {"level": "ERROR"},
    },
}


def uvicorn_config(settings: Settings, application: FastAPI) -> uvicorn.Config:
    """What uvicorn is told."""
    return uvicorn.Config(
        application,
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=LOGGING,
        access_log=False,
        # Nobody in front of us is trusted to say who is calling.
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.serve.drain_timeout),
    )


class Server(uvicorn.Server):
    """uvicorn's server, which takes its leave before it goes.

    Attributes:
        cut_short_by: the second signal, where there was one.
    """

    def __init__(
        self, settings: Settings, application: FastAPI, report: Report | None = None
    ) -> None:
        """Prepare a server.

        Args:
            settings: of the server.
            application: with its model.
            report: to the parent of a worker, who decides when to cut short.
        """
        super().__init__(uvicorn_config(settings, application))
        self.cut_short_by: int | None = None
        self._slot: ModelSlot = application.state.slot
        self._drain_timeout = settings.serve.drain_timeout
        self._report = report
        self._told_at = float("inf")
        self._listeners: list[socket.socket] = []
        self._tally: Tally | None = getattr(application.state, "tally", None)
        self._doors: list[Door] = []

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the end, a second one hastens it."""
        now = time.monotonic()
        if self._told_at == float("inf"):
            self._told_at = now
            self._slot.drain()
        elif self._report is None and now > self._told_at + SAME_WISH:
            self.cut_short_by = sig
            self.should_exit = self.force_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, and say so."""
        for listener in sockets or ():
            # Or a copy would make them wait, those of other processes too: it is one socket.
            listener.setblocking(False)
        if self._tally is None:
            # A busy uvloop takes one connection from each listener in a turn: with one they
            # would queue for seconds behind the requests of those that are in.
            self._listeners = [one.dup() for one in sockets or () for _ in range(LISTENERS)]
            await super().startup(self._listeners)
        else:
            await super().startup([])
            # Of several workers each must get its share, which uvloop knows nothing of.
            self._doors = [Door(one, self._protocol, self._tally) for one in sockets or ()]
            for door in self._doors:
                door.open()
        if self._report is not None and self.started:
            self._report.alive()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: signs of life, and whether it is time to go."""
        if self._report is not None:
            if counter % 10 == 0:
                self._report.alive()
            if self._report.orphaned and not self._slot.draining:
                self.handle_exit(signal.SIGTERM, None)
        now = time.monotonic()
        if now >= self._told_at:
            connections: Any = self.server_state.connections
            for connection in connections:
                connection.say_goodbye()
        if now >= self._told_at + min(GRACE, self._drain_timeout / 4):
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, answer what is open, put everything away."""
        now = time.monotonic()
        self._told_at = min(self._told_at, now)
        _end_after(self._told_at + self._drain_timeout - now, 0)
        await self._stop_listening(sockets or [])
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        until = self._told_at + self._drain_timeout * _FOR_REQUESTS
        while (state.connections or state.tasks) and not self.force_exit:
            if time.monotonic() >= until:
                log.error("%d requests did not end in time", len(state.tasks))
                break
            await asyncio.sleep(0.02)
        for connection in list(state.connections):
            connection.transport.abort()
        if self.cut_short_by is not None:
            _end_after(1.0, 128 + self.cut_short_by)
        else:
            await self.lifespan.shutdown()

    async def _stop_listening(self, sockets: list[socket.socket]) -> None:
        """Take in who has knocked already; closing the door would reset their connections."""
        for server in self.servers:
            server.close()
        for door in self._doors:
            door.close()
        for listener in self._listeners:
            listener.close()
        loop = asyncio.get_running_loop()
        for listener in sockets:
            # Nobody more is let into the queue; who comes now asks again, and is refused.
            listener.listen(0)
            with contextlib.suppress(BlockingIOError):
                while True:
                    await loop.connect_accepted_socket(self._protocol, listener.accept()[0])
            listener.close()
        await asyncio.sleep(_LAST_WORDS)

    def _protocol(self) -> Protocol:
        return Protocol(self.config, self.server_state, self.lifespan.state)


def _end_after(seconds: float, code: int) -> None:
    """The last resort: threads that work on, or stores that do not answer, hold us no longer."""

    def end() -> None:
        logging.shutdown()
        os._exit(code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
