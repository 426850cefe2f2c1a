"""A bundle is read whole and right, or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mindtrace.bundle import manifest
from mindtrace.bundle.bundle import read_bundle, weights_digest
from mindtrace.config.settings import load_settings
from mindtrace.errors import BundleError

NEEDED = ["golden.json", "model.json", "model.onnx", "model.safetensors"]
FILES = [*NEEDED, "MLmodel", "config.ini", "data.json", "predictions.npz"]


def reason(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        read_bundle(folder)
    assert caught.value.folder == folder
    return caught.value.reason


def test_a_bundle_says_what_it_is(trained_bundle: Path) -> None:
    names = {path.name for path in trained_bundle.iterdir()}
    assert names >= {*FILES, "manifest.json"}
    assert not [name for name in names if name.endswith((".pkl", ".pt", ".pth", ".ckpt"))]
    assert not manifest.orphans(trained_bundle)
    digest = hashlib.sha256((trained_bundle / "manifest.json").read_bytes()).hexdigest()
    found = read_bundle(trained_bundle, digest)
    assert found.digest == digest
    config, spec = found.model_config, found.model_config.spec
    assert config.architecture == "mlp"
    assert config.arguments == {"dim": [64, 100, 10], "dropout": 0.2}
    assert config.class_names == tuple("0123456789")
    assert (spec.mode, spec.height, spec.width) == ("L", 8, 8)
    text = (trained_bundle / "config.ini").read_text()
    settings = load_settings(text=text)
    assert (settings.data.source, settings.train.max_epochs) == ("digits", 3)
    assert "auto" not in text


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_missed(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    assert reason(bundle) == f"{name} is missing"
    manifest.seal(bundle)
    if name in NEEDED:
        assert reason(bundle) == f"{name} is not in the manifest"


def test_a_newer_format_says_so_and_what_to_do(bundle: Path, forge: Callable[..., str]) -> None:
    forge(bundle, "model.json", lambda card: {**card, "format_version": 3, "new": "thing"})
    assert "bundle format 3, this mindtrace reads 2: upgrade mindtrace" in reason(bundle)


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    assert reason(tmp_path / "no") == "no such folder"
    assert reason(tmp_path) == "manifest.json is missing"


def test_the_weights_digest_is_of_names_types_shapes_and_bytes(trained_bundle: Path) -> None:
    weights = load_file(trained_bundle / "model.safetensors")
    digest = weights_digest(weights)
    first = sorted(weights)[0]
    tensor = weights[first]
    assert weights_digest(dict(reversed(weights.items()))) == digest
    assert weights_digest({**weights, first: np.asfortranarray(tensor)}) == digest
    for other in (
        {**weights, first: tensor.reshape(-1, 1)},
        {**weights, first: tensor.view(np.int32)},
        {**weights, first: np.nextafter(tensor, np.float32(9))},
        {**weights, "more": tensor},
        {name + "_": one for name, one in weights.items()},
    ):
        assert weights_digest(other) != digest
    assert weights_digest({"n": np.array(3)}) != weights_digest({"n": np.array([3])})
