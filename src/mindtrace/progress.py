"""Reports of a training's progress; subclass `Progress`, whose methods do nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from typing import Any, Self


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch; `metrics` are `train_loss`, `val_loss`, `val_acc` and others by name."""

    epoch: int  # 1 for the first
    max_epochs: int
    metrics: Mapping[str, float]
    seconds: float  # wall time, validation included
    best: bool  # whether the monitored metric was the best so far
    monitor: str = "val_acc"

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Self:
        """From an event's JSON, which has null where a diverging training measured no number."""
        metrics = {name: nan if x is None else x for name, x in fields["metrics"].items()}
        given = {"seconds": 0.0, "best": False, "monitor": "val_acc", **fields}
        names = ("epoch", "max_epochs", "seconds", "best", "monitor")
        return cls(metrics=metrics, **{name: given[name] for name in names})

    def __str__(self) -> str:
        """One line: `epoch  2/10  val_acc 0.9711  ...  1.23 s  best`."""
        parts = [f"epoch {self.epoch:>{len(str(self.max_epochs))}}/{self.max_epochs}"]
        names = dict.fromkeys(("train_loss", "val_loss", "val_acc", self.monitor))
        parts += [f"{name} {self.metrics[name]:.4f}" for name in names if name in self.metrics]
        parts.append(f"{self.seconds:.2f} s")
        return "  ".join([*parts, "best"] if self.best else parts)


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
