"""What a training packs into a bundle has no torch left in it and is all true."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from tests.training.conftest import Fit

from mindtrace.bundle.bundle import Contents
from mindtrace.preprocess import ImageSpec, image_digest, open_pixels
from mindtrace.training.export import contents, export_onnx
from mindtrace.training.fit import TrainResult


@pytest.fixture(scope="module")
def result(fitted: Fit) -> TrainResult:
    return fitted("train.max_epochs=1")


@pytest.fixture(scope="module")
def packed(result: TrainResult) -> Contents:
    return contents(result.model, result.data, result.test, "[train]\n")


def test_golden_images_and_predictions_are_the_models_own_answers(
    packed: Contents, result: TrainResult
) -> None:
    test, answers = result.data.split("test"), result.test.probabilities
    assert len(packed.golden) == 16
    for position, case in enumerate(packed.golden):
        assert case.image.startswith(b"\x89PNG")
        found = np.asarray(open_pixels(case.image, "L"))
        np.testing.assert_array_equal(found, test.images[position, 0].numpy())
        np.testing.assert_array_equal(case.probabilities, answers[position])
    assert packed.predictions.digests.shape == (len(test), 32)
    assert packed.predictions.digests[5].tobytes() == image_digest(test.images[5, 0].numpy())
    np.testing.assert_array_equal(packed.predictions.labels, test.labels.numpy())
    np.testing.assert_array_equal(packed.predictions.probabilities, answers)
    digests = result.data.digests()
    assert packed.data == {
        "source": "digits",
        "split_rule": "count",
        "data_digest": digests.data_digest,
        "test_digest": digests.test_digest,
        "counts": {"train": 1294, "val": 144, "test": 359},
    }


def test_few_test_images_make_few_golden_ones(fitted: Fit) -> None:
    few = fitted("train.max_epochs=1", "data.test_fraction=0.003")
    packed = contents(few.model, few.data, few.test, "")
    assert len(packed.golden) == len(packed.predictions.labels) == len(few.data.test) < 16


def test_the_graph_has_a_free_batch_and_no_data_outside_itself(
    packed: Contents, result: TrainResult, capfd: pytest.CaptureFixture[str]
) -> None:
    graph = onnx.load_from_string(packed.onnx)
    (images,) = graph.graph.input
    assert images.name == "images"
    first, *others = images.type.tensor_type.shape.dim
    assert first.dim_param and not first.dim_value
    assert [dim.dim_value for dim in others] == [1, 8, 8]
    names = [output.name for output in graph.graph.output]
    assert names == ["logits", "probabilities", "features"]
    assert not any(tensor.external_data for tensor in graph.graph.initializer)
    onnx.checker.check_model(graph)
    capfd.readouterr()
    again = export_onnx(result.model.network, result.model.model_config.spec)
    assert capfd.readouterr() == ("", "")
    assert again == packed.onnx, "the same network makes the same graph"


def _messages(message: Any) -> Any:
    """A message of a graph, and every one within it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else (value,):
                yield from _messages(part)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(ImageSpec("L", 8, 8, (0.3053,), (0.3759,)), id="grey"),
        pytest.param(
            ImageSpec("RGB", 8, 12, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1), "crop", 10), id="crop"
        ),
        pytest.param(ImageSpec("RGB", 1, 1, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), id="one pixel"),
    ],
)
def test_the_graph_says_what_it_takes_and_nothing_of_who_made_it(spec: ImageSpec) -> None:
    size = spec.channels * spec.height * spec.width
    network = torch.nn.Sequential(
        torch.nn.Conv2d(spec.channels, 2, 3, padding=1),
        torch.nn.BatchNorm2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(2 * size // spec.channels, 3),
    )
    model = onnx.load_from_string(export_onnx(network, spec))
    said = {row.key: json.loads(row.value) for row in model.metadata_props}
    assert said == {
        f"input.{name}": list(value) if isinstance(value, tuple) else value
        for name, value in spec.document().items()
    }
    assert (said["input.scale"], said["input.mode"]) == ([0.0, 1.0], spec.mode)
    assert said["input.mean"] == list(spec.mean)
    assert said["input.formula"] == "(pixel / 255 - mean) / std"
    del model.metadata_props[:]
    for message in _messages(model):
        assert not getattr(message, "doc_string", "") and not getattr(message, "metadata_props", ())
    assert not model.producer_version
    assert b".py" not in model.SerializeToString()


@pytest.mark.proof
def test_the_same_training_elsewhere_makes_the_same_bundle(tmp_path: Path, soak: int) -> None:
    """Two copies of the package, in folders of other names, each in its own working directory."""
    import mindtrace

    found = set()
    networks = ("cnn", "mlp")[:soak]
    for place, network in itertools.product(("a", "elsewhere/long name"), networks):
        folder = tmp_path / network / place
        shutil.copytree(Path(mindtrace.__file__).parent, folder / "lib" / "mindtrace")
        words = ["train", "--source", "digits", "--max-epochs", "1", "--model", network, "--json"]
        changes = {"PYTHONPATH": str(folder / "lib"), "DIR_PATHS__ROOT": str(folder / "root")}
        done = subprocess.run(
            [sys.executable, "-m", "mindtrace", *words, "--set", "compute.threads=1"],
            env={**os.environ, **changes, "PYTHONHASHSEED": str(len(str(folder)))},
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        document = json.loads(done.stdout)
        (graph,) = (folder / "root").rglob("model.onnx")
        assert str(tmp_path).encode() not in graph.read_bytes()
        found.add((network, document["weights_digest"], document["bundle_digest"]))
    assert len(found) == len(networks)
