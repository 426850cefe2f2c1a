"""A bundle is read whole and right, or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mindtrace.bundle import manifest
from mindtrace.bundle.bundle import read_bundle, weights_digest
from mindtrace.bundle.predictions import TestPredictions
from mindtrace.config.settings import load_settings
from mindtrace.errors import BundleError
from mindtrace.preprocess import image_digest, open_pixels

FILES = {
    "model.safetensors",
    "model.onnx",
    "model.json",
    "golden.json",
    "predictions.npz",
    "config.ini",
    "data.json",
    "MLmodel",
}


def test_a_bundle_has_the_files_of_the_contract_and_no_pickle(bundle: Path) -> None:
    names = {path.name for path in bundle.iterdir()}

    assert names >= FILES | {"manifest.json"}
    assert not [name for name in names if name.endswith((".pkl", ".pt", ".pth", ".ckpt"))]
    assert not manifest.orphans(bundle)


def test_a_bundle_says_what_it_is(bundle: Path) -> None:
    digest = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    found = read_bundle(bundle, digest)

    assert found.model_config.architecture == "mlp"
    assert found.model_config.arguments == {"dim": [64, 100, 10], "dropout": 0.2}
    assert found.model_config.class_names == tuple("0123456789")
    assert (
        found.model_config.spec.mode,
        found.model_config.spec.height,
        found.model_config.spec.width,
    ) == ("L", 8, 8)
    assert len(found.golden) == 16
    assert found.digest == digest


def test_its_configuration_has_no_auto_left_and_reads_back(bundle: Path) -> None:
    text = (bundle / "config.ini").read_text()
    settings = load_settings(text=text)

    assert "auto" not in text
    assert settings.data.source == "digits"
    assert settings.train.max_epochs == 3
    assert settings.compute.threads is not None


def test_its_ledger_is_about_the_images_of_its_data_digest(bundle: Path) -> None:
    ledger = TestPredictions.parse((bundle / "predictions.npz").read_bytes())
    data = json.loads((bundle / "data.json").read_text())

    assert data["source"] == "digits"
    assert len(ledger.labels) == data["counts"]["test"] == 359
    assert ledger.probabilities.dtype == np.float32
    np.testing.assert_allclose(ledger.probabilities.sum(1), 1, atol=1e-5)


def test_golden_images_are_the_first_of_the_ledger(bundle: Path) -> None:
    ledger = TestPredictions.parse((bundle / "predictions.npz").read_bytes())

    for position, case in enumerate(read_bundle(bundle).golden):
        pixels = np.asarray(open_pixels(case.image, "L"))
        assert image_digest(pixels) == ledger.digests[position].tobytes()
        np.testing.assert_array_equal(case.probabilities, ledger.probabilities[position])


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_file_is_missed_and_every_flipped_bit_seen(bundle: Path, name: str) -> None:
    content = (bundle / name).read_bytes()
    middle = len(content) // 2
    for damage in (
        content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        content[:middle],
        content + b"\n",
        b"",
    ):
        (bundle / name).write_bytes(damage)
        with pytest.raises(BundleError) as caught:
            read_bundle(bundle)
        assert name in caught.value.reason

    (bundle / name).unlink()
    with pytest.raises(BundleError) as caught:
        read_bundle(bundle)
    assert caught.value.reason == f"{name} is missing"


@pytest.mark.parametrize("name", ["model.json", "model.onnx", "golden.json", "model.safetensors"])
def test_a_manifest_that_leaves_out_a_needed_file_is_refused(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    manifest.seal(bundle)

    with pytest.raises(BundleError) as caught:
        read_bundle(bundle)
    assert caught.value.reason == f"{name} is not in the manifest"


def test_a_newer_format_says_so_and_what_to_do(bundle: Path, forge: Callable[..., str]) -> None:
    forge(bundle, "model.json", lambda card: {**card, "format_version": 2, "new": "thing"})

    with pytest.raises(BundleError) as caught:
        read_bundle(bundle)
    assert "bundle format 2, this mindtrace reads 1: upgrade mindtrace" in caught.value.reason


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    for folder, reason in (
        (tmp_path / "no", "no such folder"),
        (tmp_path, "manifest.json is missing"),
    ):
        with pytest.raises(BundleError) as caught:
            read_bundle(folder)
        assert (caught.value.folder, caught.value.reason) == (folder, reason)


def test_the_weights_digest_is_of_names_types_shapes_and_bytes(bundle: Path) -> None:
    weights = load_file(bundle / "model.safetensors")
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


def test_a_scalar_and_a_list_of_one_are_different_weights() -> None:
    assert weights_digest({"n": np.array(3)}) != weights_digest({"n": np.array([3])})
