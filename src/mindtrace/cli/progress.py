"""A training's course on stderr: reports come in; a bar, plain lines or JSON go out.

Which of the three is the console's mode: a bar where a person watches, one plain line an
epoch in a log, one document an event with `--json`, nothing with `-q`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mindtrace.cli.console import Console
from mindtrace.progress import EpochReport, Progress

if TYPE_CHECKING:
    from mindtrace.cli.bars import EpochBar


def progress_for(console: Console) -> Progress:
    """The watcher that fits the console's mode."""
    if console.json:
        return EventProgress(console)
    if console.quiet:
        return Progress()
    return BarProgress(console) if console.live else LineProgress(console)


def epoch_line(report: EpochReport) -> str:
    """One epoch in one line: `epoch 2/10  val_acc 0.9711  ...  1.23 s  best`."""
    width = len(str(report.max_epochs))
    parts = [f"epoch {report.epoch:>{width}}/{report.max_epochs}"]
    parts += [f"{name} {value:.4f}" for name, value in report.metrics.items()]
    parts.append(f"{report.seconds:.2f} s")
    return "  ".join([*parts, "best"] if report.best else parts)


class LineProgress(Progress):
    """One plain line an epoch, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def stage(self, text: str) -> None:
        """Said with -v only: a log wants epochs, not steps."""
        if self._console.verbose:
            self._console.note(text)

    def epoch(self, report: EpochReport) -> None:
        """The line of an epoch."""
        self._console.note(epoch_line(report))

    def note(self, text: str) -> None:
        """A line as it is."""
        self._console.note(text)


class EventProgress(Progress):
    """One JSON document an event, for programs."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def stage(self, text: str) -> None:
        """`{"event": "stage", "text": ...}`."""
        self._console.event("stage", text=text)

    def started(self, max_epochs: int, batches: int) -> None:
        """`{"event": "started", "max_epochs": ..., "batches": ...}`."""
        self._console.event("started", max_epochs=max_epochs, batches=batches)

    def epoch(self, report: EpochReport) -> None:
        """`{"event": "epoch", "epoch": 1, "max_epochs": ..., "metrics": {...}, ...}`."""
        self._console.event(
            "epoch",
            epoch=report.epoch,
            max_epochs=report.max_epochs,
            metrics=dict(report.metrics),
            seconds=round(report.seconds, 3),
            best=report.best,
        )

    def note(self, text: str) -> None:
        """`{"event": "note", "text": ...}`."""
        self._console.event("note", text=text)


class BarProgress(LineProgress):
    """A moving bar for the epoch at work, a line for each that is done."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._bar: EpochBar | None = None

    def stage(self, text: str) -> None:
        """What is being done, beside a spinner, until something else is."""
        self._ensure_bar().stage(text)

    def started(self, max_epochs: int, batches: int) -> None:
        """Put the bar on the terminal."""
        self._ensure_bar().start(max_epochs, batches)

    def advanced(self, epoch: int, done: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.move(epoch, done)

    def epoch(self, report: EpochReport) -> None:
        """Leave the epoch's line above the bar."""
        self.note(epoch_line(report))

    def note(self, text: str) -> None:
        """Put a line above the bar, so that the two do not write over each other."""
        if self._bar is not None:
            self._bar.line(text)
        else:
            super().note(text)

    def closed(self) -> None:
        """Take the bar off the terminal."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _ensure_bar(self) -> EpochBar:
        if self._bar is None:
            from mindtrace.cli.bars import EpochBar

            self._bar = EpochBar()
        return self._bar
