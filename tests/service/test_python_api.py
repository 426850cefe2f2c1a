"""`mindtrace.train`, `mindtrace.load(...).predict` and the other names of the package."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.application.conftest import png

import mindtrace
from mindtrace import LoadedModel, Prediction

LEVELS = (10, 128, 250)


@pytest.fixture(scope="module")
def model(bundle: Path) -> LoadedModel:
    return mindtrace.load(str(bundle))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for level in LEVELS:
        (tmp_path / f"{level:03}.png").write_bytes(png(level))
    return tmp_path


def _array(level: int) -> Any:
    return np.full((8, 8), level, np.uint8)


# Each makes of a file and the level of its pixels what `predict` is given.
FORMS: dict[str, Callable[[Path, int], Any]] = {
    "path": lambda path, _: path,
    "text": lambda path, _: str(path),
    "bytes": lambda path, _: path.read_bytes(),
    "PIL image": lambda path, _: Image.open(path),
    "colour image": lambda path, _: Image.open(path).convert("RGB"),
    "array": lambda _, level: _array(level),
    "colour array": lambda _, level: np.repeat(_array(level)[..., None], 3, 2),
    "larger array": lambda _, level: np.full((40, 40), level, np.uint8),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_image_has_the_same_answer(
    model: LoadedModel, folder: Path, form: str
) -> None:
    images = [FORMS[form](folder / f"{level:03}.png", level) for level in LEVELS]
    expected = [model.predictor.predict(png(level)) for level in LEVELS]

    alone, together = [model.predict(image) for image in images], model.predict(images)

    for found in (alone, together):
        assert all(isinstance(one, Prediction) for one in found)
        rows = [one.probabilities for one in found]
        np.testing.assert_allclose(rows, expected, atol=1e-6)
        assert [one.label for one in found] == [row.argmax() for row in expected]
        assert [one.class_name for one in found] == [model.class_names[one.label] for one in found]
        assert [one.confidence for one in found] == [max(row) for row in rows]


def test_a_folder_is_all_its_images_in_order(model: LoadedModel, folder: Path) -> None:
    paths = [str(folder / f"{level:03}.png") for level in LEVELS]

    for given in (folder, str(folder), [folder]):
        assert [one.path for one in model.predict(given)] == paths
    assert model.predict([]) == []


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        (np.zeros((8, 8)), TypeError, "an array of float64: wants uint8"),
        (np.zeros((5, 8, 8, 3), np.uint8), TypeError, r"shape \(5, 8, 8, 3\).*of several a list"),
        (b"no image", mindtrace.MindtraceError, "image 0: not an image"),
        ([png(9), b"no image"], mindtrace.MindtraceError, "image 1: not an image"),
        ("missing.png", mindtrace.MindtraceError, "missing.png: cannot be read"),
        ("-", mindtrace.MindtraceError, "-: cannot be read"),
    ],
)
def test_what_is_no_image_is_named(
    model: LoadedModel, given: Any, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        model.predict(given)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*type hint is inferred")  # of MLflow's own classes
def test_a_training_from_python_is_that_of_the_command(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "mindtrace"):
        outcome = mindtrace.train(source="digits", max_epochs=2, lr=0.01, hidden=20)

    assert (outcome.model_name, outcome.version, outcome.champion) == ("digits", 1, True)
    assert outcome.metrics["test_acc"] > 0.5
    assert "network mlp" in caplog.text and "epoch 2/2  train_loss" in caplog.text
    shown = mindtrace.Registry().show("digits/1").params
    assert (shown["train.lr"], shown["model.hidden"]) == ("0.01", "20")
    settings = mindtrace.load_settings(sets=["data.source=digits", "train.max_epochs=1"])
    assert isinstance(settings, mindtrace.Settings)
    assert mindtrace.train(settings=settings, register=False).version is None


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"epochs": 3}, TypeError, "no option 'epochs'"),
        ({"max_epochs": -3}, mindtrace.MindtraceError, "max_epochs = -3: must be 1 or more"),
        ({"path": "nowhere"}, mindtrace.MindtraceError, "nowhere"),
    ],
)
def test_an_option_that_does_not_fit_is_named(
    root: Path, options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        mindtrace.train(**options)
    assert list(root.iterdir()) == []
