"""A bundle as a whole: written from plain arrays and texts, read back checked.

In (`write`): what a training left behind, as NumPy arrays and strings. Out (`read`):
a `Bundle` whose every byte was compared with the manifest.
"""

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

from mindtrace.bundle import golden, manifest
from mindtrace.bundle.card import CardError, ModelCard
from mindtrace.bundle.golden import GoldenCase
from mindtrace.bundle.ledger import Ledger
from mindtrace.errors import BundleError

WEIGHTS = "model.safetensors"
ONNX = "model.onnx"
CARD = "model.json"
GOLDEN = "golden.json"
LEDGER = "predictions.npz"
CONFIG = "config.ini"
DATA = "data.json"


@dataclass(frozen=True)
class Contents:
    """What a training has to say of its best weights.

    Attributes:
        card: architecture, input, classes.
        weights: the tensors by name, float32 or integer.
        onnx: the same network as a serialised ONNX graph.
        golden: test images and answers.
        ledger: answers to the whole test set.
        config: the configuration as INI text, every `auto` resolved.
        data: digests and counts of the images.
    """

    card: ModelCard
    weights: Mapping[str, NDArray[Any]]
    onnx: bytes
    golden: Sequence[GoldenCase]
    ledger: Ledger
    config: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Bundle:
    """A checked bundle, with what is needed to predict."""

    folder: Path
    digest: str
    card: ModelCard
    onnx: bytes
    golden: tuple[GoldenCase, ...]


def write(folder: Path, contents: Contents) -> None:
    """Write all files into an existing folder; `manifest.seal` comes after."""
    from safetensors.numpy import save

    (folder / WEIGHTS).write_bytes(save(dict(contents.weights)))
    (folder / ONNX).write_bytes(contents.onnx)
    (folder / CARD).write_text(contents.card.to_json(), encoding="utf-8")
    (folder / GOLDEN).write_text(golden.to_json(contents.golden), encoding="utf-8")
    contents.ledger.write(folder / LEDGER)
    (folder / CONFIG).write_text(contents.config, encoding="utf-8")
    (folder / DATA).write_text(json.dumps(contents.data, indent=2) + "\n", encoding="utf-8")


def read(folder: Path, expected_digest: str | None = None) -> Bundle:
    """Read a bundle, every byte checked.

    Raises:
        BundleError: see `manifest.check`; also a file that does not say what it should.
    """
    if not folder.is_dir():
        raise BundleError(folder, "no such folder")
    files = manifest.check(folder, expected_digest)
    missing = {CARD, ONNX, GOLDEN, WEIGHTS} - set(files)
    if missing:
        raise BundleError(folder, f"{', '.join(sorted(missing))} is not in the manifest")
    try:
        card = ModelCard.from_json(files[CARD].decode())
        cases = golden.from_json(files[GOLDEN].decode())
    except (CardError, ValueError) as error:
        raise BundleError(folder, str(error)) from error
    digest = hashlib.sha256(files[manifest.MANIFEST]).hexdigest()
    return Bundle(folder, digest, card, files[ONNX], cases)


def weights_digest(weights: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over name, type, shape and bytes of each tensor, in order of names.

    Returns:
        64 hexadecimal digits; equal exactly when all tensors are.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = np.asarray(weights[name])
        digest.update(f"{name}\0{tensor.dtype.str}\0".encode())
        digest.update(struct.pack(f"<{tensor.ndim}q", *tensor.shape))
        digest.update(tensor.tobytes())
    return digest.hexdigest()
