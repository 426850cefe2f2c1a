"""A training of older rules is resumed and reproduced with the split and the size it had."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mindtrace.config.settings import Settings, load_settings
from mindtrace.data import ImageDataModule, build_data
from mindtrace.progress import EpochReport, Progress
from mindtrace.registry.reproduce import Reproduction, reproduce
from mindtrace.service.train import train
from mindtrace.training import export


@pytest.fixture
def settings(tmp_path: Path, root: Path) -> Settings:
    rng = np.random.default_rng(9)
    for number in range(60):
        path = tmp_path / "pets" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 6), np.uint8)).save(path)
    sets = ["data.source=folder", f"data.dir={tmp_path / 'pets'}", "train.max_epochs=3"]
    sets += ["model.name=mlp", "model.weights=none", "data.num_val=6"]
    return load_settings(sets=[*sets, "compute.threads=1", "compute.device=cpu"])


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """As the release before did it; the result goes back to today's."""
    written = export.contents

    def contents(*arguments: Any) -> Any:
        found = written(*arguments)
        del found.data["split_rule"]  # type: ignore[attr-defined]
        return found

    monkeypatch.setattr(ImageDataModule, "split_rule", "count")
    monkeypatch.setattr(export, "contents", contents)
    return monkeypatch.undo


class PowerCutError(Exception):
    pass


class CutAt(Progress):
    """Ends the training at an epoch."""

    def __init__(self, epoch: int) -> None:
        self.last = epoch

    def epoch(self, report: EpochReport) -> None:
        if report.epoch == self.last:
            raise PowerCutError


def deviations(found: Reproduction) -> list[str]:
    """But for changes of the code that nobody has committed."""
    return [one.what for one in found.differences if one.what != "git_dirty"]


@pytest.mark.slow
def test_it_is_reproduced_to_the_bit(settings: Settings, before: Callable[[], None]) -> None:
    first = train(settings)
    before()
    found = reproduce(settings, "pets/1")
    assert (found.verdict, deviations(found)) == ("EXACT", [])
    assert found.metrics == first.metrics


@pytest.mark.slow
def test_it_is_resumed(settings: Settings, root: Path, before: Callable[[], None]) -> None:
    expected = build_data(settings).digests()
    whole = train(settings, register=False)
    with pytest.raises(PowerCutError):
        train(settings, progress=CutAt(3))
    before()
    (path,) = (root / "checkpoints").rglob("training.json")
    fields = json.loads(path.read_text())
    assert fields.pop("split_rule") == "count"
    path.write_text(json.dumps(fields))
    outcome = train(settings, resume="last", register=False)
    assert outcome.test_digest == expected.test_digest
    assert outcome.metrics == whole.metrics


@pytest.mark.slow
def test_a_version_is_reproduced_in_its_own_size(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever size today's rule finds for images of mixed sizes."""
    settings = settings.replace(**{"data.num_val": 0.1})
    with monkeypatch.context() as patched:
        patched.setattr("mindtrace.data.folder._common_size", lambda *_: (8, 8, ""))
        train(settings)
    found = reproduce(settings, "pets/1")
    assert (found.verdict, deviations(found)) == ("EXACT", [])
