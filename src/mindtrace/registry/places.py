"""Where the files that a store names are now: what lay below a ROOT moves with it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from mindtrace.config.urls import file_path
from mindtrace.errors import StoreError
from mindtrace.registry.names import ARTIFACTS

# MLflow stores absolute paths. Ours are ROOT/mlartifacts/RUN/artifacts, so each tells which
# ROOT wrote it; models that MLflow's own functions log lie in a folder beside the runs.
_RUN = re.compile(rf"(.*)/{ARTIFACTS}/((?:models/m-)?[0-9a-f]{{32}})/artifacts(?:/.*)?", re.DOTALL)


class OwnPlace(NamedTuple):
    """A stored location below the artifacts of a ROOT; `run` is the folder there."""

    path: Path
    root: Path  # that wrote it
    run: str

    def below(self, root: Path) -> Path:
        """The same place of another ROOT."""
        return root / self.path.relative_to(self.root)


def own_place(location: str) -> OwnPlace | None:
    """What a stored location says; None for every place that is not a ROOT's."""
    path = file_path(location)
    match = None if path is None else _RUN.fullmatch(str(path))
    if path is None or match is None:
        return None
    return OwnPlace(path, Path(match[1] or "/"), match[2])


def resolve(location: str, root: Path, database: Path | None, *, new: bool = False) -> str:
    """A location that `database` (None: no file) holds, as it is with this ROOT in force."""
    stored = own_place(location)
    if stored is None or stored.root == root:
        return location
    # Runs have unique names: this one was copied or moved here, or is nowhere else.
    is_here = new or _exists(root / ARTIFACTS / stored.run) or not _exists(stored.path)
    if is_here or _is_copied(root, database, stored.root):
        return stored.below(root).as_uri()
    return location


def require_writable(*folders: Path) -> None:
    """StoreError unless files can be made in these folders, or the folders where they lack."""
    for folder in folders:
        there = next(path for path in (folder, *folder.parents) if _exists(path))
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            kind = "cannot be written" if there.is_dir() else "is no folder"
            hint = "allow it, or name another ROOT: --set DIR_PATHS.ROOT=FOLDER"
            raise StoreError(f"{there} {kind}", hint=hint)


def is_below(path: Path, root: Path) -> bool:
    """Whether a path is inside ROOT, links followed."""
    return path.resolve().is_relative_to(root.resolve())


def _is_copied(root: Path, database: Path | None, recorded: Path) -> bool:
    """Whether the database in ROOT is a copy of the one in `recorded`, which is still there."""
    if database is None or database.parent != root:
        return False  # several ROOTs may share it
    original = recorded / database.name
    return _exists(original) and not original.samefile(database)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False  # in a folder that may not be looked into
