"""Reports of a training's progress; subclass `Progress`, whose methods do nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch; `metrics` are `train_loss`, `val_loss`, `val_acc` and others by name."""

    epoch: int  # 1 for the first
    max_epochs: int
    metrics: Mapping[str, float]
    seconds: float  # wall time, validation included
    best: bool  # whether the monitored metric was the best so far
    monitor: str = "val_acc"


class Progress:
    """Any of these may be called, or not."""

    def stage(self, text: str) -> None:
        """A new part of the work began, such as `reading mnist`."""

    def started(self, max_epochs: int, batches: int) -> None:
        """Fitting begins: `batches` optimizer steps an epoch."""

    def advanced(self, epoch: int, done: int) -> None:
        """`done` optimizer steps of `epoch` (from 1) are finished."""

    def epoch(self, report: EpochReport) -> None:
        """An epoch ended."""

    def note(self, text: str) -> None:
        """Something a person should know, one line."""

    def closed(self) -> None:
        """The work ended, successfully or not; called once."""
