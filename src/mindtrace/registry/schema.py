"""The schema of MLflow's database: which MLflow it needs, and a copy before it is migrated."""

from __future__ import annotations

import importlib.util
import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Literal

from mindtrace.config.urls import masked
from mindtrace.errors import StoreError

_LOG = logging.getLogger("mindtrace")


def age_of(revision: str) -> Literal["older", "current", "newer"]:
    """How a schema stands to the installed MLflow, by the files of its migrations."""
    mlflow = importlib.util.find_spec("mlflow")
    migrations = Path(mlflow.origin if mlflow and mlflow.origin else "").parent / "store"
    files = [*migrations.glob("db_migrations/versions/*.py")]
    if not any(file.name.startswith(f"{revision}_") for file in files):
        return "newer"
    follows = f'down_revision = "{revision}"'
    return "older" if any(follows in file.read_text("utf-8") for file in files) else "current"


def describe_schema(revision: str, uri: str) -> tuple[str, str]:
    """What is wrong with the schema of a store that cannot be used, and what to do."""
    if age_of(revision) == "newer":
        reason = f"the database is newer than this MLflow (schema revision {revision})"
        return reason, "pip install --upgrade mindtrace mlflow"
    return f"its schema (revision {revision}) is of an older MLflow", f"mlflow db upgrade {uri}"


def require_current(revision: str, uri: str) -> None:
    """StoreError for another schema on a database server, which MLflow may migrate silently."""
    if age_of(revision) != "current":
        reason, hint = describe_schema(revision, masked(uri))
        raise StoreError(f"registry {masked(uri)}: {reason}", hint=hint)


def revision_of(connection: sqlite3.Connection) -> str | None:
    """The revision of MLflow's tables; None where there are none."""
    try:
        row = connection.execute("select version_num from alembic_version").fetchone()
    except sqlite3.OperationalError:
        return None
    return None if row is None else str(row[0])


def before_writing(database: Path) -> None:
    """StoreError for a newer schema; a copy of the database, announced, for an older one."""
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        revision = revision_of(connection)
        age = "current" if revision is None else age_of(revision)
        if age == "newer":
            reason, hint = describe_schema(str(revision), "")
            raise StoreError(f"registry {database}: {reason}", hint=hint)
        if age == "older":
            kept = keep_copy(connection, database, str(revision))
            _LOG.warning("MLflow migrates %s; a copy of it as it was stays: %s", database, kept)


def keep_copy(connection: sqlite3.Connection, database: Path, name: str) -> Path:
    """Copy a database beside itself."""
    kept = database.with_name(f"{database.name}.{name}")
    kept.unlink(missing_ok=True)
    connection.execute("vacuum into ?", (str(kept),))
    return kept
