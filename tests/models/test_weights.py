"""Weights to start from, and networks of which only the last layer learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.models.conftest import COLOUR, GREY, NAMES, built
from torch import nn

from mindtrace.errors import DownloadError, UsageError
from mindtrace.models.networks import build_network
from mindtrace.models.weights import head_of
from mindtrace.preprocess import ImageSpec


def tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: one.clone().contiguous() for name, one in network.state_dict().items()}


@pytest.mark.parametrize(("suffix", "classes"), [(".safetensors", 7), (".pt", 7), (".pt", 3)])
def test_a_file_fills_every_layer_but_the_last_where_the_classes_differ(
    tmp_path: Path, suffix: str, classes: int
) -> None:
    torch.manual_seed(9)
    given = tensors(build_network("resnet18", {"in_chans": 3, "num_classes": classes}))
    file = tmp_path / f"resnet{suffix}"
    save_file(given, file) if suffix == ".safetensors" else torch.save(given, file)
    network = built("resnet18", COLOUR, f"model.weights={file}").network
    for name, tensor in network.state_dict().items():
        if name.startswith("fc.") and classes != len(NAMES):
            assert tensor.shape != given[name].shape
        else:
            assert torch.equal(tensor, given[name]), name


def test_weights_of_another_network_are_refused_with_what_was_expected(tmp_path: Path) -> None:
    file = tmp_path / "cnn.safetensors"
    save_file(tensors(built("cnn").network), file)
    with pytest.raises(UsageError, match=r"not of a mlp.*expected \(100,\)"):
        built("mlp", GREY, f"model.weights={file}")


class Bomb:
    """Would be called by an unpickler that calls what it is told to."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a weights file ran code",))


def test_a_file_that_wants_to_run_code_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "bomb.pt"
    torch.save({"0.weight": Bomb()}, file)
    with pytest.raises(DownloadError, match="cannot be read"):
        built("mlp", GREY, f"model.weights={file}")


@pytest.mark.parametrize(("name", "spec"), [("cnn", GREY), ("resnet18", COLOUR)])
def test_frozen_only_the_last_layer_changes(name: str, spec: ImageSpec) -> None:
    model = built(name, spec, "model.freeze=true")
    before = tensors(model.network)
    model.train()
    model.on_train_epoch_start()
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.5)
    images = torch.randn(8, spec.channels, spec.height, spec.width)
    nn.functional.cross_entropy(model(images), torch.arange(8) % 3).backward()
    optimizer.step()

    head = head_of(model.network)
    for key, tensor in model.network.state_dict().items():
        same = torch.equal(tensor, before[key])
        assert same != key.startswith(f"{head}."), key
