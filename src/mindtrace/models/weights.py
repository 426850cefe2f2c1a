"""Weights to start a training from (`[model] weights`), and frozen layers (`freeze`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from mindtrace.config.sections import ModelSettings
from mindtrace.errors import DownloadError, UsageError, listed


def load_weights(network: nn.Module, settings: ModelSettings) -> None:
    """Put `[model] weights` into a network, in place; every layer but the last must fit."""
    if settings.weights == "none":
        return
    given = _default(settings.name) if settings.weights == "default" else _read(settings.weights)
    head = head_of(network)
    own = network.state_dict()
    body = {name for name in own if not name.startswith(f"{head}.")}
    fitting = {name for name in own if name in given and own[name].shape == given[name].shape}
    wrong = sorted(body - fitting)
    if wrong:
        found = tuple(given[wrong[0]].shape) if wrong[0] in given else "nothing"
        raise UsageError(
            f"[model] weights = {settings.weights}: not of a {settings.name} for these images:"
            f" {len(wrong)} of {len(body)} tensors do not fit ({listed(wrong, 3)});"
            f" {wrong[0]} is {found}, expected {tuple(own[wrong[0]].shape)}",
            hint="give weights of the same [model] name, [data] image_size and colours",
        )
    # The last layer is taken too where it fits: it was trained for as many classes.
    network.load_state_dict({name: given[name] for name in fitting}, strict=False)


def freeze(network: nn.Module) -> list[nn.Module]:
    """Let only the last layer learn; returns the modules that must stay in evaluation mode."""
    # In training mode a frozen normalisation would go on updating its running mean.
    head = head_of(network)
    for name, parameter in network.named_parameters():
        parameter.requires_grad = name.startswith(f"{head}.")
    return [
        module
        for name, module in network.named_modules()
        if name != head and not any(module.children())
    ]


def head_of(network: nn.Module) -> str:
    """The name of the last linear layer, which gives the logits."""
    names: list[str] = [
        name for name, module in network.named_modules() if isinstance(module, nn.Linear)
    ]
    return names[-1]


def _read(path: str) -> Mapping[str, Tensor]:
    file = Path(path)
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors: Mapping[str, Tensor] = load_file(file)
            return tensors
        # weights_only: tensors and plain containers; such a file can run no code.
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UsageError(
            f"[model] weights = {path}: cannot be read: {str(error).splitlines()[0]}",
            hint="a .safetensors file, or a state dict saved by torch",
        ) from error
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(one, Tensor) for one in found.values()):
        raise UsageError(f"[model] weights = {path}: holds no state dict of tensors")
    return found


def _default(architecture: str) -> Mapping[str, Tensor]:
    import torchvision

    weights = torchvision.models.get_model_weights(architecture).DEFAULT
    try:
        found: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise DownloadError(
            f"the weights of {architecture} could not be fetched: {error}",
            hint="download them elsewhere and set [model] weights = PATH, or weights = none",
        ) from error
    return found
