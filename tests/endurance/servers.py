"""A server as its users start it: a real process, its workers, its memory, its log."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
from tests.application.servers import serve, url_of
from tests.waiting import until

MB = 1 << 20
PATIENCE = 120  # seconds: for what takes a moment on a machine that does nothing else


@dataclass
class Server:
    """A running `mindtrace serve`; `process` is the parent of several workers."""

    process: subprocess.Popen[str]
    url: str
    log_file: Path
    count: int = 1

    @property
    def host(self) -> str:
        return str(urlsplit(self.url).hostname)

    @property
    def port(self) -> int:
        return int(urlsplit(self.url).port or 0)

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self.log_file.read_text(encoding="utf-8")

    def workers(self) -> dict[int, psutil.Process]:
        """The processes that answer, by their id."""
        parent = psutil.Process(self.process.pid)
        if self.count == 1:
            return {parent.pid: parent}
        found = {}
        for child in parent.children():
            # Gone meanwhile, or dead and not yet collected.
            with contextlib.suppress(psutil.Error):
                command = child.cmdline()
                if any("serve_as_worker" in word for word in command):
                    found[child.pid] = child
        return found

    def clients(self, pid: int) -> set[tuple[str, int]]:
        """The far ends of the connections that a worker holds."""
        held = self.workers()[pid].net_connections()
        return {tuple(connection.raddr) for connection in held if connection.raddr}

    def all_accept(self) -> bool:
        """Whether there are as many workers as there should be, and each takes connections."""
        with contextlib.ExitStack() as stack:
            ours = set()
            for _ in range(16):
                client = socket.create_connection((self.host, self.port), timeout=PATIENCE)
                ours.add(stack.enter_context(client).getsockname())
            time.sleep(0.1)
            workers = self.workers()
            # One may go while we look.
            with contextlib.suppress(psutil.Error, KeyError):
                return len(workers) == self.count and all(
                    ours & self.clients(pid) for pid in workers
                )
        return False

    def memory(self) -> int:
        """Bytes that the server and all its children take, what they share counted once."""
        parent = psutil.Process(self.process.pid)
        total = 0
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                found = process.memory_full_info()
                total += int(getattr(found, "pss", found.uss))
        return total


@contextlib.contextmanager
def serving(
    folder: Path, *args: str, workers: int = 1, ready: int = 200, root: Path | None = None
) -> Iterator[Server]:
    """`mindtrace serve` on a free port, ended by SIGTERM; a bad end fails the test.

    Its log is in `folder`, which is ROOT too unless that is given; `ready` is the status of
    `/healthz/ready` to wait for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log_file = folder / "server.log"
    environment = {**os.environ, "DIR_PATHS__ROOT": str(root or folder)}
    words = ("--no-worker", "--workers", str(workers), *args)
    with (
        log_file.open("w", encoding="utf-8") as log,
        serve(*words, stderr=log, env=environment) as process,
    ):
        server = Server(process, url_of(process), log_file, workers)
        until(lambda: _ready(server) == ready or process.poll() is not None)
        until(server.all_accept)
        yield server
        assert process.poll() is None, server.log
        process.terminate()
        assert process.wait(PATIENCE) == 0, server.log
        assert "Traceback" not in server.log, server.log


def _ready(server: Server) -> int:
    with contextlib.suppress(httpx.TransportError):
        url = f"{server.url}/healthz/ready"
        return httpx.get(url, trust_env=False, timeout=PATIENCE).status_code
    return 0


class Peak:
    """`with Peak(server) as peak`: the most memory it took meanwhile, in bytes."""

    def __init__(self, server: Server, every: float = 0.2) -> None:
        self.before = self.most = server.memory()
        self._server, self._every = server, every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    @property
    def growth(self) -> float:
        """Megabytes above what it took before."""
        return (self.most - self.before) / MB

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            self._look()

    def _look(self) -> None:
        with contextlib.suppress(psutil.Error):
            self.most = max(self.most, self._server.memory())
