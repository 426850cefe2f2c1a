"""Floor 10: uvicorn, told exactly what to do.

In: settings, a model reference, a socket that listens. Out: nothing; `run` returns after
a clean drain. One worker is this process; more are children that share the socket. The
settings reach them as values, pickled with the work they are given: no file, no
environment and no global can say anything else.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess

from mindtrace.application.api import create_app
from mindtrace.application.problems import log
from mindtrace.core.settings import Settings
from mindtrace.errors import InterruptedByUser, MindtraceError
from mindtrace.service.serving import load_or_wait

# Everything goes to stderr; stdout is for results.
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        "uvicorn": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        "mindtrace": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
    },
}


def run(
    settings: Settings,
    model_ref: str | None,
    listener: socket.socket,
    ready: Callable[[], object],
) -> None:
    """Serve on a listening socket until a signal says to stop, then drain.

    Raises:
        MindtraceError: what `prepare` raises; the workers could not start.
        InterruptedByUser: a second Ctrl-C cut the drain short.
    """
    if settings.serve.workers == 1:
        _run_here(settings, prepare(settings, model_ref), listener, ready)
    else:
        _run_workers(settings, model_ref, listener, ready)


def prepare(settings: Settings, model_ref: str | None) -> FastAPI:
    """The application with its model loaded, so that what is wrong shows now.

    Raises:
        MindtraceError: see `load_or_wait` and `create_app`.
    """
    application = create_app(settings, model_ref)
    application.state.slot.fill()
    return application


def _run_here(
    settings: Settings, application: FastAPI, listener: socket.socket, ready: Callable[[], object]
) -> None:
    server = uvicorn.Server(uvicorn_config(settings, application))
    with _signals_end_in_peace():
        ready()
        server.run(sockets=[listener])
    if not server.started:
        raise MindtraceError("the server could not start; its log says why")
    if server.force_exit:
        raise InterruptedByUser(signal.SIGINT)


def _run_workers(
    settings: Settings, model_ref: str | None, listener: socket.socket, ready: Callable[[], object]
) -> None:
    load_or_wait(settings, model_ref)
    # Origins are a view that cannot be pickled, and a server needs none.
    plain = replace(settings, origins={})
    config = uvicorn_config(settings, _Worker(plain, model_ref), factory=True)
    workers = _Workers(config, [listener])
    ready()
    workers.run()
    if workers.failed:
        raise MindtraceError("the workers could not start; their log says why")


def uvicorn_config(
    settings: Settings, application: Any, *, factory: bool = False
) -> uvicorn.Config:
    """What uvicorn is told; `application` makes it where `factory` is set."""
    return uvicorn.Config(
        application,
        factory=factory,
        workers=settings.serve.workers,
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=LOGGING,
        access_log=False,
        # Nobody in front of us is trusted to say who is calling.
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.serve.drain_timeout),
    )


@dataclass(frozen=True)
class _Worker:
    """Makes the application in a worker process."""

    settings: Settings
    model_ref: str | None

    def __call__(self) -> FastAPI:
        threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
        try:
            return prepare(self.settings, self.model_ref)
        except MindtraceError as error:
            log.error("%s", error.message)
        except Exception:  # noqa: BLE001 - whatever it is, trying again would not mend it
            log.exception("a worker could not start")
        # The one status that keeps the parent from starting us again and again.
        sys.exit(STARTUP_FAILURE)


class _Workers(Multiprocess):
    """uvicorn's supervisor, with an honest end.

    Attributes:
        failed: whether a worker could not start.
    """

    failed = False

    def terminate_all(self) -> None:
        # Closed first: a new connection is refused at once, not reset after the drain.
        for listener in self.sockets:
            listener.close()
        super().terminate_all()

    def join_all(self) -> None:
        super().join_all()
        self.failed = any(process.exitcode == STARTUP_FAILURE for process in self.processes)


def _end_with_parent() -> None:
    """Workers of a parent that was killed would serve on, and nobody could stop them."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _signals_end_in_peace() -> Iterator[None]:
    """uvicorn raises a signal again after its drain; by then there is nothing to kill."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: signal.signal(s, lambda *_: None) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for signum, action in before.items():
            signal.signal(signum, action)
