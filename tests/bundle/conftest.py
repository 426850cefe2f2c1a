"""A real bundle, its predictor, and the PyTorch network that it came from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mindtrace.bundle import manifest
from mindtrace.bundle.predictor import Predictor
from mindtrace.data import Digits
from mindtrace.models.networks import build_network

Change = Callable[[Path, str, Callable[[Any], Any]], str]


@pytest.fixture
def bundle(trained_bundle: Path, tmp_path: Path) -> Path:
    """A copy of what a real training registered."""
    return shutil.copytree(trained_bundle, tmp_path / "bundle")


@pytest.fixture
def forge() -> Change:
    """`forge(bundle, "model.json", change)`: rewrite a JSON file and seal the folder anew.

    What is left to find is what the file says, for its digest is right again.
    """

    def forge(folder: Path, name: str, change: Callable[[Any], Any]) -> str:
        parsed = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(change(parsed)), encoding="utf-8")
        return manifest.seal(folder)

    return forge


@pytest.fixture(scope="session")
def predictor(trained_bundle: Path) -> Predictor:
    return Predictor.open(trained_bundle)


@pytest.fixture(scope="session")
def network(trained_bundle: Path, predictor: Predictor) -> nn.Module:
    """The same weights in PyTorch."""
    network = build_network(predictor.model_config.architecture, predictor.model_config.arguments)
    network.load_state_dict(load_file(trained_bundle / "model.safetensors"))
    return network.eval()


@pytest.fixture(scope="session")
def digits() -> Digits:
    data = Digits()
    data.setup()
    return data


@pytest.fixture(scope="session")
def expected(network: nn.Module, digits: Digits) -> torch.Tensor:
    """PyTorch's probabilities of the test images: float32, (359, 10)."""
    with torch.inference_mode():
        return network(digits.normalise(digits.split("test").images)).softmax(1)
