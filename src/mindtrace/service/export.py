"""The verb export: a version in, a folder with its checked bundle out."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from mindtrace.config.settings import Settings
from mindtrace.documents import document
from mindtrace.errors import UsageError


@dataclass(frozen=True)
class Exported:
    """A bundle in a folder of the user's.

    Attributes:
        model_name: None for a bundle that was named by its folder, as is `version`.
        version: its number.
        folder: where it lies now, absolute.
        bundle_digest: of its manifest.
        files: name to size in bytes.
    """

    model_name: str | None
    version: int | None
    folder: str
    bundle_digest: str
    files: dict[str, int]

    def document(self) -> dict[str, Any]:
        """The JSON document of `mindtrace registry export`."""
        return document(vars(self))


def export(settings: Settings, ref: str, folder: Path) -> Exported:
    """Write a version's bundle into a new or empty folder; all of it or nothing.

    What is written are the very bytes that were compared with the registry, and the copy
    has answered its golden images.

    Raises:
        UsageError: the folder is not empty, is a file, or cannot be written.
        NotFoundError: no such version.
        BundleError: the bundle is not what was registered.
    """
    from mindtrace.bundle import manifest
    from mindtrace.bundle.predictor import Predictor
    from mindtrace.registry.reference import locate

    target = Path(os.path.abspath(folder.expanduser()))  # noqa: PTH100 - keeps links as written
    _demand_empty(target)
    located = locate(settings, ref)
    files = manifest.check(located.folder, located.digest)
    aside = target.with_name(f".{target.name}-{uuid4().hex}")
    try:
        aside.mkdir(parents=True)
        for name, content in files.items():
            (aside / name).write_bytes(content)
            manifest.sync(aside / name)
        manifest.sync(aside)
        predictor = Predictor.open(aside, located.digest)
        # Onto an empty folder this is one step; onto one that filled meanwhile it fails.
        aside.rename(target)
    except OSError as error:
        raise UsageError(f"folder '{folder}' cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    row = located.row
    return Exported(
        model_name=row.name if row else None,
        version=row.version if row else None,
        folder=str(target),
        bundle_digest=predictor.digest,
        files={name: len(content) for name, content in sorted(files.items())},
    )


def _demand_empty(target: Path) -> None:
    try:
        filled = target.exists() and (not target.is_dir() or any(target.iterdir()))
    except OSError as error:
        raise UsageError(f"folder '{target}' cannot be read: {error.strerror}") from error
    if filled:
        kind = "is not empty" if target.is_dir() else "is a file"
        raise UsageError(f"folder '{target}' {kind}", hint="name a folder that does not exist yet")
