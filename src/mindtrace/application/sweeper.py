"""Floor 10: what all connections of one process share: their limits, and who looks at them.

In: the application with its settings, and uvicorn's set of connections. Out: calls of
each connection's `look`, a few times a second while there are any.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.server import ServerState

from mindtrace.application.envelope import OTHER
from mindtrace.application.slot import ModelSlot
from mindtrace.application.tally import Tally
from mindtrace.config.sections import ServeSettings

EVERY = 0.5  # seconds
# Refused connections that are listened to for a moment longer; more are just closed.
MAX_LINGERING = 256
LINGER = 1.0  # seconds, for a client to read why it was refused


class Sweeper:
    """Looks at every connection of one server.

    Attributes:
        limits: what each connection may do.
        short_body: up to here a body is short enough for every route, bytes.
        slot: knows whether every answer is the last one on its connection.
        lingering: how many refused connections are listened to for a moment longer.
    """

    def __init__(self, state: Any, server: ServerState, loop: asyncio.AbstractEventLoop) -> None:
        self.limits: ServeSettings = state.settings.serve
        self.short_body = min(self.limits.max_body, self.limits.max_retrain_body)
        self.slot: ModelSlot = state.slot
        self.lingering = 0
        self.server = server
        self._state = state
        # Set where there are several workers.
        self._tally: Tally | None = getattr(state, "tally", None)
        # Connections of this process; up to here nobody need be asked.
        self._share = self.limits.max_connections // self.limits.workers
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        # Short limits are kept as exactly as long ones.
        shortest = min(self.limits.header_timeout, self.limits.body_timeout)
        self._every = min(EVERY, shortest / 4)

    def come(self) -> bool:
        """Count one more connection; whether there is room for it."""
        if self._timer is None:
            self._timer = self._loop.call_later(self._every, self._sweep)
        held = self._tell()
        if held <= self._share:
            return True
        total = held if self._tally is None else self._tally.total()
        return total <= self.limits.max_connections

    def body_of(self, path: str) -> int:
        """The longest body of a route, bytes."""
        return self.limits.max_retrain_body if path.startswith("/retrain") else self.limits.max_body

    def go(self, lingered: bool) -> None:
        """Count one connection less."""
        self.lingering -= lingered
        self._tell()

    def linger(self) -> bool:
        """Whether one more refused connection may be listened to; it takes nobody's room."""
        if self.lingering >= MAX_LINGERING:
            return False
        self.lingering += 1
        self._tell()
        return True

    def _tell(self) -> int:
        held = len(self.server.connections) - self.lingering
        if self._tally is not None:
            self._tally.tell(held)
        return held

    def refused(self, status: int) -> None:
        """Count what the application never heard of."""
        self._state.meters.answered(OTHER, status, 0.0)

    def _sweep(self) -> None:
        self._timer = None
        now = self._loop.time()
        try:
            connections: Any = tuple(self.server.connections)
            for connection in connections:
                connection.look(now)
        finally:
            if self.server.connections:
                self._timer = self._loop.call_later(self._every, self._sweep)


def sweeper_of(app: Any, server: ServerState, loop: asyncio.AbstractEventLoop) -> Sweeper:
    """The sweeper of a server; the first connection makes it.

    Args:
        app: what uvicorn runs: our application, or one of uvicorn's layers around it.
        server: whose connections.
        loop: that it runs on.
    """
    while not hasattr(app, "state"):
        app = app.app
    sweeper: Sweeper | None = getattr(app.state, "sweeper", None)
    if sweeper is None or sweeper.server is not server:
        sweeper = app.state.sweeper = Sweeper(app.state, server, loop)
    return sweeper
