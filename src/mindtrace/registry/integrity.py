"""Whether a version is still what was registered, and its model's aliases what they should be.

In: the folder of a bundle and what the registry says of it; or a reader and a model.
Out: faults, a line each; none if all is well.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from mindtrace.bundle import manifest
from mindtrace.bundle.bundle import (
    CONFIG_FILE,
    DATA_FILE,
    PREDICTIONS_FILE,
    WEIGHTS_FILE,
    weights_digest,
)
from mindtrace.bundle.predictions import TestPredictions
from mindtrace.bundle.predictor import Predictor
from mindtrace.errors import BundleError
from mindtrace.registry.history import champion, counted
from mindtrace.registry.names import CHAMPION, PREFIX
from mindtrace.registry.reader import Reader

_PICKLED_NAMES = re.compile(r"\.(pkl|pickle|pt|pth|ckpt|joblib|dill)$", re.IGNORECASE)
_PICKLED_START = re.compile(rb"\x80[\x02-\x05]")


def bundle_faults(folder: Path, digest: str | None, tags: Mapping[str, str]) -> list[str]:
    """What is wrong with a bundle.

    Args:
        folder: where it lies.
        digest: what the registry says of its manifest; None to believe the manifest.
        tags: of the version, with their prefix; what they say is compared too.
    """
    try:
        Predictor.open(folder, digest)
        files = manifest.check(folder, digest)
        orphans = manifest.orphans(folder)
    except BundleError as error:
        return [error.reason, *_pickles(folder)]
    faults = [f"{name} is no file of this bundle" for name in orphans]
    return [*faults, *_pickles(folder), *_contradictions(files, tags)]


def alias_faults(reader: Reader, model_name: str) -> list[str]:
    """Aliases that name what is not there, or not what the history says."""
    aliases = reader.aliases(model_name)
    faults = [
        f"alias '{alias}' names version {number}, which does not exist"
        for alias, number in aliases.items()
        if reader.version(model_name, number) is None
    ]
    told = champion(counted(reader.log(model_name)))
    found = aliases.get(CHAMPION)
    if told is not None and found != told:
        named = "no version" if found is None else f"version {found}"
        faults.append(f"alias '{CHAMPION}' names {named}, the history says {told}")
    return faults


def _contradictions(files: Mapping[str, bytes], tags: Mapping[str, str]) -> Iterator[str]:
    """Digests in the registry that are not those of the files."""
    for name, found in _digests(files):
        expected = tags.get(PREFIX + name)
        if expected is not None and found != expected:
            yield f"{name} is {found[:12]}, the registry says {expected[:12]}"
    try:
        TestPredictions.parse(files[PREDICTIONS_FILE])
    except (KeyError, ValueError) as error:
        yield f"{PREDICTIONS_FILE}: {error}"


def _digests(files: Mapping[str, bytes]) -> Iterator[tuple[str, str]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        weights = load(files[WEIGHTS_FILE])
        yield "weights_digest", weights_digest(weights)
    except SafetensorError as error:
        yield "weights_digest", f"unreadable: {error}"
    yield "config_digest", hashlib.sha256(files.get(CONFIG_FILE, b"")).hexdigest()
    try:
        data = json.loads(files[DATA_FILE])
        for name in ("data_digest", "test_digest"):
            yield name, str(data[name])
    except (KeyError, ValueError, TypeError) as error:
        yield "data_digest", f"unreadable: {error!r}"


def _pickles(folder: Path) -> Iterator[str]:
    """Files that only running code could read."""
    if not folder.is_dir():
        return
    for path in sorted(folder.rglob("*")):
        if path.is_file() and _is_pickled(path):
            yield f"{path.relative_to(folder)} is a pickle, which no bundle holds"


def _is_pickled(path: Path) -> bool:
    if _PICKLED_NAMES.search(path.name):
        return True
    content = path.read_bytes()
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return _PICKLED_START.match(content) is not None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return any(_PICKLED_NAMES.search(name) for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False  # damaged, which its digest says
