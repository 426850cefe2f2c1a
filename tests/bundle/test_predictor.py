"""A bundle that is damaged, or says what is not so, is refused before it answers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings as examples, strategies as st

from mindtrace.bundle import manifest
from mindtrace.bundle.predictor import Predictor
from mindtrace.errors import BundleError


def refused(folder: Path, digest: str | None = None) -> str:
    with pytest.raises(BundleError) as caught:
        Predictor.open(folder, digest)
    assert caught.value.folder == folder
    assert "\n" not in caught.value.message
    return caught.value.reason


@pytest.mark.parametrize(
    ("fields", "input", "says"),
    [
        ({"class_names": ["a", "b"]}, {}, ["[10]", "[2]"]),
        ({}, {"height": 28, "width": 28}, ["[1, 8, 8]", "[1, 28, 28]"]),
        ({}, {"mean": [0.5]}, ["golden images"]),
        ({}, {"std": [0.9]}, ["golden images"]),
    ],
    ids=["classes", "size", "mean", "std"],
)
def test_another_model_json_is_refused(
    bundle: Path, forge: Any, fields: dict[str, Any], input: dict[str, Any], says: list[str]
) -> None:
    forge(bundle, "model.json", lambda old: {**old, **fields, "input": {**old["input"], **input}})
    reason = refused(bundle)
    assert all(text in reason for text in says)


def test_other_golden_answers_are_refused_and_rounding_is_not(bundle: Path, forge: Any) -> None:
    def change(by: float) -> Callable[[Any], Any]:
        def changed(parsed: Any) -> Any:
            parsed["cases"][7]["probabilities"][3] += by
            return parsed

        return changed

    forge(bundle, "golden.json", change(5e-5))
    assert Predictor.open(bundle)
    forge(bundle, "golden.json", change(1.5e-4))
    reason = refused(bundle)
    assert "0.0002" in reason and "1e-04" in reason
    forge(bundle, "golden.json", change(float("nan")))
    assert "inf" in refused(bundle)


def test_a_golden_image_that_is_none_is_a_bundle_error(bundle: Path, forge: Any) -> None:
    def change(parsed: Any) -> Any:
        parsed["cases"][0]["image"] = "bm8gaW1hZ2U="
        return parsed

    forge(bundle, "golden.json", change)
    assert "golden image" in refused(bundle)


def test_a_graph_with_other_names_is_refused(bundle: Path) -> None:
    graph = onnx.load(bundle / "model.onnx")
    for node in graph.graph.node:
        node.output[:] = ["answers" if name == "probabilities" else name for name in node.output]
    next(one for one in graph.graph.output if one.name == "probabilities").name = "answers"
    onnx.save(graph, bundle / "model.onnx")
    manifest.seal(bundle)
    assert "None" in refused(bundle)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"pickle", b"\x08\x07"])
def test_a_graph_that_is_none_is_refused(bundle: Path, content: bytes) -> None:
    (bundle / "model.onnx").write_bytes(content)
    manifest.seal(bundle)
    assert "model.onnx" in refused(bundle)


def test_files_of_two_bundles_do_not_mix(bundle: Path, forge: Any, trained_bundle: Path) -> None:
    forge(bundle, "data.json", lambda data: {**data, "source": "elsewhere"})
    shutil.copy(trained_bundle / "data.json", bundle / "data.json")
    assert "data.json" in refused(bundle)
    assert "the registry says" in refused(trained_bundle, "0" * 64)


@pytest.fixture(scope="module")
def rotting(trained_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(trained_bundle, tmp_path_factory.mktemp("rotting") / "bundle")


@pytest.mark.proof
@pytest.mark.parametrize("name", ["model.onnx", "golden.json", "model.json"])
@examples(max_examples=30)
@given(st.integers(0, 100_000), st.integers(1, 255))
def test_rot_before_the_sealing_is_refused_or_harmless(
    rotting: Path, predictor: Predictor, name: str, at: int, change: int
) -> None:
    """The digest vouches for the rotten byte: only the golden images can see it."""
    whole = (rotting / name).read_bytes()
    damaged = bytearray(whole)
    damaged[at % len(whole)] ^= change
    (rotting / name).write_bytes(damaged)
    manifest.seal(rotting)
    try:
        found = Predictor.open(rotting)
    except BundleError as error:
        assert "\n" not in error.message
    else:
        images = np.stack([np.full((8, 8), level, np.uint8) for level in (0, 100, 255)])
        assert np.isfinite(found.run(images)).all()
    finally:
        (rotting / name).write_bytes(whole)
