"""A bundle as a whole: written from arrays and texts, read back with every byte checked."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mindtrace.bundle import manifest
from mindtrace.bundle.model_config import ModelConfig
from mindtrace.bundle.predictions import (
    GoldenCase,
    TestPredictions,
    golden_from_json,
    golden_to_json,
)
from mindtrace.errors import BundleError

WEIGHTS_FILE = "model.safetensors"
ONNX_FILE = "model.onnx"
MODEL_FILE = "model.json"
GOLDEN_FILE = "golden.json"
PREDICTIONS_FILE = "predictions.npz"
CONFIG_FILE = "config.ini"
DATA_FILE = "data.json"
# By which images were split where a bundle or a checkpoint names no rule.
EARLIER_RULE = "count"


@dataclass(frozen=True)
class Contents:
    """What a training puts into a bundle; `config` is INI text, `data` the images' digests."""

    model_config: ModelConfig
    weights: Mapping[str, NDArray[Any]]
    onnx: bytes
    golden: Sequence[GoldenCase]
    predictions: TestPredictions
    config: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Bundle:
    """A checked bundle, with what is needed to predict."""

    folder: Path
    digest: str
    model_config: ModelConfig
    onnx: bytes
    golden: tuple[GoldenCase, ...]


def write_contents(folder: Path, contents: Contents) -> None:
    """Write all files into an existing folder; `manifest.seal` comes after."""
    from safetensors.numpy import save

    (folder / WEIGHTS_FILE).write_bytes(save(dict(contents.weights)))
    (folder / ONNX_FILE).write_bytes(contents.onnx)
    (folder / MODEL_FILE).write_text(contents.model_config.to_json(), encoding="utf-8")
    (folder / GOLDEN_FILE).write_text(golden_to_json(contents.golden), encoding="utf-8")
    contents.predictions.write(folder / PREDICTIONS_FILE)
    (folder / CONFIG_FILE).write_text(contents.config, encoding="utf-8")
    (folder / DATA_FILE).write_text(json.dumps(contents.data, indent=2) + "\n", encoding="utf-8")


def read_bundle(folder: Path, expected_digest: str | None = None) -> Bundle:
    """Read a bundle; BundleError where a file is missing, damaged or of a newer format."""
    if not folder.is_dir():
        raise BundleError(folder, "no such folder")
    files = manifest.check(folder, expected_digest)
    missing = {MODEL_FILE, ONNX_FILE, GOLDEN_FILE, WEIGHTS_FILE} - set(files)
    if missing:
        raise BundleError(folder, f"{', '.join(sorted(missing))} is not in the manifest")
    try:
        model_config = ModelConfig.from_json(files[MODEL_FILE].decode())
        cases = golden_from_json(files[GOLDEN_FILE].decode())
    except ValueError as error:
        raise BundleError(folder, str(error)) from error
    digest = hashlib.sha256(files[manifest.MANIFEST]).hexdigest()
    return Bundle(folder, digest, model_config, files[ONNX_FILE], cases)


def read_data(folder: Path) -> dict[str, Any]:
    """`data.json`: where the images are from, how they were split, their digests."""
    return {"split_rule": EARLIER_RULE, **json.loads((folder / DATA_FILE).read_bytes())}


def weights_digest(weights: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256, hexadecimal, over name, type, shape and bytes of each tensor, ordered by name."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = np.asarray(weights[name])
        digest.update(f"{name}\0{tensor.dtype.str}\0".encode())
        digest.update(struct.pack(f"<{tensor.ndim}q", *tensor.shape))
        digest.update(tensor.tobytes())
    return digest.hexdigest()
