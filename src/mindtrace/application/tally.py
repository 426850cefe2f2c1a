"""Floor 10: how many connections a server holds, all its workers together.

In: each worker's own number, written into memory that they share through a file. Out:
their sum, and whether this worker is ahead of the others. The kernel hands connections to
whoever is quick: a limit on each worker alone would turn clients away while others have room.
"""

from __future__ import annotations

import mmap
from pathlib import Path

_FILE = "connections"
_SIZE = 4


class Tally:
    """One worker's view of all the numbers."""

    def __init__(self, folder: Path, place: int) -> None:
        """Open the shared numbers; those of a dead worker in this place are forgotten.

        Args:
            folder: where `prepare` was called.
            place: of this worker, from 0.
        """
        with (folder / _FILE).open("r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), 0)).cast("I")
        self._place = place
        self.tell(0)

    @staticmethod
    def prepare(folder: Path, workers: int) -> None:
        """Make the file, before any worker opens it."""
        (folder / _FILE).write_bytes(bytes(_SIZE * workers))

    def tell(self, connections: int) -> None:
        """Say how many this worker holds."""
        self._numbers[self._place] = connections

    def ahead(self, coming: int) -> bool:
        """Whether this worker, with those who are coming in, holds clearly more than another.

        Of many connections a quarter more is no matter: a busy worker that waited for each
        to be even would be slow to take them in.
        """
        others = self._numbers.tolist()
        mine = others.pop(self._place) + coming
        least = min(others)
        return mine > least + least // 4

    def total(self) -> int:
        """How many all workers hold."""
        return sum(self._numbers)
