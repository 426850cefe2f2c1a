"""The names that other people's code is written against."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import ModuleType

import pytest
import pytorch_lightning as pl

import mindtrace

SOURCE = Path(mindtrace.__file__).parent
PACKAGES = [
    "mindtrace",
    *(f"mindtrace.{path.parent.name}" for path in SOURCE.glob("*/__init__.py")),
]
WITH_EXPORTS = [name for name in PACKAGES if hasattr(importlib.import_module(name), "__all__")]


def signature(thing: object) -> dict[str, object]:
    """Parameters of a call, and their defaults; those that only we know are left out."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(thing).parameters.items()  # type: ignore[arg-type]
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    }


def test_signatures_are_those_of_the_starter() -> None:
    from mindtrace.data import MNIST
    from mindtrace.models import MLP
    from mindtrace.registry import MlflowLightningCallback
    from mindtrace.utils import flatten_dict, tensor_to_pil

    found = signature(MNIST)
    assert found.pop("options") is inspect.Parameter.empty
    assert [*found.items()] == [
        *(("batch_size", 64), ("num_workers", None), ("num_train", 55_000), ("num_val", 5_000)),
        *(("pin_memory", False), ("data_dir", None)),
    ]
    assert list(signature(MLP)) == ["dim", "dropout"]
    assert list(signature(MLP)["dim"]) == [784, 100, 10]  # type: ignore[call-overload]
    assert signature(MLP)["dropout"] == 0.2
    callback = signature(MlflowLightningCallback)
    assert callback.pop("kwargs") is inspect.Parameter.empty
    assert [*callback.items()] == [
        *(("experiment_name", "default_experiment"), ("run_name", None), ("tracking_uri", None)),
        *(("job_id", None), ("log_system_metrics", True)),
    ]
    assert list(signature(flatten_dict)) == ["nested", "parent_key", "sep"]
    assert list(signature(tensor_to_pil)) == ["image", "mode", "min_val", "max_val"]


def test_lightnings_own_kinds_are_what_the_starters_users_expect() -> None:
    from mindtrace.data import MNIST
    from mindtrace.models import MLP
    from mindtrace.registry import MlflowLightningCallback

    assert issubclass(MNIST, pl.LightningDataModule)
    assert issubclass(MLP, pl.LightningModule)
    assert issubclass(MlflowLightningCallback, pl.Callback)
    assert {"prepare_data", "setup", "train", "val", "test", "sample"} <= set(dir(MNIST))
    assert {"forward", "predict"} <= set(dir(MLP))


def public(module: ModuleType) -> set[str]:
    """Names of classes and functions of ours that a package holds, without private ones."""
    return {
        name
        for name, found in vars(module).items()
        if not name.startswith("_") and getattr(found, "__module__", "").startswith("mindtrace")
    }


@pytest.mark.parametrize("name", WITH_EXPORTS)
def test_what_is_visible_is_what_is_exported(name: str) -> None:
    module = importlib.import_module(name)
    exported = [one for one in module.__all__ if not one.startswith("_")]

    assert all(getattr(module, one) is not None for one in exported)
    assert public(module) <= set(exported)
    assert len(exported) == len(set(exported))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = module.no_such_name
