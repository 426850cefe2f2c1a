"""A real bundle, its predictor, and the PyTorch network that it came from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mindtrace.bundle.predictor import Predictor
from mindtrace.data import Digits
from mindtrace.models.build import build_network


@pytest.fixture(scope="session")
def bundle(trained_bundle: Path) -> Path:
    """What a real training registered; not to be changed."""
    return trained_bundle


@pytest.fixture(scope="session")
def predictor(bundle: Path) -> Predictor:
    return Predictor.open(bundle)


@pytest.fixture(scope="session")
def network(bundle: Path, predictor: Predictor) -> nn.Module:
    """The same weights in PyTorch."""
    network = build_network(predictor.card.architecture, predictor.card.arguments)
    network.load_state_dict(load_file(bundle / "model.safetensors"))
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
