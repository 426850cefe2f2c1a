"""Names and places that the writers and the readers of the registry share."""

import os
import re
import sqlite3
import unicodedata
from collections import Counter
from pathlib import Path

from mindtrace.config.sections import PHOTO_SOURCES
from mindtrace.config.settings import Settings
from mindtrace.config.urls import file_path
from mindtrace.errors import StoreError

# Of a registered model, and of an alias.
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
CHAMPION = "champion"
LATEST = "latest"  # an alias that MLflow keeps for itself
ARTIFACTS = "mlartifacts"
BUNDLE = "bundle"
# Of the tags that are ours; of those among them that are metrics of the best epoch.
PREFIX = "mindtrace."
METRIC = "metric."

_LOG_SUFFIX = "~history"
# MLflow stores absolute paths. An experiment of ours names ROOT/mlartifacts, a run
# ROOT/mlartifacts/RUN/artifacts, and what MLflow's own functions log lies beside the runs.
_RUN = "(?:models/m-)?[0-9a-f]{32}"
_OURS = re.compile(rf"(.*)/({ARTIFACTS}(?:/({_RUN})/artifacts(?:/.*)?)?)", re.DOTALL)
_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)
_exists = os.path.exists  # it never raises


def model_name_of(settings: Settings) -> str:
    """Under which name a training registers: `[registry] model_name`, else its source's."""
    if settings.registry.model_name is not None:
        return settings.registry.model_name
    if settings.data.source not in PHOTO_SOURCES or settings.data.dir is None:
        return settings.data.source
    place = Path(os.path.normpath(settings.data.dir))
    name = place.stem if settings.data.source == "table" else place.name
    if re.fullmatch(NAME, name):
        return name
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("._-")[:64] or "images"


def log_name(model_name: str) -> str:
    """The companion model with the history of `model_name`; `~` is in no name that we accept."""
    return model_name + _LOG_SUFFIX


def is_log(model_name: str) -> bool:
    """Whether a registered model is a companion, to be kept out of lists."""
    return model_name.endswith(_LOG_SUFFIX)


def resolve(location: str, root: Path, database: Path | None, *, new: bool = False) -> str:
    """A location in `database`, with this ROOT in force: what lay below a ROOT moves with it."""
    path = file_path(location)
    match = None if path is None else _OURS.fullmatch(str(path))
    recorded = root if match is None else Path(match[1] or "/")
    if path is None or match is None or _same(recorded, root):
        return location
    # Runs have unique names: one that is here was copied or moved here.
    is_here = match[3] is not None and _exists(root / ARTIFACTS / match[3])
    # A database elsewhere may serve several ROOTs; one in ROOT is a copy if another is there.
    original = recorded / (database.name if database and database.parent == root else "?")
    is_copy = _exists(original) and not _same(original, database)
    if new or is_here or is_copy or not _exists(path):
        return (root / match[2]).as_uri()
    return location


def foreign_roots(
    connection: sqlite3.Connection, root: Path, database: Path, *, rewrite: bool = False
) -> Counter[str]:
    """Which other ROOTs MLflow's tables name, and how often; `rewrite` names this one instead."""
    found: Counter[str] = Counter()
    tables = {name for (name,) in connection.execute("select name from sqlite_master")}
    for table, column in [place for place in _COLUMNS if place[0] in tables]:
        for (stored,) in connection.execute(f"select distinct {column} from {table}").fetchall():
            now = resolve(stored or "", root, database)
            if now != (stored or ""):
                found[str(file_path(stored)).rpartition(f"/{ARTIFACTS}")[0]] += 1
                if rewrite:
                    change = f"update {table} set {column} = ? where {column} = ?"
                    connection.execute(change, (now, stored))
    return found


def is_below(path: Path, root: Path) -> bool:
    """Whether a path is inside ROOT, links followed."""
    return any(_same(parent, root) for parent in path.resolve().parents)


def require_writable(root: Path, checkpoints: Path) -> None:
    """StoreError unless a training can write all that it will."""
    for folder in (root, root / ARTIFACTS, root / "staging", checkpoints):
        there = next(path for path in (folder, *folder.parents) if _exists(path))
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            why = "" if there.is_dir() else ": it is no folder"
            hint = "--set DIR_PATHS.ROOT=FOLDER  # or allow it"
            raise StoreError(f"{there} cannot be written{why}", hint=hint)


def _same(a: Path, b: Path | None) -> bool:
    """Whether two paths are one file or folder, also by a link or another mount."""
    try:
        return a == b or (b is not None and a.samefile(b))
    except OSError:
        return False
