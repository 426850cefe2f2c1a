"""Plots of a training's report: curves, confusion, calibration, worst mistakes."""

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from mindtrace import html
from mindtrace.data.batches import ImageSplit, to_pixels
from mindtrace.progress import EpochReport
from mindtrace.training.report import Mistake, Report

DPI = 110
COLUMNS = 4
# Names and counts are legible up to so many classes.
LEGIBLE = 30
# Pixels of a mistake's picture.
SIDE = 256
_LETTERS = 40  # of the title of one in the contact sheet

_FIRST, _SECOND, _SOFT = "#2456a6", "#d1632a", "#b9c4d4"


def write_report(
    folder: Path,
    report: Report,
    course: Sequence[EpochReport],
    test: ImageSplit,
    class_names: Sequence[str],
) -> None:
    """Write `report.html`, `report.json` and the plots as PNG."""
    (folder / "report.json").write_text(json.dumps(asdict(report)) + "\n", encoding="utf-8")
    figures = {"curves": curves(course), "confusion": confusion(report, class_names)}
    figures["calibration"] = calibration(report)
    if report.mistakes:
        figures["mistakes"] = mistakes(report, test, class_names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font lacks; the page has them
        for name, figure in figures.items():
            # Not by pyplot, which wants a window system and keeps figures between two trainings.
            FigureCanvasAgg(figure)
            figure.savefig(folder / f"{name}.png", dpi=DPI)
    text = report_page(report, test, class_names, Image.open(folder / "curves.png"))
    (folder / "report.html").write_text(text, encoding="utf-8")


def report_page(
    report: Report, test: ImageSplit, class_names: Sequence[str], curves: Image.Image
) -> str:
    """The report as one page: scores, curves, classes, confusions, mistakes with their files."""
    low, high = report.interval
    counted = {True: "1 image", False: "{:,} images"}
    classes = sorted(report.classes, key=lambda one: (one.f1 is None, one.f1))
    return html.page(
        f"Test of {len(test):,} images",
        [
            f"<h1>Accuracy {report.accuracy:.4f} on {len(test):,} test images</h1>",
            *(f'<div class="verdict HOLD"><p>{escape(one)}</p></div>' for one in report.warnings),
            html.figures(
                [
                    ("95 % interval", f"{low:.4f} to {high:.4f}"),
                    ("balanced accuracy", f"{report.balanced_accuracy:.4f}"),
                    ("F1, mean of classes", f"{report.f1_macro:.4f}"),
                    ("calibration error", f"{report.calibration_error:.4f}"),
                ]
            ),
            f'<img alt="learning curves" style="width:100%" src="{html.png(curves, 990)}">',
            "<h2>Classes, the weakest first</h2>",
            html.table(
                ("class", "test images", "precision", "recall", "F1"),
                (
                    [escape(one.class_name), f"{one.images:,}"]
                    + ["" if x is None else f"{x:.4f}" for x in (one.precision, one.recall, one.f1)]
                    for one in classes
                ),
            ),
            "<h2>Confusions</h2><ul>" if report.confusions else "",
            *(
                f"<li>{escape(one.class_name)} taken for {escape(one.taken_for)}: "
                f"{counted[one.images == 1].format(one.images)}</li>"
                for one in report.confusions[:LEGIBLE]
            ),
            "</ul><h2>The most confident mistakes</h2>" if report.mistakes else "",
            '<div class="flips" style="grid-template-columns:repeat(auto-fill,minmax(14rem,1fr))">',
            *(_figure(mistake, test, class_names) for mistake in report.mistakes),
            "</div>",
        ],
    )


def _figure(mistake: Mistake, test: ImageSplit, class_names: Sequence[str]) -> str:
    name, answer = (escape(class_names[label]) for label in (mistake.label, mistake.predicted))
    image = Image.fromarray(to_pixels(test.images[mistake.index, None])[0])
    return (
        f'<div class="flip"><img alt="{name}" src="{html.png(image, SIDE)}"><span>is <b>{name}</b>'
        f'</span><span class="down">answer: {answer} ({mistake.confidence:.0%})</span>'
        f'<span class="soft">{escape(mistake.name)}</span></div>'
    )


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
        middle: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8}
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = {"color": "w" if shares[row, column] > 0.4 else "k"}
            axes.text(column, row, str(counts[row, column]), colour, **middle)
    return figure


def calibration(report: Report) -> Figure:
    """Accuracy by confidence; a calibrated network is on the diagonal."""
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.subplots()
    middles = [(one.low + one.high) / 2 for one in report.bins]
    heights = [one.accuracy or 0.0 for one in report.bins]
    axes.bar(middles, heights, width=0.92 / len(middles), color=_FIRST)
    axes.plot([0, 1], [0, 1], "--", color=_SECOND)
    title = f"expected calibration error {report.calibration_error:.4f}"
    axes.set(title=title, xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def mistakes(report: Report, test: ImageSplit, class_names: Sequence[str]) -> Figure:
    """The most confident wrong answers as a contact sheet."""
    rows = math.ceil(len(report.mistakes) / COLUMNS)
    figure = Figure(figsize=(2.5 * COLUMNS, 2.95 * rows), layout="constrained")
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, mistake in zip(grid.flat, report.mistakes, strict=False):
        pixels = to_pixels(test.images[mistake.index, None])[0]
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
        title = f"{class_names[mistake.label]} called {class_names[mistake.predicted]}\n"
        title += fill(f"{mistake.confidence:.1%}, {mistake.name}", _LETTERS)
        axes.set_title(title, fontsize=8)
    return figure
