"""The report of a test: scores, confusions and mistakes that name their files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mindtrace.data.batches import ImageSplit
from mindtrace.preprocess import ImageSpec
from mindtrace.progress import EpochReport
from mindtrace.training.plots import write_report
from mindtrace.training.report import Confusion, Evaluation, Report, accuracy_interval, report

NAMES = ("rose", "tulip <red>", "daisy")
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2])
ANSWERS = [0, 0, 1, 1, 1, 1, 0, 0]
FILES = tuple(f"{NAMES[label]}/{place} & co.jpg" for place, label in enumerate(LABELS))


def found(files: tuple[str, ...] | None = FILES) -> Report:
    probabilities = np.eye(3, dtype=np.float32)[ANSWERS] * 0.6 + 0.2
    test = Evaluation(probabilities / probabilities.sum(1, keepdims=True), LABELS, 0.5, 0.5)
    return report(test, NAMES, np.array([9, 9, 9]), files)


def test_scores_and_confusions() -> None:
    one = found()
    assert one.accuracy == 0.5
    assert one.balanced_accuracy == pytest.approx((2 / 4 + 2 / 3 + 0) / 3)
    assert [score.f1 for score in one.classes] == pytest.approx([4 / 8, 4 / 7, 0])
    assert one.f1_macro == pytest.approx((4 / 8 + 4 / 7 + 0) / 3)
    assert one.confusions == (
        Confusion("rose", "tulip <red>", 2),
        Confusion("tulip <red>", "rose", 1),
        Confusion("daisy", "rose", 1),
    )
    assert {mistake.path for mistake in one.mistakes} == {FILES[at] for at in (2, 3, 6, 7)}
    assert {mistake.path for mistake in found(None).mistakes} == {None}


@pytest.mark.parametrize(
    ("right", "images", "expected"),
    # The first is an example in many textbooks; none and all right are no certainty.
    [(8, 10, (0.4902, 0.9433)), (0, 10, (0, 0.2775)), (10, 10, (0.7225, 1)), (1, 1, (0.2065, 1))],
)
def test_interval(right: int, images: int, expected: tuple[float, float]) -> None:
    assert accuracy_interval(right, images) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("files", [FILES, None])
def test_the_page(tmp_path: Path, files: tuple[str, ...] | None) -> None:
    images = torch.zeros(len(LABELS), 3, 64, 64, dtype=torch.uint8)
    spec = ImageSpec("RGB", 64, 64, (0.5,) * 3, (0.5,) * 3)
    split = replace(ImageSplit(images, torch.from_numpy(LABELS), spec), files=files)
    metrics = {"train_loss": 1.0, "val_loss": 1.0, "val_acc": 0.5}
    write_report(tmp_path, found(files), [EpochReport(1, 1, metrics, 1.0, True)], split, NAMES)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "rose taken for tulip &lt;red&gt;: 2 images" in page and "<red>" not in page
    assert "daisy: none of its 1 test images" in page
    assert "Accuracy 0.5000 on 8 test images" in page
    assert ("2 &amp; co.jpg" if files else "test image 2") in page
    assert page.count('class="flip"') == 4 and "http" not in page
    assert json.loads((tmp_path / "report.json").read_text())["confusions"][0]["images"] == 2
    with Image.open(tmp_path / "mistakes.png") as sheet:
        assert sheet.width > 1000
