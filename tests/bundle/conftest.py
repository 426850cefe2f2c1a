"""A real bundle, to be changed at will."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mindtrace.bundle import manifest

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
