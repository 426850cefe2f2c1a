"""What ONNX Runtime answers is what the trained PyTorch network answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.models.conftest import TESTED

from mindtrace.bundle import manifest
from mindtrace.bundle.bundle import write_contents
from mindtrace.bundle.predictor import Predictor
from mindtrace.config.settings import load_settings
from mindtrace.data import Digits, build_data
from mindtrace.data.batches import to_pixels
from mindtrace.models import input_requirements
from mindtrace.preprocess import encode_png
from mindtrace.training.export import contents
from mindtrace.training.fit import fit, resolve_compute

TOLERANCE = 1e-4


def test_every_test_digit_as_a_png_gets_pytorchs_answer(
    predictor: Predictor, digits: Digits, expected: torch.Tensor
) -> None:
    test = digits.split("test")
    found = np.stack([predictor.predict(encode_png(pixels)) for pixels in to_pixels(test.images)])
    assert len(found) == 359
    assert found.dtype == np.float32
    assert np.abs(found - expected.numpy()).max() <= TOLERANCE
    assert (found.argmax(1) == expected.argmax(1).numpy()).all()
    assert (found.argmax(1) == test.labels.numpy()).mean() > 0.85


def test_neither_batch_nor_threads_change_the_answer(
    trained_bundle: Path, predictor: Predictor, digits: Digits
) -> None:
    batch = digits.split("test").images[:65, 0].numpy()
    together = predictor.run(batch)
    alone = np.concatenate([predictor.run(one[None]) for one in batch])
    assert together.shape == (65, 10)
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(together.sum(1), 1, atol=1e-5)
    threads = Predictor.open(trained_bundle, threads=2).run(batch)
    np.testing.assert_allclose(together, threads, atol=1e-6)


@pytest.mark.slow
@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("name", "sets"),
    [
        ("cnn", []),
        pytest.param("cnn", ["data.image_size=13"], marks=pytest.mark.proof),
        *(pytest.param(name, [], marks=pytest.mark.proof) for name in TESTED),
    ],
)
def test_every_kind_of_network_trains_and_is_exported_as_it_is(
    tmp_path: Path, name: str, sets: list[str]
) -> None:
    own = [f"model.name={name}", "train.max_epochs=1", "compute.threads=1", *sets]
    settings = resolve_compute(load_settings(sets=["data.source=digits", *own]))
    data = build_data(settings, input_requirements(settings.model))
    result = fit(settings, data)
    test = result.test
    write_contents(tmp_path, contents(result.model, data, test, settings.to_ini()))
    digest = manifest.seal(tmp_path)

    predictor = Predictor.open(tmp_path, digest)

    images = to_pixels(data.split("test").images[:100])
    found = np.stack([predictor.predict(encode_png(pixels)) for pixels in images])
    assert np.abs(found - test.probabilities[:100]).max() <= TOLERANCE
    assert (found.argmax(1) == test.probabilities[:100].argmax(1)).all()
    assert found.std(0).max() > 1e-3, "an answer that depends on nothing proves nothing"
