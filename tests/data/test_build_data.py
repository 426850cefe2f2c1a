from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mindtrace.config.settings import load_settings
from mindtrace.data import MNIST, Digits, FashionMNIST, ImageFolder, InputRequirements, build_data


def settings(*sets: str) -> Any:
    return load_settings(sets=sets)


@pytest.mark.parametrize(("source", "kind"), [("mnist", MNIST), ("fashion_mnist", FashionMNIST)])
def test_mnist_kinds(root: Path, source: str, kind: type[MNIST]) -> None:
    sets = (f"data.source={source}", "data.mirror=http://m.example/x", "data.split_seed=7")
    demand = InputRequirements(mode="RGB")
    data = build_data(settings(*sets, "data.batch_size=32", "data.image_size=20"), demand)
    assert type(data) is kind and isinstance(data, MNIST)
    assert (data.source, data.mirror, data.data_dir) == (
        source,
        "http://m.example/x",
        root / "data",
    )
    assert (data.batch_size, data.split_seed, data.image_size) == (32, 7, 20)
    assert (data.num_train, data.num_val, data.demand) == (None, 5_000, demand)


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
