"""`manifest.json`: size and SHA-256 of every other file; its own digest covers them all."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from mindtrace.errors import BundleError
from mindtrace.system import sync

MANIFEST = "manifest.json"
# MLflow adds this one to the copy it loads; it is no part of what was sealed.
_ADDED_BY_MLFLOW = "registered_model_meta"

_Entries = dict[str, tuple[int, str]]  # size and SHA-256 by name


def seal(folder: Path) -> str:
    """Write `manifest.json` over all files, flush all to the disk; gives the bundle digest."""
    entries = {
        path.name: {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size": path.stat().st_size,
        }
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST
    }
    text = json.dumps({"format_version": 1, "files": entries}, indent=1) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    for path in (*folder.iterdir(), folder):
        sync(path)
    return hashlib.sha256(text.encode()).hexdigest()


def check(
    folder: Path, expected_digest: str | None = None, needed: Iterable[str] = ()
) -> Mapping[str, bytes]:
    """The content of each file of a sealed folder, checked; BundleError says what differs."""
    # What was hashed is what is used: no file is read a second time.
    manifest, entries = _manifest(folder, expected_digest)
    if missing := sorted(set(needed) - set(entries)):
        raise BundleError(folder, f"{', '.join(missing)} is not in the manifest")
    return {MANIFEST: manifest, **{name: _sealed(folder, name, entries) for name in entries}}


def check_one(folder: Path, wanted: str, expected_digest: str | None = None) -> bytes:
    """One file of a sealed folder, checked as by `check`; the others are not read."""
    _, entries = _manifest(folder, expected_digest)
    if wanted not in entries:
        raise BundleError(folder, f"{wanted} is not in the manifest")
    return _sealed(folder, wanted, entries)


def sizes(folder: Path) -> dict[str, int]:
    """The size of each file that the manifest names, sorted by name; no file is read."""
    return {name: size for name, (size, _) in sorted(_manifest(folder, None)[1].items())}


def orphans(folder: Path) -> list[str]:
    """Names in `folder` that its manifest does not list, sorted."""
    known = {MANIFEST, _ADDED_BY_MLFLOW, *_manifest(folder, None)[1]}
    return sorted({path.name for path in folder.iterdir()} - known)


def _manifest(folder: Path, expected_digest: str | None) -> tuple[bytes, _Entries]:
    """The manifest's bytes, of the given digest, and what it says."""
    manifest = _read(folder, MANIFEST)
    found = hashlib.sha256(manifest).hexdigest()
    if expected_digest not in (None, found):
        known = f"the registry says {str(expected_digest)[:12]}"
        hint = "the files are not what was registered; restore them or register again"
        raise BundleError(folder, f"{MANIFEST} has digest {found[:12]}, {known}", hint=hint)
    try:
        parsed = json.loads(manifest)
        if (version := parsed["format_version"]) != 1:
            reason = f"manifest format {version}, this mindtrace reads 1"
            raise BundleError(folder, reason, hint="upgrade mindtrace")
        entries = {
            str(name): (int(row["size"]), str(row["sha256"]))
            for name, row in parsed["files"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise BundleError(folder, f"{MANIFEST} cannot be read: {error!r}") from error
    for name in entries:
        if name in ("", "..") or Path(name).name != name or not name.isprintable():
            raise BundleError(folder, f"{MANIFEST} names {name!r}, which is no plain file name")
    return manifest, entries


def _sealed(folder: Path, name: str, entries: _Entries) -> bytes:
    """A file's content, compared with what the manifest says."""
    size, sha256 = entries[name]
    content = _read(folder, name)
    if len(content) != size:
        raise BundleError(folder, f"{name} has {len(content)} bytes, expected {size}")
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise BundleError(folder, f"{name} has digest {found[:12]}, expected {sha256[:12]}")
    return content


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "is missing" if missing else f"cannot be read: {error.strerror}"
        raise BundleError(folder, f"{name} {reason}") from error
