"""A bundle that is damaged, or says what is not so, is refused before it answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from mindtrace.bundle import manifest
from mindtrace.bundle.predictor import Predictor
from mindtrace.errors import BundleError


@pytest.fixture
def forged(trained_bundle: Path, tmp_path: Path) -> Callable[..., Path]:
    """`forged("model.json", change)`: a bundle whose file says something else, sealed anew."""

    def forge(name: str, change: Callable[[Any], Any]) -> Path:
        folder = shutil.copytree(trained_bundle, tmp_path / "forged")
        parsed = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(change(parsed)))
        manifest.seal(folder)
        return folder

    return forge


def refused(folder: Path, digest: str | None = None) -> str:
    with pytest.raises(BundleError) as caught:
        Predictor.open(folder, digest)
    assert caught.value.folder == folder
    assert "\n" not in caught.value.message
    return caught.value.reason


def test_a_predictor_knows_whose_answers_it_gives(
    predictor: Predictor, trained_bundle: Path
) -> None:
    assert manifest.check(trained_bundle, predictor.digest)
    assert predictor.model_config.class_names == tuple("0123456789")


def test_another_number_of_classes_is_refused_with_both_numbers(
    forged: Callable[..., Path],
) -> None:
    folder = forged("model.json", lambda card: {**card, "class_names": ["a", "b"]})

    reason = refused(folder)

    assert "[10]" in reason
    assert "[2]" in reason


def test_another_input_size_is_refused_with_both_sizes(forged: Callable[..., Path]) -> None:
    folder = forged(
        "model.json", lambda card: {**card, "input": {**card["input"], "height": 28, "width": 28}}
    )

    reason = refused(folder)

    assert "[1, 8, 8]" in reason
    assert "[1, 28, 28]" in reason


@pytest.mark.parametrize("change", [{"mean": [0.5]}, {"std": [0.9]}])
def test_another_preprocessing_is_seen_by_the_golden_images(
    forged: Callable[..., Path], change: dict[str, Any]
) -> None:
    folder = forged("model.json", lambda card: {**card, "input": {**card["input"], **change}})

    assert "golden images" in refused(folder)


def test_other_answers_are_seen_and_rounding_is_not(forged: Callable[..., Path]) -> None:
    def shifted(by: float) -> Callable[[Any], Any]:
        def change(parsed: Any) -> Any:
            parsed["cases"][7]["probabilities"][3] += by
            return parsed

        return change

    folder = forged("golden.json", shifted(5e-5))
    assert Predictor.open(folder)
    shutil.rmtree(folder)

    reason = refused(forged("golden.json", shifted(2e-4)))
    assert "0.0002" in reason
    assert "1e-04" in reason


def test_a_golden_image_that_is_none_is_a_bundle_error(forged: Callable[..., Path]) -> None:
    def change(parsed: Any) -> Any:
        parsed["cases"][0]["image"] = "bm8gaW1hZ2U="
        return parsed

    assert "golden image" in refused(forged("golden.json", change))


def test_golden_answers_that_are_no_numbers_are_refused(forged: Callable[..., Path]) -> None:
    def change(parsed: Any) -> Any:
        for case in parsed["cases"]:
            case["probabilities"] = [float("nan")] * 10
        return parsed

    assert "inf" in refused(forged("golden.json", change))


def test_a_graph_with_other_names_is_refused(trained_bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained_bundle, tmp_path / "renamed")
    graph = onnx.load(folder / "model.onnx")
    for node in graph.graph.node:
        node.output[:] = ["answers" if name == "probabilities" else name for name in node.output]
    graph.graph.output[-1].name = "answers"
    onnx.save(graph, folder / "model.onnx")
    manifest.seal(folder)

    assert "None" in refused(folder)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"pickle", b"\x08\x07"])
def test_a_graph_that_is_none_is_refused(
    trained_bundle: Path, tmp_path: Path, content: bytes
) -> None:
    folder = shutil.copytree(trained_bundle, tmp_path / "empty")
    (folder / "model.onnx").write_bytes(content)
    manifest.seal(folder)

    assert "model.onnx" in refused(folder)


def test_files_of_two_bundles_do_not_mix(forged: Callable[..., Path], trained_bundle: Path) -> None:
    other = forged("data.json", lambda data: {**data, "source": "elsewhere"})
    shutil.copy(trained_bundle / "data.json", other / "data.json")

    assert "data.json" in refused(other)
    assert "the registry says" in refused(trained_bundle, "0" * 64)


@pytest.fixture(scope="module")
def rotting(trained_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(trained_bundle, tmp_path_factory.mktemp("rotting") / "bundle")


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
