"""The verb diff: two references in, what is different about them out."""

from __future__ import annotations

import configparser
import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mindtrace.config.settings import Settings
from mindtrace.documents import document
from mindtrace.errors import BundleError, NotFoundError, StoreError

if TYPE_CHECKING:
    from mindtrace.registry.reader import ModelVersion, Reader
    from mindtrace.registry.reference import Located

PARTS = ("configuration", "data", "environment", "metrics")
Value = str | float | None

_ENVIRONMENT = (
    *("mindtrace", "torch", "lightning", "python", "platform", "git_commit", "git_dirty"),
    *("who", "parent"),
)
_DIGESTS = ("data_digest", "test_digest")


@dataclass(frozen=True)
class Difference:
    """Version b beside version a.

    Attributes:
        a: the first, `NAME/VERSION` or a folder.
        b: the second.
        parts: for each of `PARTS`, name to the values of a and b where they differ; of
            metrics all, for a metric that stayed the same says something too.
    """

    a: str
    b: str
    parts: Mapping[str, Mapping[str, tuple[Value, Value]]]

    def document(self) -> dict[str, Any]:
        """The JSON document of `mindtrace registry diff`."""
        rows = {
            part: {name: list(pair) for name, pair in changes.items()}
            for part, changes in self.parts.items()
        }
        return document({"a": self.a, "b": self.b, **rows})

    def rows(self) -> Iterator[tuple[str, str, Value, Value]]:
        """Part, name, value of a, value of b."""
        for part, changes in self.parts.items():
            for name, (first, second) in changes.items():
                yield part, name, first, second


def diff(settings: Settings, a: str, b: str) -> Difference:
    """What differs in configuration, data, environment and metrics.

    Args:
        settings: which registry.
        a: a reference, or the folder of a bundle.
        b: another; a bare number is a version of a's model.

    Raises:
        NotFoundError: no such version.
        StoreError: the registry cannot be read.
    """
    first = _facts(settings, a, None)
    second = _facts(settings, b, first.model_name)
    parts = {}
    for part in PARTS:
        # A folder says nothing of some parts, which is no difference.
        known = part in first.parts and part in second.parts
        of_a, of_b = (first.parts[part], second.parts[part]) if known else ({}, {})
        names = list(of_a) + [name for name in of_b if name not in of_a]
        parts[part] = {
            name: (of_a.get(name), of_b.get(name))
            for name in names
            if part == "metrics" or of_a.get(name) != of_b.get(name)
        }
    return Difference(first.name, second.name, parts)


@dataclass(frozen=True)
class _Facts:
    name: str
    model_name: str | None
    parts: Mapping[str, Mapping[str, Value]]


def _facts(settings: Settings, ref: str, model_name: str | None) -> _Facts:
    from mindtrace.registry.fields import metrics_of
    from mindtrace.registry.names import PREFIX
    from mindtrace.registry.reader import open_reader
    from mindtrace.registry.reference import Located, find, parse_reference

    reference = parse_reference(ref)
    if reference.folder is not None:
        if not reference.folder.is_dir():
            raise NotFoundError("bundle folder", str(reference.folder))
        return _Facts(ref, None, _bundle_facts(Located(reference.folder, None, None)))
    if reference.name is None:
        reference = dataclasses.replace(reference, name=model_name)
    reader = open_reader(settings)
    row = find(settings, reader, reference)
    tags = {key.removeprefix(PREFIX): value for key, value in row.tags.items()}
    parts: dict[str, Mapping[str, Value]] = {
        "configuration": dict(sorted(_params(reader, row).items())),
        "data": {key: tags[key] for key in _DIGESTS if key in tags},
        "environment": {key: tags[key] for key in _ENVIRONMENT if key in tags},
        "metrics": metrics_of(row),
    }
    return _Facts(
        f"{row.name}/{row.version}", row.name, {**parts, **_of_bundle(settings, reader, row)}
    )


def _of_bundle(
    settings: Settings, reader: Reader, row: ModelVersion
) -> Mapping[str, Mapping[str, Value]]:
    """From the bundle where there is one: a run's parameters may be anything."""
    from mindtrace.registry.reference import locate_version

    try:
        return _bundle_facts(locate_version(settings, reader, row))
    except (BundleError, StoreError):
        # Not ours, or damaged, which is verify's to tell: the registry knows the rest.
        return {}


def _params(reader: Reader, row: ModelVersion) -> Mapping[str, str]:
    return reader.params(row.run_id) if row.run_id else {}


def _bundle_facts(located: Located) -> dict[str, Mapping[str, Value]]:
    from mindtrace.bundle import manifest
    from mindtrace.bundle.bundle import CONFIG_FILE, DATA_FILE

    files = manifest.check(located.folder, located.digest)
    try:
        config = _ini(files[CONFIG_FILE].decode())
        data = json.loads(files[DATA_FILE])
        counts = {f"{stage}_images": float(n) for stage, n in data["counts"].items()}
        told = {key: str(data[key]) for key in ("source", *_DIGESTS)}
    except (KeyError, ValueError, TypeError, AttributeError, configparser.Error) as error:
        raise BundleError(located.folder, f"cannot be read: {error!r}") from error
    return {"configuration": config, "data": {**told, **counts}}


def _ini(text: str) -> dict[str, Value]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    return {
        f"{section}.{key}": value
        for section in parser.sections()
        for key, value in parser[section].items()
    }
