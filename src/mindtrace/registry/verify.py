"""Whether a version is what was registered, and its model's aliases what the history says."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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
from mindtrace.config.settings import Settings
from mindtrace.config.urls import file_path
from mindtrace.errors import BundleError, StoreError, VerdictError
from mindtrace.registry.champions import ChampionLog
from mindtrace.registry.names import CHAMPION
from mindtrace.registry.reader import ModelVersion, Reader, open_reader, open_store
from mindtrace.registry.reference import find, locate, model_names, parse_reference

_PAGE = 1000
_PICKLED_NAMES = re.compile(r"\.(pkl|pickle|pt|pth|ckpt|joblib|dill)$", re.IGNORECASE)
_PICKLED_START = re.compile(rb"\x80[\x02-\x05]")


@dataclass(frozen=True)
class Verification:
    """What was found of one version, of the aliases of a model, or of a bundle's folder."""

    model_name: str | None  # None for a folder
    version: int | None  # None for aliases and a folder
    subject: str  # NAME/VERSION, NAME (aliases) or the folder
    bundle_digest: str | None  # as registered
    state: Literal["verified", "damaged", "no bundle"]  # the last: registered by plain MLflow
    faults: tuple[str, ...]


def verify(settings: Settings, ref: str | None = None) -> list[Verification]:
    """Check one version, the champion for None, and the aliases of its model; or a folder."""
    reference = parse_reference(ref)
    if reference.folder is not None:
        folder = locate(settings, ref).folder
        return [_found(None, None, str(folder), None, _bundle_faults(folder, None, {}))]
    reader = open_reader(settings)
    row = find(settings, reader, reference)
    return [_version(reader, row), _aliases(settings, reader, row.name)]


def verify_all(settings: Settings, name: str | None = None) -> Iterator[Verification]:
    """Check every version of one model, or of all, and the aliases; one by one."""
    reader = open_reader(settings)
    for model_name in model_names(reader, name):
        after: int | None = None
        while rows := reader.versions(model_name, _PAGE, after=after):
            for row in rows:
                yield _version(reader, row)
            after = rows[-1].version
        yield _aliases(settings, reader, model_name)


def require_verified(found: Sequence[Verification], *, named: bool) -> None:
    """Raise VerdictError unless all is as registered; a version asked for by name has a bundle."""
    wrong = [one for one in found if one.state == "damaged" or (named and one.state == "no bundle")]
    if wrong:
        first = wrong[0]
        faults = "; ".join(first.faults) or "it has no bundle: mindtrace did not register it"
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise VerdictError(
            f"{first.subject}: {faults}{more}",
            hint="restore the files from a copy, or train and register again",
        )


def _version(reader: Reader, row: ModelVersion) -> Verification:
    """Check the bundle of a version, fetched if it is not on this machine."""
    digest, subject = row.own_tags.get("bundle_digest"), f"{row.name}/{row.version}"
    if digest is None:
        return Verification(row.name, row.version, subject, None, "no bundle", ())
    if row.location is None:
        fault = f"its files are nowhere: the store has no run {row.run_id}"
        return _found(row.name, row.version, subject, digest, [fault])
    folder = file_path(row.location)
    if folder is not None:
        faults = _bundle_faults(folder, digest, row.own_tags)
        return _found(row.name, row.version, subject, digest, faults)
    # Fetched anew: an earlier copy proves nothing about what the store holds now.
    try:
        with tempfile.TemporaryDirectory(prefix="mindtrace-") as scratch:
            folder = Path(scratch) / "bundle"
            reader.fetch(row.location, folder)
            faults = _bundle_faults(folder, digest, row.own_tags)
    except StoreError as error:
        faults = [f"its files cannot be had: {error.message}"]
    except OSError as error:
        where = tempfile.gettempdir()
        raise StoreError(f"cannot keep files in {where}: {error.strerror}") from error
    return _found(row.name, row.version, subject, digest, faults)


def _found(
    model_name: str | None, version: int | None, subject: str, digest: str | None, faults: list[str]
) -> Verification:
    state: Literal["verified", "damaged"] = "damaged" if faults else "verified"
    return Verification(model_name, version, subject, digest, state, tuple(faults))


def _bundle_faults(folder: Path, digest: str | None, tags: Mapping[str, str]) -> list[str]:
    """What is wrong with a bundle, compared with its registered digest and its version's tags."""
    try:
        Predictor.open(folder, digest)
        files = manifest.check(folder, digest)
        orphans = manifest.orphans(folder)
    except BundleError as error:
        return [error.reason, *_pickles(folder)]
    faults = [f"{name} is no file of this bundle" for name in orphans]
    return [*faults, *_pickles(folder), *_contradictions(files, tags)]


def _aliases(settings: Settings, reader: Reader, model_name: str) -> Verification:
    """Check that each alias names what exists, and the champion's what the history says."""
    aliases = reader.aliases(model_name)
    faults = [
        f"alias '{alias}' names version {number}, which does not exist"
        for alias, number in aliases.items()
        if reader.version(model_name, number) is None
    ]
    log = ChampionLog.of_reader(reader, model_name, lambda: open_store(settings))
    log.entries()
    champion = log.champion()
    found = aliases.get(CHAMPION)
    if champion is not None and found != champion:
        named = "no version" if found is None else f"version {found}"
        faults.append(f"alias '{CHAMPION}' names {named}, the history says {champion}")
    return _found(model_name, None, f"{model_name} (aliases)", None, faults)


def _contradictions(files: Mapping[str, bytes], tags: Mapping[str, str]) -> Iterator[str]:
    """Digests in the registry that are not those of the files."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    found = {"config_digest": hashlib.sha256(files.get(CONFIG_FILE, b"")).hexdigest()}
    try:
        found["weights_digest"] = weights_digest(load(files[WEIGHTS_FILE]))
    except SafetensorError as error:
        found["weights_digest"] = f"unreadable: {error}"
    try:
        data = json.loads(files[DATA_FILE])
        found |= {name: str(data[name]) for name in ("data_digest", "test_digest")}
    except (KeyError, ValueError, TypeError) as error:
        found["data_digest"] = f"unreadable: {error!r}"
    for name, digest in found.items():
        expected = tags.get(name, digest)
        if digest != expected:
            yield f"{name} is {digest[:12]}, the registry says {expected[:12]}"
    try:
        TestPredictions.parse(files[PREDICTIONS_FILE])
    except (KeyError, ValueError) as error:
        yield f"{PREDICTIONS_FILE}: {error}"


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
