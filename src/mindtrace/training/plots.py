"""Plots of a training's report: curves, confusion, calibration, worst mistakes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mindtrace.data.batches import ImageSplit, to_pixels
from mindtrace.progress import EpochReport
from mindtrace.training.report import Report

DPI = 110
COLUMNS = 5
# Names and counts are legible up to so many classes.
LEGIBLE = 30

_FIRST, _SECOND, _SOFT = "#2456a6", "#d1632a", "#b9c4d4"


def write_report(
    folder: Path,
    report: Report,
    course: Sequence[EpochReport],
    test: ImageSplit,
    class_names: Sequence[str],
) -> None:
    """Write `report.json`, `curves.png`, `confusion.png`, `mistakes.png`, `calibration.png`."""
    (folder / "report.json").write_text(json.dumps(asdict(report)) + "\n", encoding="utf-8")
    _save(curves(course), folder / "curves.png")
    _save(confusion(report, class_names), folder / "confusion.png")
    _save(calibration(report), folder / "calibration.png")
    if report.mistakes:
        _save(mistakes(report, test, class_names), folder / "mistakes.png")


def curves(course: Sequence[EpochReport]) -> Figure:
    """Losses and validation accuracy by epoch; the best epoch is marked."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    losses, accuracy = figure.subplots(1, 2)
    epochs = [one.epoch for one in course]
    for name, color in (("train_loss", _SECOND), ("val_loss", _FIRST)):
        losses.plot(epochs, [one.metrics[name] for one in course], "o-", color=color, label=name)
    losses.set(title="loss", xlabel="epoch", ylabel="cross entropy, nats", ylim=(0, None))
    losses.legend(frameon=False)
    values = [one.metrics["val_acc"] for one in course]
    accuracy.plot(epochs, values, "o-", color=_FIRST)
    best = max((one for one in course if one.best), key=lambda one: one.epoch, default=None)
    title = "val_acc"
    if best is not None:
        accuracy.axvline(best.epoch, color=_SOFT, zorder=0)
        title = f"val_acc, best weights {best.metrics['val_acc']:.4f} in epoch {best.epoch}"
    accuracy.set(title=title, xlabel="epoch")
    for axes in (losses, accuracy):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def confusion(report: Report, class_names: Sequence[str]) -> Figure:
    """True classes in rows, answers in columns; the colour is the fraction of the row."""
    counts = np.asarray(report.confusion)
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    count = len(class_names)
    side = min(14.0, 2.2 + 0.52 * count)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    # The square root, so that a few mistakes can be seen beside thousands of right answers.
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
    axes.set(title=f"accuracy {report.accuracy:.4f}", xlabel="answer", ylabel="true class")
    if count <= LEGIBLE:
        axes.set_xticks(range(count), class_names, rotation=45, ha="right")
        axes.set_yticks(range(count), class_names)
        for row, column in zip(*np.nonzero(counts), strict=True):
            dark = shares[row, column] > 0.4
            axes.text(
                column,
                row,
                str(counts[row, column]),
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else "black",
            )
    return figure


def calibration(report: Report) -> Figure:
    """Accuracy by confidence; a calibrated network is on the diagonal."""
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.subplots()
    width = report.bins[0].high - report.bins[0].low
    filled = [one for one in report.bins if one.accuracy is not None]
    axes.bar(
        [(one.low + one.high) / 2 for one in filled],
        [one.accuracy or 0.0 for one in filled],
        width=0.92 * width,
        color=_FIRST,
    )
    axes.plot([0, 1], [0, 1], "--", color=_SECOND)
    axes.set(
        title=f"expected calibration error {report.calibration_error:.4f}",
        xlabel="confidence",
        ylabel="accuracy",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def mistakes(report: Report, test: ImageSplit, class_names: Sequence[str]) -> Figure:
    """The most confident wrong answers as a contact sheet."""
    rows = math.ceil(len(report.mistakes) / COLUMNS)
    figure = Figure(figsize=(1.9 * COLUMNS, 2.25 * rows), layout="constrained")
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, mistake in zip(grid.flat, report.mistakes, strict=False):
        pixels = to_pixels(test.images[mistake.index, None])[0]
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
        axes.set_title(
            f"{class_names[mistake.label]} called {class_names[mistake.predicted]}\n"
            f"{mistake.confidence:.1%}, test image {mistake.index}",
            fontsize=8,
        )
    return figure


def _save(figure: Figure, path: Path) -> None:
    # Not by pyplot, which wants a window system and keeps figures between two trainings.
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=DPI)
