"""A bundle: its `model.json`, and the whole, of which every byte is checked when it is read."""

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from mindtrace.bundle import manifest
from mindtrace.bundle.predictions import GoldenCase, TestPredictions, golden_json, read_golden
from mindtrace.config.networks import TORCHVISION
from mindtrace.errors import BundleError
from mindtrace.preprocess import ImageSpec

T = TypeVar("T")

FORMAT_VERSION = 2  # of model.json
WEIGHTS_FILE = "model.safetensors"
ONNX_FILE = "model.onnx"
MODEL_FILE = "model.json"
GOLDEN_FILE = "golden.json"
PREDICTIONS_FILE = "predictions.npz"
CONFIG_FILE = "config.ini"
DATA_FILE = "data.json"
# By which images were split where a bundle or a checkpoint names no rule.
EARLIER_RULE = "count"


@dataclass(frozen=True)
class ModelConfig:
    """The architecture's name and arguments, the input, and the class of each output."""

    architecture: str
    arguments: Mapping[str, Any]
    spec: ImageSpec
    class_names: tuple[str, ...]
    pretrained: Mapping[str, str] = field(default_factory=dict)  # `source`, `license` of weights

    def to_json(self) -> str:
        """The text of `model.json`."""
        # What an older mindtrace reads right keeps the format that it knows.
        plain = self.spec.interpolation == "bilinear" and self.spec.resize != "pad"
        fields = {"input" if key == "spec" else key: x for key, x in asdict(self).items()}
        fields = {"format_version": 1 if plain else FORMAT_VERSION, **fields}
        return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"

    @property
    def replaced_by(self) -> str | None:
        """The network of timm that replaces this one, if torchvision's."""
        # timm's own names of the arguments tell the networks of both apart.
        torchvision = "channels" in self.arguments
        return TORCHVISION.get(self.architecture) if torchvision else None

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the `model.json` of a folder; BundleError."""
        try:
            return cls.from_json((folder / MODEL_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BundleError(folder, str(error)) from error

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a `model.json`; ValueError for a newer format or an invalid value."""
        try:
            fields = json.loads(text)
            version = fields["format_version"]
            if version not in range(1, FORMAT_VERSION + 1):
                known = f"this mindtrace reads {FORMAT_VERSION}: upgrade mindtrace"
                raise ValueError(f"bundle format {version}, {known}")
            return _validated(cls, {**fields, "spec": read_spec(fields["input"])})
        except (KeyError, TypeError, ValueError) as error:
            reason = error if isinstance(error, ValueError) else repr(error)
            raise ValueError(f"model.json cannot be read: {reason}") from error


def read_spec(fields: Mapping[str, Any]) -> ImageSpec:
    """A network's input from plain values; ValueError."""
    spec = _validated(ImageSpec, fields)
    if not len(spec.mean) == len(spec.std) == spec.channels:
        raise ValueError(f"mean and std do not fit mode '{spec.mode}'")
    return spec


def _validated(kind: type[T], fields: Mapping[str, Any]) -> T:
    """A dataclass from plain values; ValueError with every fault in one line."""
    try:
        return TypeAdapter(kind).validate_python(fields)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise ValueError("; ".join(faults)) from error


@dataclass(frozen=True)
class Contents:
    """What a training puts into a bundle; `config` is INI text, `data` the images' digests."""

    model_config: ModelConfig
    weights: Mapping[str, NDArray[Any]]
    onnx: bytes
    golden: Sequence[GoldenCase]
    predictions: TestPredictions
    config: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Bundle:
    """A checked bundle, with what is needed to predict."""

    folder: Path
    digest: str
    model_config: ModelConfig
    onnx: bytes
    golden: tuple[GoldenCase, ...]


def write_contents(folder: Path, contents: Contents) -> None:
    """Write all files into an existing folder; `manifest.seal` comes after."""
    from safetensors.numpy import save

    (folder / WEIGHTS_FILE).write_bytes(save(dict(contents.weights)))
    (folder / ONNX_FILE).write_bytes(contents.onnx)
    (folder / MODEL_FILE).write_text(contents.model_config.to_json(), encoding="utf-8")
    (folder / GOLDEN_FILE).write_text(golden_json(contents.golden), encoding="utf-8")
    contents.predictions.write(folder / PREDICTIONS_FILE)
    (folder / CONFIG_FILE).write_text(contents.config, encoding="utf-8")
    (folder / DATA_FILE).write_text(json.dumps(contents.data, indent=2) + "\n", encoding="utf-8")


def read_bundle(folder: Path, expected_digest: str | None = None) -> Bundle:
    """Read a bundle; BundleError where a file is missing, damaged or of a newer format."""
    if not folder.is_dir():
        raise BundleError(folder, "no such folder")
    needed = (MODEL_FILE, ONNX_FILE, GOLDEN_FILE, WEIGHTS_FILE)
    files = manifest.check(folder, expected_digest, needed)
    try:
        model_config = ModelConfig.from_json(files[MODEL_FILE].decode())
        cases = read_golden(files[GOLDEN_FILE].decode())
    except ValueError as error:
        raise BundleError(folder, str(error)) from error
    digest = hashlib.sha256(files[manifest.MANIFEST]).hexdigest()
    return Bundle(folder, digest, model_config, files[ONNX_FILE], cases)


def read_data(folder: Path) -> dict[str, Any]:
    """`data.json`: where the images are from, how they were split, their digests."""
    return {"split_rule": EARLIER_RULE, **json.loads((folder / DATA_FILE).read_bytes())}


def weights_digest(weights: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256, hexadecimal, over name, type, shape and bytes of each tensor, ordered by name."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = np.asarray(weights[name])
        digest.update(f"{name}\0{tensor.dtype.str}\0".encode())
        digest.update(struct.pack(f"<{tensor.ndim}q", *tensor.shape))
        digest.update(tensor.tobytes())
    return digest.hexdigest()
