"""`model.json`: architecture, input, classes. It names no Python class: reading it runs nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mindtrace.preprocess import ImageSpec

FORMAT_VERSION = 1


class ModelConfigError(ValueError):
    """What is wrong with a `model.json`; the reader adds the bundle's folder."""


@dataclass(frozen=True)
class ModelConfig:
    """The architecture's name and arguments, the input, and the class of each output."""

    architecture: str
    arguments: Mapping[str, Any]
    spec: ImageSpec
    class_names: tuple[str, ...]

    def to_json(self) -> str:
        """The text of `model.json`."""
        fields = {
            "format_version": FORMAT_VERSION,
            "architecture": self.architecture,
            "arguments": dict(self.arguments),
            "input": asdict(self.spec),
            "class_names": list(self.class_names),
        }
        return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ModelConfig:
        """Read a `model.json`; ModelConfigError for a newer format or an invalid value."""
        try:
            fields = json.loads(text)
            version = fields["format_version"]
            if version != FORMAT_VERSION:
                raise ModelConfigError(
                    f"bundle format {version}, this mindtrace reads {FORMAT_VERSION}:"
                    " upgrade mindtrace"
                )
            return cls(
                architecture=str(fields["architecture"]),
                arguments=dict(fields["arguments"]),
                spec=_spec(fields["input"]),
                class_names=tuple(str(name) for name in fields["class_names"]),
            )
        except ModelConfigError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ModelConfigError(f"model.json cannot be read: {error!r}") from error


def _spec(fields: Mapping[str, Any]) -> ImageSpec:
    mode, resize = fields["mode"], fields["resize"]
    if mode not in ("L", "RGB") or resize not in ("stretch", "crop"):
        raise ModelConfigError(f"model.json: unknown mode '{mode}' or resize rule '{resize}'")
    spec = ImageSpec(
        mode=mode,
        height=int(fields["height"]),
        width=int(fields["width"]),
        mean=tuple(float(value) for value in fields["mean"]),
        std=tuple(float(value) for value in fields["std"]),
        resize=resize,
        short_side=None if fields["short_side"] is None else int(fields["short_side"]),
    )
    if not len(spec.mean) == len(spec.std) == spec.channels:
        raise ModelConfigError(f"model.json: mean and std do not fit mode '{mode}'")
    positive = (spec.height, spec.width, *spec.std)
    if min(positive) <= 0 or not all(map(math.isfinite, (*positive, *spec.mean))):
        raise ModelConfigError("model.json: height, width and std must be above 0, mean finite")
    return spec
