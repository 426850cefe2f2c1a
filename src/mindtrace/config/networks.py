"""Networks by their names, found without importing timm; values that do not go together."""

import importlib.util
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import get_args

from mindtrace.config.ini import Place
from mindtrace.config.sections import BLANK, PHOTO_SOURCES, Source
from mindtrace.errors import meant

#: Our own networks; all others are timm's.
OWN_NETWORKS = ("mlp", "cnn")
#: The default for photos.
PHOTO_NETWORK = "tf_efficientnet_lite0"
#: torchvision's networks of earlier versions, and what replaces them.
TORCHVISION = {
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "mobilenet_v3_small": "mobilenetv3_small_100",
    "efficientnet_b0": "efficientnet_b0",
    "convnext_tiny": "convnext_tiny",
    "shufflenet_v2_x1_0": "mobilenetv3_small_100",
}
_REGISTERED = re.compile(rb"@register_model\b[^\n]*\n(?:@[^\n]*\n)*def (\w+)\(")


@cache
def timm_names() -> frozenset[str]:
    """What `timm.list_models()` has, read from timm's source; empty where timm is missing."""
    found = importlib.util.find_spec("timm")
    folders = (found and found.submodule_search_locations) or ()
    files = (file for folder in folders for file in Path(folder, "models").glob("*.py"))
    return frozenset(
        name.decode() for file in files for name in _REGISTERED.findall(file.read_bytes())
    )


def unknown_network(name: str) -> str | None:
    """What is wrong with the name of a network, which may end in a tag; None if nothing is."""
    # A machine that only predicts has no timm, and a network's name does not matter there.
    if name in (*OWN_NETWORKS, PHOTO_NETWORK) or not (known := timm_names()):
        return None
    name = name.partition(".")[0]
    if name in known:
        return None
    if name in TORCHVISION:
        return f"is torchvision's; timm's '{TORCHVISION[name]}' replaces it"
    like = meant(name.lower(), [*OWN_NETWORKS, *sorted(known)])
    return f"must be mlp, cnn or a name in timm.list_models(){like}"


def conflicts(texts: Mapping[Place, str]) -> Iterator[tuple[Place, str]]:
    """Keys whose values are valid, but not together, and why."""
    source, folder = texts.get(("data", "source")), texts.get(("data", "dir"))
    if source in PHOTO_SOURCES and folder in BLANK:
        yield ("data", "source"), f"needs the {source} too; add dir = PATH to [data]"
    elif source in {*get_args(Source)} - {*PHOTO_SOURCES} and folder not in (None, *BLANK):
        reason = f"is for source = folder or table, and source is {source}; change or remove one"
        yield ("data", "dir"), reason
    network = texts.get(("model", "name"))
    if network in OWN_NETWORKS and texts.get(("model", "weights")) == "default":
        reason = f"there are none for {network}; use none, a path, or another name"
        yield ("model", "weights"), reason
    if network is not None and (unknown := unknown_network(network)):
        yield ("model", "name"), unknown
    moving = [place for place in _MOVING if texts.get(place, "none") not in _STILL]
    if moving and texts.get(("model", "freeze"), "").lower() in ("true", "1", "yes", "on"):
        section, key_ = moving[0]
        reason = f"trains on features that are computed once, without [{section}] {key_}"
        yield ("model", "freeze"), f"{reason}; remove one of the two"


# What changes the images that a network sees from epoch to epoch, and what changes nothing.
_MOVING = (("data", "augment"), ("train", "mixup"))
_STILL = ("none", "", "0", "0.0")


def recipe(texts: Mapping[Place, str], given: Collection[Place]) -> dict[Place, str]:
    """`recipe photo`: what a folder or table starts from, where the user did not say otherwise."""
    scratch = texts.get(("model", "weights")) == "none"
    named = texts.get(("model", "name")) if ("model", "name") in given else None
    if texts.get(("data", "source")) not in PHOTO_SOURCES or named in OWN_NETWORKS:
        return {}
    if scratch:
        found = {("model", "name"): "cnn"}
    else:
        found = {("model", "name"): PHOTO_NETWORK, ("model", "weights"): "auto"}
        if all(texts.get(place, "none") in _STILL for place in _MOVING):
            found |= {("model", "freeze"): "true", ("data", "augment"): "none"}
    return {place: text for place, text in found.items() if place not in given}
