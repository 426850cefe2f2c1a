"""Progress on stderr: a bar on a terminal, plain lines in a log, events with --json."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeVar

from mindtrace.cli.console import Console
from mindtrace.progress import EpochReport, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress, ProgressColumn

T = TypeVar("T")


@contextmanager
def progress_of(console: Console) -> Iterator[Progress]:
    """The progress display for the console's mode, closed at the end."""
    progress: Progress
    if console.json:
        progress = EventProgress(console)
    elif console.quiet:
        progress = Progress()
    else:
        progress = BarProgress(console) if console.live else LineProgress(console)
    try:
        yield progress
    finally:
        progress.closed()


def counted(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The same items, counted by a bar."""
    from rich.progress import TextColumn

    with _rich_progress(TextColumn(what, markup=False), *_count_columns()) as bar:
        task = bar.add_task(what, total=total)
        for item in items:
            yield item
            bar.advance(task)


class LineProgress(Progress):
    """One plain line per epoch, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def stage(self, text: str) -> None:
        if self._console.verbose:
            self._console.note(text)

    def epoch(self, report: EpochReport) -> None:
        self.note(str(report))

    def note(self, text: str) -> None:
        self._console.note(text)


class EventProgress(LineProgress):
    """One JSON document per event, for programs."""

    def stage(self, text: str) -> None:
        self._console.event("stage", text=text)

    def started(self, max_epochs: int, batches: int) -> None:
        self._console.event("started", max_epochs=max_epochs, batches=batches)

    def epoch(self, report: EpochReport) -> None:
        self._console.event("epoch", **asdict(report) | {"seconds": round(report.seconds, 3)})


class BarProgress(LineProgress):
    """A spinner while data is read, a bar while epochs run, a line for each finished epoch."""

    def __init__(self, console: Console) -> None:
        from rich.progress import SpinnerColumn, TextColumn

        super().__init__(console)
        self._words = (SpinnerColumn(), TextColumn("{task.description}", markup=False))
        self._bar = _rich_progress(*self._words)
        self._task = self._bar.add_task("starting", total=None)
        self._batches = self._max_epochs = 0

    def stage(self, text: str) -> None:
        self._bar.columns = self._words
        self._bar.update(self._task, description=text, refresh=True)
        self._bar.start()

    def started(self, max_epochs: int, batches: int) -> None:
        self._max_epochs, self._batches = max_epochs, batches
        self._bar.columns = (*self._words, *_count_columns())
        self._bar.reset(self._task, total=max_epochs * batches, description=f"epoch 1/{max_epochs}")
        self._bar.start()

    def advanced(self, epoch: int, done: int) -> None:
        completed, text = (epoch - 1) * self._batches + done, f"epoch {epoch}/{self._max_epochs}"
        self._bar.update(self._task, completed=completed, description=text)

    def note(self, text: str) -> None:
        # Through Rich, so that it and the bar do not overwrite each other.
        self._bar.console.print(text, markup=False, soft_wrap=True)

    def closed(self) -> None:
        self._bar.stop()


def _rich_progress(*columns: ProgressColumn) -> RichProgress:
    from rich.console import Console as RichConsole
    from rich.progress import Progress as RichProgress

    return RichProgress(
        *columns,
        console=RichConsole(stderr=True, highlight=False),
        transient=True,
        redirect_stdout=False,  # results are not the bar's business
    )


def _count_columns() -> tuple[ProgressColumn, ...]:
    from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

    return (BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
