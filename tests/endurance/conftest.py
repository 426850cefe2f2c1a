"""Bundles of a small and of a heavy network, a server of two workers, and how hard to try."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.endurance.models import write_bundle
from tests.endurance.servers import Server, serving


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


@pytest.fixture(scope="module")
def server(mlp_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers with the small network."""
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, "--model", str(mlp_bundle), workers=2) as server:
        yield server


@pytest.fixture
def unharmed(server: Server) -> Iterator[Server]:
    """The same; a worker that died fails the test."""
    workers = server.workers().keys()
    yield server
    assert server.workers().keys() == workers


@pytest.fixture(scope="session")
def strict(soak: int) -> bool:
    """Whether bounds of time are to be taken at their word: not beside other tests."""
    return soak > 1


@pytest.fixture(scope="session")
def soon(strict: bool) -> float:
    """Seconds within which a server must answer whatever it is sent."""
    return 2.0 if strict else 10.0
