"""Runs the server until a signal and a clean drain, in one process or several."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import resource
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from mindtrace.application.problems import REQUEST_ID, log
from mindtrace.config.settings import Settings
from mindtrace.errors import InterruptedByUser, MindtraceError
from mindtrace.system import handled_signals

if TYPE_CHECKING:
    from fastapi import FastAPI

# Seconds between "not ready" and the end of accepting, for load balancers to notice. Every
# answer in between is the last one on its connection.
READINESS_DELAY = 0.5
_LAST_REQUESTS = 0.1  # seconds for the requests of the last connections to arrive
_FOR_REQUESTS = 0.9  # of the drain timeout; the rest is for closing threads and files
SAME_SIGNAL = 0.5  # seconds in which a second signal is the first one, sent twice
_OTHER_FILES = 256  # that are open beside connections: libraries, stores, uploads
LISTENERS = 8  # copies of the listening socket in a single process


def _not_cancelled(record: logging.LogRecord) -> bool:
    """False for uvicorn's tracebacks of tasks that our own stop has cancelled."""
    cancelled = record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError)
    # The lifespan's comes as a text.
    return not (cancelled or "CancelledError" in record.getMessage())


def _of_request(record: logging.LogRecord) -> bool:
    """Add the id of the request that a line belongs to."""
    given = REQUEST_ID.get()
    record.request = f" request_id={given}" if given else ""
    return True


def _log_to_stderr() -> None:
    """Everything goes there; stdout is for results."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s%(request)s"))
    handler.addFilter(_not_cancelled)
    handler.addFilter(_of_request)
    for name, level in (("uvicorn", "WARNING"), ("mindtrace", "INFO")):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    # It would repeat what the answer to a malformed form says already.
    logging.getLogger("python_multipart").setLevel("ERROR")


def run(
    settings: Settings,
    model_ref: str | None,
    listener: socket.socket,
    ready: Callable[[], object],
    **options: bool,
) -> None:
    """Serve on a listening socket; `ready` is called once connections are accepted."""
    _allow_files(settings.serve.max_connections + _OTHER_FILES)
    # Or a copy would block, those of other processes too: it is one socket.
    listener.setblocking(False)
    if settings.serve.workers == 1:
        from mindtrace.application.api import load_app

        _run_here(load_app(settings, model_ref, **options), listener, ready)
        return
    from mindtrace.application.workers import Supervisor

    with tempfile.TemporaryDirectory(prefix="mindtrace-") as shared:
        arguments = {"model_ref": model_ref, "shared": Path(shared), **options}
        Supervisor(listener, settings, arguments).run(ready)


def _run_here(application: FastAPI, listener: socket.socket, ready: Callable[[], object]) -> None:
    server = Server(application)
    # uvicorn handles signals only while it runs; one just before or after must not kill.
    with handled_signals(server.handle_exit):
        ready()
        try:
            server.run(sockets=[listener])
        except SystemExit as error:
            raise MindtraceError("the server could not start; its log says why") from error
    if server.cut_short_by is not None:
        raise InterruptedByUser(server.cut_short_by)


def _allow_files(wanted: int) -> None:
    """Raise the limit on open files, which is 1,024 on many systems."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        log.warning("this system allows %d open files, fewer than [serve] asks for", allowed)


class Server(uvicorn.Server):
    """uvicorn's server with a drain: not ready, no new connections, open requests, the end."""

    def __init__(
        self, application: FastAPI, *, on_start: Callable[[], object] | None = None
    ) -> None:
        from mindtrace.application.protocol import ConnectionReaper, Protocol

        _log_to_stderr()
        config = uvicorn.Config(
            application,
            http=functools.partial(Protocol, ConnectionReaper(application.state)),  # type: ignore[arg-type]
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            # Nobody in front of us is trusted to say who is calling.
            proxy_headers=False,
            server_header=False,
        )
        super().__init__(config)
        self.cut_short_by: int | None = None
        self._served = application.state.served
        self._drain_timeout = application.state.settings.serve.drain_timeout
        # Given by workers of a supervisor, who decides about a second signal.
        self._on_start = on_start
        self._signalled_at = float("inf")
        self._listeners: list[socket.socket] = []

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the drain, a second one cuts it short."""
        now = time.monotonic()
        if self._signalled_at == float("inf"):
            self._signalled_at = now
            self._served.draining = True
        elif self._on_start is None and now > self._signalled_at + SAME_SIGNAL:
            self.cut_short_by = sig
            self.should_exit = self.force_exit = True
            _exit_after(1.0, 128 + sig)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # A busy uvloop accepts one connection from each listener in a turn: with one listener
        # they would wait for seconds behind the requests of those that are in.
        copies = LISTENERS if self._on_start is None else 1
        self._listeners = [one.dup() for one in sockets or () for _ in range(copies)]
        await super().startup(self._listeners)
        if self._on_start is not None and self.started:
            self._on_start()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether it is time to stop accepting."""
        now = time.monotonic()
        if now >= self._signalled_at:
            for one in self.server_state.connections:
                one.disable_keep_alive()  # type: ignore[union-attr]
        if now >= self._signalled_at + min(READINESS_DELAY, self._drain_timeout / 4):
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, answer what is open, put everything away."""
        now = time.monotonic()
        if self._signalled_at <= now:
            _exit_after(self._signalled_at + self._drain_timeout - now, 0)
        self._signalled_at = min(self._signalled_at, now)
        self._served.draining = True
        await self._stop_listening(sockets or [])
        until = self._signalled_at + self._drain_timeout * _FOR_REQUESTS
        self.config.timeout_graceful_shutdown = max(0.0, until - time.monotonic())
        await super().shutdown()

    async def _stop_listening(self, sockets: list[socket.socket]) -> None:
        """Accept what the kernel has accepted already: closing would reset these connections."""
        for server in self.servers:
            server.close()
        for listener in self._listeners:
            listener.close()
        loop = asyncio.get_running_loop()
        create: Any = functools.partial(
            self.config.http_protocol_class,  # type: ignore[call-arg]
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        for listener in sockets:
            listener.listen(0)  # nobody more enters the queue
            # Clients that return at once must not keep it here for the whole drain.
            until = time.monotonic() + self._drain_timeout / 4
            with contextlib.suppress(BlockingIOError):
                while time.monotonic() < until:
                    await loop.connect_accepted_socket(create, listener.accept()[0])
            listener.close()
        await asyncio.sleep(_LAST_REQUESTS)


def _exit_after(seconds: float, code: int) -> None:
    """The last resort: busy threads and stores that do not answer cannot hold the process."""

    def end() -> None:
        logging.shutdown()
        os._exit(code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
