"""Floor 10: a line of JSON on stderr for every request, if `[serve] access_log` asks for it.

In: what was asked and answered. Out: lines, written by a thread of their own, so that a
slow terminal slows no answer. No query, no header and no body is ever written.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from starlette.types import Scope

# Seconds between two writes.
_EVERY = 0.25
# Lines that may wait; beyond them they are counted, not kept.
_WAITING = 20_000
# A path may be as long as a head; nobody reads more of it.
_PATH = 512
# Bytes that a pipe takes as one, so that lines of several workers do not mix.
_AT_ONCE = 4096

Write = Callable[[bytes], Any]


class AccessLog:
    """Takes notes from the thread of the event loop, and writes them from another."""

    def __init__(self, write: Write | None = None) -> None:
        """Prepare; nothing is written before `start`.

        Args:
            write: receives whole lines; stderr if it is not given.
        """
        self._write = write or (lambda data: os.write(sys.stderr.fileno(), data))
        self._notes: deque[tuple[Any, ...]] = deque()
        self._dropped = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def close(self) -> None:
        """Write what is left, and end."""
        self._stop.set()
        self._thread.join()

    def note(self, scope: Scope, request_id: str, status: int, seconds: float, length: int) -> None:
        """Take down one answer of `length` bytes that took `seconds`."""
        if len(self._notes) >= _WAITING:
            self._dropped += 1
            return
        client = scope.get("client")
        self._notes.append(
            (
                *(time.time(), request_id, scope["method"], scope["path"], status, seconds),
                *(client[0] if client else None, length),
            )
        )

    def _run(self) -> None:
        while not self._stop.wait(_EVERY):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        block = b""
        while self._notes:
            line = _line(self._notes.popleft())
            if block and len(block) + len(line) > _AT_ONCE:
                self._write(block)
                block = b""
            block += line
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            block += json.dumps({"at": _at(time.time()), "dropped": dropped}).encode() + b"\n"
        if block:
            self._write(block)


def _line(note: tuple[Any, ...]) -> bytes:
    at, request_id, method, path, status, seconds, client, length = note
    fields = {
        "at": _at(at),
        "request_id": request_id,
        "method": method,
        "path": path[:_PATH],
        "status": status,
        "seconds": round(seconds, 6),
        "client": client,
        "bytes": length,
    }
    return json.dumps(fields).encode() + b"\n"


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
