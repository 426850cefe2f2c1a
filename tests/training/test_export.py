"""What a training packs into a bundle has no torch left in it and is all true."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch

from mindtrace.bundle.bundle import Contents
from mindtrace.data.batches import to_pixels
from mindtrace.preprocess import image_digest, open_pixels
from mindtrace.training.export import contents, export_onnx
from mindtrace.training.fit import TrainResult

Fit = Callable[..., TrainResult]


@pytest.fixture
def result(fitted: Fit) -> TrainResult:
    return fitted("train.max_epochs=1")


@pytest.fixture
def packed(result: TrainResult) -> Contents:
    return contents(result.model, result.data, result.test, "[train]\n")


def test_weights_are_the_models_as_arrays(packed: Contents, result: TrainResult) -> None:
    state = result.model.network.state_dict()

    assert set(packed.weights) == set(state)
    for name, array in packed.weights.items():
        assert isinstance(array, np.ndarray)
        np.testing.assert_array_equal(array, state[name].numpy())


def test_golden_images_are_pngs_of_test_images_with_the_models_own_answers(
    packed: Contents, result: TrainResult
) -> None:
    test = result.data.split("test")

    assert len(packed.golden) == 16
    for position, case in enumerate(packed.golden):
        assert case.image.startswith(b"\x89PNG")
        found = np.asarray(open_pixels(case.image, "L"))
        np.testing.assert_array_equal(found, test.images[position, 0].numpy())
        np.testing.assert_array_equal(case.probabilities, result.test.probabilities[position])


def test_the_ledger_has_one_line_for_each_test_image(packed: Contents, result: TrainResult) -> None:
    test = result.data.split("test")

    assert packed.predictions.digests.shape == (len(test), 32)
    assert packed.predictions.digests[5].tobytes() == image_digest(test.images[5, 0].numpy())
    np.testing.assert_array_equal(packed.predictions.labels, test.labels.numpy())
    np.testing.assert_array_equal(packed.predictions.probabilities, result.test.probabilities)


def test_few_test_images_make_few_golden_ones(fitted: Fit) -> None:
    result = fitted("train.max_epochs=1", "data.test_fraction=0.003")

    packed = contents(result.model, result.data, result.test, "")

    assert (
        len(packed.golden) == len(packed.predictions.labels) == len(result.data.split("test")) < 16
    )


def test_data_says_what_the_images_were(packed: Contents, result: TrainResult) -> None:
    digests = result.data.digests()

    assert packed.data["source"] == "digits"
    assert packed.data["data_digest"] == digests.data_digest
    assert packed.data["test_digest"] == digests.test_digest
    assert packed.data["counts"] == {"train": 1294, "val": 144, "test": 359}


def test_the_graph_has_a_free_batch_and_no_data_outside_itself(packed: Contents) -> None:
    graph = onnx.load_from_string(packed.onnx)

    (images,) = graph.graph.input
    assert images.name == "images"
    first, *others = images.type.tensor_type.shape.dim
    assert first.dim_param and not first.dim_value
    assert [dim.dim_value for dim in others] == [1, 8, 8]
    assert [output.name for output in graph.graph.output] == ["logits", "probabilities"]
    assert not any(tensor.external_data for tensor in graph.graph.initializer)
    onnx.checker.check_model(graph)


def test_the_same_network_makes_the_same_graph(result: TrainResult, packed: Contents) -> None:
    assert export_onnx(result.model.network, result.model.model_config.spec) == packed.onnx


def test_pixels_turn_tensors_into_images() -> None:
    grey = torch.arange(12, dtype=torch.uint8).reshape(1, 1, 3, 4)
    colour = torch.arange(36, dtype=torch.uint8).reshape(1, 3, 3, 4)

    assert (to_pixels(grey)[0] == grey[0, 0].numpy()).all()
    assert to_pixels(colour).shape == (1, 3, 4, 3)
    assert to_pixels(colour)[0, 1, 2].tolist() == [6, 18, 30]


def test_exporting_prints_nothing(result: TrainResult, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()

    export_onnx(result.model.network, result.model.model_config.spec)

    assert capfd.readouterr() == ("", "")
