from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mindtrace.config.settings import load_settings
from mindtrace.data import Digits, ImageFolder, build_data


def settings(*sets: str) -> Any:
    return load_settings(sets=sets)


def test_digits(root: Path) -> None:
    data = build_data(settings("data.source=digits", "data.num_val=50", "data.test_fraction=0.5"))
    assert isinstance(data, Digits)
    assert data.digests().counts == {"train": 849, "val": 50, "test": 898}


def test_folder(root: Path, make_folder: Any) -> None:
    folder = make_folder("a", "b")
    data = build_data(settings("data.source=folder", f"data.dir={folder}", "data.num_workers=1"))
    assert isinstance(data, ImageFolder)
    assert (data.dir, data.num_workers, data.num_val) == (folder, 1, 0.1)
    assert data.class_names == ("a", "b")


def test_the_package_loads_nothing_until_it_is_used() -> None:
    code = (
        "import sys, mindtrace.data as data; assert 'torch' not in sys.modules;"
        "assert sorted(dir(data)) == sorted(data.__all__)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    import mindtrace.data

    for name in mindtrace.data.__all__:
        assert getattr(mindtrace.data, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'CIFAR'"):
        mindtrace.data.CIFAR  # noqa: B018
