"""Floor 8: whether a process gets a share of the processors at all.

In: the id of a process. Out: whether it wants to compute and may not, nearly all the time.
Who computes only while nobody else wants to waits for ever where somebody always does.
"""

from __future__ import annotations

import time
from pathlib import Path

_WINDOW = 10.0  # seconds
_WINDOWS = 3  # in a row
_NOTHING = 0.05  # of a window
_READY = "R"  # how the kernel calls one that computes or would like to


class Share:
    """What the scheduler leaves to a process; on Linux, elsewhere nobody starves."""

    def __init__(self, pid: int) -> None:
        # Of its first thread: the others work for that one.
        self._folder = Path(f"/proc/{pid}")
        self._hungry = 0
        self._since, self._had = time.monotonic(), self._computed()

    def starves(self) -> bool:
        """Whether it was left nothing for half a minute; asked again and again."""
        seconds = time.monotonic() - self._since
        if seconds >= _WINDOW:
            had = self._computed()
            hungry = had - self._had < _NOTHING * seconds and self._state() == _READY
            self._hungry = self._hungry + 1 if hungry else 0
            self._since, self._had = self._since + seconds, had
        return self._hungry >= _WINDOWS

    def _computed(self) -> float:
        """Seconds that it has computed."""
        # Its time of waiting stands there too, but is written when the waiting is over.
        words = self._read("schedstat").split()
        return int(words[0]) / 1e9 if words else 0.0

    def _state(self) -> str:
        """One letter; its name, which stands before, may be anything."""
        return self._read("stat").rpartition(")")[2].strip()[:1]

    def _read(self, name: str) -> str:
        try:
            return (self._folder / name).read_text()
        except OSError:  # it has ended, or this is no Linux
            return ""
