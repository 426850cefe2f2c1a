"""Processes that accept on one shared socket, and the supervisor that keeps them alive."""

import contextlib
import json
import os
import pickle
import select
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from subprocess import PIPE, Popen
from typing import Any

from uvicorn.config import STARTUP_FAILURE

from mindtrace import errors
from mindtrace.application.problems import log
from mindtrace.application.serve import SAME_SIGNAL, Server
from mindtrace.config.settings import Settings
from mindtrace.jobs.process import when_parent_ends
from mindtrace.system import last_json, stop_signals

_SERVES = b"serves\n"  # what a worker reports
_TICK = 0.2  # seconds between two looks of the supervisor
_PAUSE = 1.0  # seconds until a worker that could not start is started again
_WORKER = "from mindtrace.application.workers import serve_as_worker; serve_as_worker()"


class Worker:
    """One of the processes, as the supervisor sees it."""

    def __init__(self, listener: socket.socket, arguments: Mapping[str, Any]) -> None:
        descriptor = listener.fileno()
        command = [sys.executable, "-P", "-c", _WORKER, str(descriptor)]
        # Ctrl-C reaches every process of a session; the supervisor decides what it means.
        self.process = Popen(
            command, stdin=PIPE, stdout=PIPE, pass_fds=[descriptor], start_new_session=True
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.pipe = self.process.stdout  # on which it reports that it serves, or why it cannot
        self._reported = b""
        with contextlib.suppress(BrokenPipeError):
            pickle.dump(arguments, self.process.stdin)
            self.process.stdin.flush()  # and left open: its end tells the worker that we are gone

    @property
    def serves(self) -> bool:
        return self._reported.startswith(_SERVES)

    def read(self) -> None:
        self._reported += os.read(self.pipe.fileno(), 1 << 16)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()

    def failure(self) -> errors.MindtraceError:
        """Why it could not start: the error that it met, with its own class."""
        failure = last_json(self._reported)
        if not failure:
            how = _how_it_ended(self.process.returncode)
            return errors.MindtraceError(f"a worker could not start: it {how}")
        kind = getattr(errors, failure["type"], errors.MindtraceError)
        # Each class has a constructor of its own.
        error: errors.MindtraceError = kind.__new__(kind)
        errors.MindtraceError.__init__(error, failure["message"], hint=failure["hint"])
        return error


def _how_it_ended(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def serve_as_worker() -> None:
    """The whole life of a worker process."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    arguments = pickle.load(sys.stdin.buffer)
    report = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # nothing else may write there, child processes included
    try:
        # Here, and not above: the supervisor needs none of it.
        from mindtrace.application.api import load_app

        server = Server(load_app(**arguments), on_start=lambda: report.write(_SERVES))
    except errors.MindtraceError as error:
        failure = {"type": type(error).__name__, "message": error.message, "hint": error.hint}
        report.write(json.dumps(failure).encode())
        sys.exit(STARTUP_FAILURE)
    orphaned = threading.Event()

    def end() -> None:
        orphaned.set()
        os.kill(os.getpid(), signal.SIGTERM)

    when_parent_ends(end)
    server.run(sockets=[listener])
    if orphaned.is_set():
        shutil.rmtree(arguments["shared"], ignore_errors=True)  # nobody else is left to do it


class Supervisor:
    """Keeps workers alive until a signal; uvicorn's own knows no drain and no failed starts."""

    def __init__(
        self, listener: socket.socket, settings: Settings, arguments: Mapping[str, Any]
    ) -> None:
        self._listener = listener
        self._settings = settings.serve
        self._arguments = {"settings": settings, **arguments}  # of `load_app`
        self._workers: list[Worker] = []
        self._signals: list[tuple[int, float]] = []
        self._serving = False  # the first worker does
        self._start_at = 0.0

    def run(self, ready: Callable[[], object]) -> None:
        """Start workers and replace those that die; `ready` is called when the first one serves."""
        for signum in stop_signals():
            signal.signal(signum, lambda got, _: self._signals.append((got, time.monotonic())))
        try:
            # The first one alone: what is wrong with it is wrong with all.
            self._workers.append(Worker(self._listener, self._arguments))
            while not self._signals:
                self._watch(ready)
            self._drain()
        finally:
            for worker in self._workers:
                worker.close()

    def _watch(self, ready: Callable[[], object]) -> None:
        readable, _, _ = select.select([worker.pipe for worker in self._workers], [], [], _TICK)
        for worker in list(self._workers):
            if worker.pipe in readable:
                worker.read()
            if worker.process.poll() is not None:
                self._replace(worker)
        if not self._serving and self._workers and self._workers[0].serves:
            self._serving = True
            ready()
        if self._serving and time.monotonic() >= self._start_at:
            while len(self._workers) < self._settings.workers:
                self._workers.append(Worker(self._listener, self._arguments))

    def _replace(self, worker: Worker) -> None:
        """Forget a worker that has died; `_watch` starts another one."""
        self._workers.remove(worker)
        worker.read()
        worker.close()
        if not worker.serves and not self._workers:
            raise worker.failure()
        how = _how_it_ended(worker.process.returncode)
        log.error("worker %s %s; another one takes its place", worker.process.pid, how)
        # What it has counted stays in GET /metrics; its gauges go.
        from prometheus_client.multiprocess import mark_process_dead

        pid = worker.process.pid
        mark_process_dead(pid, self._arguments["shared"])  # type: ignore[no-untyped-call]
        if not worker.serves:
            log.error("%s", worker.failure().message)
            self._start_at = time.monotonic() + _PAUSE

    def _drain(self) -> None:
        since = self._signals[0][1]
        timeout = self._settings.drain_timeout
        # Or clients would wait in a queue that nobody reads once the workers have closed theirs.
        self._listener.close()
        for worker in self._workers:
            worker.process.terminate()
        while alive := [worker for worker in self._workers if worker.process.poll() is None]:
            later = [signum for signum, at in self._signals if at > since + SAME_SIGNAL]
            if later:
                raise errors.InterruptedByUser(later[0])
            if time.monotonic() >= since + timeout:
                log.error("%d workers did not end within %g s", len(alive), timeout)
                return
            time.sleep(_TICK / 4)
