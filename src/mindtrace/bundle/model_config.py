"""`model.json`: what a model is, in words from a closed list.

In: the JSON text of a bundle. Out: a checked `ModelConfig`. Nothing in the file names
a class, a module or a path, so reading one can run nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mindtrace.preprocess import ImageSpec

FORMAT_VERSION = 1


class ModelConfigError(ValueError):
    """What is wrong with a `model.json`; the reader adds which bundle it was."""


@dataclass(frozen=True)
class ModelConfig:
    """A model's architecture, input and classes.

    Attributes:
        architecture: a name that `[model] name` knows, such as `mlp`.
        arguments: what the architecture was built with; numbers, strings, lists.
        spec: the network's input.
        class_names: in the order of the outputs.
    """

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
        """Read a `model.json`.

        Raises:
            ModelConfigError: a newer format, a missing or a strange value.
        """
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
