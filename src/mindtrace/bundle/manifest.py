"""`manifest.json`: size and SHA-256 of every other file; its own digest covers them all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from mindtrace.errors import BundleError
from mindtrace.system import sync

MANIFEST = "manifest.json"
# MLflow adds this one to the copy it loads; it is no part of what was sealed.
_ADDED_BY_MLFLOW = "registered_model_meta"


def seal(folder: Path) -> str:
    """Write `manifest.json` over all files, flush all to the disk; gives the bundle digest."""
    entries = {
        path.name: {"sha256": _sha256(path.read_bytes()), "size": path.stat().st_size}
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST
    }
    text = json.dumps({"format_version": 1, "files": entries}, indent=1) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    for path in (*folder.iterdir(), folder):
        sync(path)
    return _sha256(text.encode())


def check(folder: Path, expected_digest: str | None = None) -> Mapping[str, bytes]:
    """The content of each file of a sealed folder, checked; BundleError says what differs."""
    # What was hashed is what is used: no file is read a second time.
    manifest = _expected(folder, expected_digest)
    contents = {MANIFEST: manifest}
    for name, size, sha256 in _entries(folder, manifest):
        contents[name] = _sealed(folder, name, size, sha256)
    return contents


def check_one(folder: Path, wanted: str, expected_digest: str | None = None) -> bytes:
    """One file of a sealed folder, checked as by `check`; the others are not read."""
    for name, size, sha256 in _entries(folder, _expected(folder, expected_digest)):
        if name == wanted:
            return _sealed(folder, name, size, sha256)
    raise BundleError(folder, f"{MANIFEST} does not name {wanted}")


def orphans(folder: Path) -> list[str]:
    """Names in `folder` that its manifest does not list, sorted."""
    known = {name for name, _, _ in _entries(folder, _read(folder, MANIFEST))}
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.name not in known | {MANIFEST, _ADDED_BY_MLFLOW}
    )


def _expected(folder: Path, digest: str | None) -> bytes:
    """The manifest's bytes, compared with its digest if that is given."""
    manifest = _read(folder, MANIFEST)
    if digest is not None and _sha256(manifest) != digest:
        raise BundleError(
            folder,
            f"{MANIFEST} has digest {_sha256(manifest)[:12]}, the registry says {digest[:12]}",
            hint="the files are not what was registered; restore them or register again",
        )
    return manifest


def _sealed(folder: Path, name: str, size: int, sha256: str) -> bytes:
    """A file's content, compared with what the manifest says."""
    content = _read(folder, name)
    if len(content) != size:
        raise BundleError(folder, f"{name} has {len(content)} bytes, expected {size}")
    found = _sha256(content)
    if found != sha256:
        raise BundleError(folder, f"{name} has digest {found[:12]}, expected {sha256[:12]}")
    return content


def _entries(folder: Path, manifest: bytes) -> Iterator[tuple[str, int, str]]:
    try:
        parsed = json.loads(manifest)
        if parsed["format_version"] != 1:
            raise BundleError(
                folder,
                f"manifest format {parsed['format_version']}, this mindtrace reads 1",
                hint="upgrade mindtrace",
            )
        rows = [
            (str(name), int(row["size"]), str(row["sha256"]))
            for name, row in parsed["files"].items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise BundleError(folder, f"{MANIFEST} cannot be read: {error!r}") from error
    for name, size, sha256 in rows:
        if name in ("", "..") or Path(name).name != name or not name.isprintable():
            raise BundleError(folder, f"{MANIFEST} names {name!r}, which is no plain file name")
        yield name, size, sha256


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except FileNotFoundError as error:
        raise BundleError(folder, f"{name} is missing") from error
    except OSError as error:
        raise BundleError(folder, f"{name} cannot be read: {error.strerror}") from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
