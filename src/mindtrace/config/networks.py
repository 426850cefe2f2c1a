"""The names of timm's networks, found without importing timm, which takes seconds."""

from __future__ import annotations

import difflib
import importlib.util
import re
from functools import cache
from pathlib import Path

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
    close = difflib.get_close_matches(name.lower(), [*OWN_NETWORKS, *sorted(known)], n=3)
    meant = f", did you mean {' or '.join(map(repr, close))}?" if close else ""
    return f"must be mlp, cnn or a name in timm.list_models(){meant}"
