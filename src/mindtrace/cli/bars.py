"""Rich's bars on stderr: counts come in, something that moves goes out.

Imported only when a terminal is there to draw on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

_Item = TypeVar("_Item")


def _stderr() -> Console:
    return Console(stderr=True, highlight=False)


class EpochBar:
    """A spinner while data is read, a bar while epochs run; gone when stopped."""

    _WORDS = (SpinnerColumn(), TextColumn("{task.description}", markup=False))
    _COUNTS = (BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())

    def __init__(self) -> None:
        self._progress = Progress(
            *self._WORDS,
            console=_stderr(),
            transient=True,
            redirect_stdout=False,  # results are no business of the bar
        )
        self._task = self._progress.add_task("starting", total=None)
        self._max_epochs = 0
        self._batches = 0
        self._progress.start()

    def stage(self, text: str) -> None:
        """Show `text` beside a spinner."""
        self._progress.columns = self._WORDS
        self._progress.update(self._task, description=text, refresh=True)

    def start(self, max_epochs: int, batches: int) -> None:
        """Show a bar of `max_epochs` times `batches` steps."""
        self._max_epochs, self._batches = max_epochs, batches
        self._progress.columns = (*self._WORDS, *self._COUNTS)
        self._progress.reset(
            self._task, total=max_epochs * batches, description=f"epoch 1/{max_epochs}"
        )

    def move(self, epoch: int, done: int) -> None:
        """`done` steps of `epoch` (from 1) are behind us."""
        self._progress.update(
            self._task,
            completed=(epoch - 1) * self._batches + done,
            description=f"epoch {epoch}/{self._max_epochs}",
        )

    def line(self, text: str) -> None:
        """Write a line above the bar."""
        self._progress.console.print(text, markup=False, soft_wrap=True)

    def stop(self) -> None:
        """Take the bar away."""
        self._progress.stop()


def counted(items: Iterable[_Item], total: int, what: str) -> Iterator[_Item]:
    """The same items, while a bar counts them."""
    with Progress(
        TextColumn(what, markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=_stderr(),
        transient=True,
        redirect_stdout=False,
    ) as progress:
        task = progress.add_task(what, total=total)
        for item in items:
            yield item
            progress.advance(task)
