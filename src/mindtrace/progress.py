"""What a long piece of work tells whoever watches it; doors subclass `Progress`.

The base class is silent, so a caller who does not watch passes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch.

    Attributes:
        epoch: 1 for the first.
        max_epochs: how many were asked for.
        metrics: `train_loss`, `val_loss`, `val_acc` (fractions, not percent).
        seconds: wall time of the epoch, validation included.
        best: whether the monitored metric was the best so far.
    """

    epoch: int
    max_epochs: int
    metrics: Mapping[str, float]
    seconds: float
    best: bool


class Progress:
    """Hears of a training's course; every method may be called or not."""

    def stage(self, text: str) -> None:
        """A new part of the work began, such as `reading mnist`."""

    def started(self, max_epochs: int, batches: int) -> None:
        """Fitting begins: `batches` optimizer steps an epoch."""

    def advanced(self, epoch: int, done: int) -> None:
        """`done` optimizer steps of `epoch` (from 1) are behind us."""

    def epoch(self, report: EpochReport) -> None:
        """An epoch ended."""

    def note(self, text: str) -> None:
        """Something a person should know, one line."""

    def closed(self) -> None:
        """The work ended, well or not; called once."""
