"""`model.json`: architecture, input, classes. It names no Python class: reading it runs nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from mindtrace.config.networks import TORCHVISION
from mindtrace.errors import BundleError
from mindtrace.preprocess import ImageSpec, Interpolation, Resize

FORMAT_VERSION = 2


@dataclass(frozen=True)
class ModelConfig:
    """The architecture's name and arguments, the input, and the class of each output.

    `pretrained` tells of the weights that the training began with: `source` and `license`.
    """

    architecture: str
    arguments: Mapping[str, Any]
    spec: ImageSpec
    class_names: tuple[str, ...]
    pretrained: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """The text of `model.json`."""
        # What an older mindtrace reads right keeps the format that it knows.
        plain = self.spec.interpolation == "bilinear" and self.spec.resize != "pad"
        fields = {
            "format_version": 1 if plain else FORMAT_VERSION,
            "architecture": self.architecture,
            "arguments": dict(self.arguments),
            "input": asdict(self.spec),
            "class_names": list(self.class_names),
            "pretrained": dict(self.pretrained),
        }
        return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"

    @property
    def replaced_by(self) -> str | None:
        """The network of timm that replaces this one, if torchvision's."""
        # timm's own names of the arguments tell the networks of both apart.
        torchvision = "channels" in self.arguments
        return TORCHVISION.get(self.architecture) if torchvision else None

    @classmethod
    def read(cls, folder: Path) -> ModelConfig:
        """Read the `model.json` of a folder; BundleError."""
        try:
            return cls.from_json((folder / "model.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BundleError(folder, str(error)) from error

    @classmethod
    def from_json(cls, text: str) -> ModelConfig:
        """Read a `model.json`; ValueError for a newer format or an invalid value."""
        try:
            fields = json.loads(text)
            version = fields["format_version"]
            if version not in range(1, FORMAT_VERSION + 1):
                known = f"this mindtrace reads {FORMAT_VERSION}: upgrade mindtrace"
                raise ValueError(f"bundle format {version}, {known}")
            return cls(
                architecture=str(fields["architecture"]),
                arguments=dict(fields["arguments"]),
                spec=read_spec(fields["input"]),
                class_names=tuple(str(name) for name in fields["class_names"]),
                pretrained={k: str(v) for k, v in dict(fields.get("pretrained", {})).items()},
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            reason = error if isinstance(error, ValueError) else repr(error)
            raise ValueError(f"model.json cannot be read: {reason}") from error


def read_spec(fields: Mapping[str, Any]) -> ImageSpec:
    """A network's input from plain values; KeyError, TypeError, ValueError."""
    mode, resize = fields["mode"], fields["resize"]
    interpolation = fields.get("interpolation", "bilinear")
    if mode not in ("L", "RGB") or resize not in get_args(Resize):
        raise ValueError(f"unknown mode '{mode}' or resize rule '{resize}'")
    if interpolation not in get_args(Interpolation):
        raise ValueError(f"unknown interpolation '{interpolation}'")
    spec = ImageSpec(
        mode=mode,
        height=int(fields["height"]),
        width=int(fields["width"]),
        mean=tuple(float(value) for value in fields["mean"]),
        std=tuple(float(value) for value in fields["std"]),
        resize=resize,
        short_side=None if fields["short_side"] is None else int(fields["short_side"]),
        interpolation=interpolation,
    )
    if not len(spec.mean) == len(spec.std) == spec.channels:
        raise ValueError(f"mean and std do not fit mode '{mode}'")
    positive = (spec.height, spec.width, *spec.std, spec.short_side or 1)
    if min(positive) <= 0 or not all(map(math.isfinite, (*positive, *spec.mean))):
        raise ValueError("height, width and std must be above 0, mean finite")
    return spec
