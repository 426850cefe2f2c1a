"""Bundles of a small and of a heavy network, and how hard to try."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.endurance.models import write_bundle


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The server needs the cores more than the test beside it."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def mlp_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """784-100-10, microseconds a request."""
    return write_bundle(tmp_path_factory.mktemp("mlp") / "bundle", "mlp")


@pytest.fixture(scope="session")
def heavy_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ResNet-18 at 224 x 224, more than 10 ms a request on one core."""
    return write_bundle(tmp_path_factory.mktemp("heavy") / "bundle", "resnet18")


@pytest.fixture(scope="session")
def strict(soak: int) -> bool:
    """Whether bounds of time are to be taken at their word: not beside other tests."""
    return soak > 1
