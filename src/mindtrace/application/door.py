"""Floor 10: how one of several workers takes connections, so that each has its share.

In: a socket that all workers listen on, and how many connections each holds. Out:
connections of this worker. The kernel wakes all and serves the quickest: with clients on
the same machine that can be the same one each time, and all the others stand idle. So who
holds more than another lets that one go first, for a moment; then it takes what still
waits, for the other may be busy or dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from mindtrace.application.problems import log
from mindtrace.application.tally import Tally

_AT_ONCE = 8  # connections in a turn, or they would queue behind the requests of those inside
_AFTER_YOU = 0.002  # seconds
_NO_FILES = 1.0  # seconds until the next try where this process has no room for a file


class Door:
    """Takes connections from one socket, a few a turn of the event loop."""

    def __init__(
        self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol], tally: Tally
    ) -> None:
        """Prepare it; nobody comes in before `open`."""
        self._listener = listener
        self._protocol = protocol
        self._tally = tally
        self._loop = asyncio.get_running_loop()
        self._waits: asyncio.TimerHandle | None = None
        self._coming: set[asyncio.Task[object]] = set()

    def open(self) -> None:
        """Take connections from now on."""
        self._loop.add_reader(self._listener.fileno(), self._knock)

    def close(self) -> None:
        """Take no more; who was let in stays."""
        if self._waits is not None:
            self._waits.cancel()
        self._loop.remove_reader(self._listener.fileno())

    def _knock(self) -> None:
        for _ in range(_AT_ONCE):
            if self._tally.ahead(len(self._coming)):
                self._pause(_AFTER_YOU)
                return
            if not self._take():
                return

    def _pause(self, seconds: float) -> None:
        self.close()
        self._waits = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._waits = None
        self.open()
        for _ in range(_AT_ONCE):  # whoever they were left for did not come
            if not self._take():
                return

    def _take(self) -> bool:
        """Take one; whether there was one to be taken."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False  # another worker was quicker, or the client has gone
        except OSError as error:
            log.error("no connection can be taken: %s", error)
            self._pause(_NO_FILES)
            return False
        connection.setblocking(False)
        task = self._loop.create_task(self._let_in(connection))
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)
        return True

    async def _let_in(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it has gone again
            await self._loop.connect_accepted_socket(self._protocol, connection)
