"""The small model and the real server of the application's tests, and files for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.application.conftest import bundle, module_settings, png, serve

__all__ = ["bundle", "module_settings", "serve"]


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """More than two batches of squares, from dark to bright."""
    paths = []
    for level in range(256):
        path = tmp_path / f"{level:03}.png"
        path.write_bytes(png(level))
        paths.append(str(path))
    return paths + paths[:20]


def no_stdin() -> bytes:
    raise AssertionError("standard input was read")
