"""Floor 10: processes that serve, from a socket that listens to a clean end.

In: settings, a model reference, a socket that listens. Out: nothing; `run` returns after
a clean drain. One worker is this process; more are children that share the socket. The
settings reach them as values: no file, no environment and no global can say anything
else.
"""

from __future__ import annotations

import contextlib
import resource
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE
from uvicorn.loops.auto import auto_loop_factory

from mindtrace.application.api import create_app
from mindtrace.application.life import Server
from mindtrace.application.problems import log
from mindtrace.application.tally import Tally
from mindtrace.application.worker import Report
from mindtrace.application.workers import Workers
from mindtrace.bundle.predictor import runtime
from mindtrace.config.settings import Settings
from mindtrace.errors import InterruptedByUser, MindtraceError

# Files that are open beside connections: libraries, stores, uploads.
_OTHER_FILES = 256


def prepare(
    settings: Settings,
    model_ref: str | None = None,
    *,
    worker: bool = True,
    allow_label_change: bool = False,
    shared: Path | None = None,
) -> FastAPI:
    """The application with its model loaded, so that what is wrong shows now.

    Args:
        settings: of the server.
        model_ref: what to serve; None is the champion, also one that is yet to come.
        worker: whether a process that trains is started where jobs wait.
        allow_label_change: whether a champion may have other classes than the one before.
        shared: the folder of all workers of this server; None for one that is alone.

    Raises:
        MindtraceError: see `ModelSlot.fill` and `create_app`.
    """
    application = create_app(
        settings, model_ref, worker=worker, allow_label_change=allow_label_change, shared=shared
    )
    application.state.slot.fill()
    return application


def run(
    settings: Settings,
    model_ref: str | None,
    listener: socket.socket,
    ready: Callable[[], object],
    *,
    worker: bool = True,
    allow_label_change: bool = False,
) -> None:
    """Serve on a listening socket until a signal says to stop, then drain.

    Args:
        settings: of the server.
        model_ref: see `prepare`.
        listener: a socket that listens.
        ready: called once connections are accepted.
        worker: see `prepare`.
        allow_label_change: see `prepare`.

    Raises:
        MindtraceError: what `prepare` raises; a process could not start.
        InterruptedByUser: a second signal cut the drain short.
    """
    serve = settings.serve
    _allow_files(serve.max_connections + _OTHER_FILES)
    options: dict[str, Any] = {"worker": worker, "allow_label_change": allow_label_change}
    if serve.workers == 1:
        _run_here(settings, prepare(settings, model_ref, **options), listener, ready)
        return
    import_before_fork()
    with tempfile.TemporaryDirectory(prefix="mindtrace-") as shared:
        # Origins are a view that cannot be pickled, and a server needs none.
        plain = replace(settings, origins={})
        work = _Worker(plain, model_ref, {**options, "shared": Path(shared)}, listener)
        Tally.prepare(Path(shared), serve.workers)
        Workers(work, serve.workers, serve.drain_timeout).run(ready, listener.close)


def import_before_fork() -> None:
    """Load what every worker will need, so that it stands in memory once.

    None of it may start a thread: a fork copies its locks but not the thread.
    """
    from PIL import Image, ImageOps

    assert Image and ImageOps
    runtime()
    auto_loop_factory()


def _run_here(
    settings: Settings, application: FastAPI, listener: socket.socket, ready: Callable[[], object]
) -> None:
    server = Server(settings, application)
    with _signals_go_to(server):
        ready()
        try:
            server.run(sockets=[listener])
        except SystemExit as error:
            raise MindtraceError("the server could not start; its log says why") from error
    if server.cut_short_by is not None:
        raise InterruptedByUser(server.cut_short_by)


@dataclass(frozen=True)
class _Worker:
    """The life of one of several processes; `options` are those of `prepare`."""

    settings: Settings
    model_ref: str | None
    options: Mapping[str, Any]
    listener: socket.socket

    def __call__(self, report: Report) -> None:
        try:
            application = prepare(self.settings, self.model_ref, **self.options)
            application.state.tally = Tally(self.options["shared"], report.place)
        except MindtraceError as error:
            report.failed(error)
            sys.exit(STARTUP_FAILURE)
        Server(self.settings, application, report).run(sockets=[self.listener])
        if report.orphaned:
            # Nobody else is left to put it away.
            shutil.rmtree(self.options["shared"], ignore_errors=True)


@contextlib.contextmanager
def _signals_go_to(server: Server) -> Iterator[None]:
    """From before the server runs to after its end: none is lost, none kills."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = (signal.SIGTERM, signal.SIGINT)
    before = {signum: signal.signal(signum, server.handle_exit) for signum in heard}
    try:
        yield
    finally:
        for signum, action in before.items():
            signal.signal(signum, action)


def _allow_files(wanted: int) -> None:
    """Connections are files, of which many systems allow a process 1,024 until it asks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        log.warning("this system allows %d open files, fewer than [serve] asks for", allowed)
