"""MLflow's database as a file: opened to read, its schema, a copy before it is migrated."""

import importlib.util
import logging
import os
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from mindtrace.errors import StoreError

_LOG = logging.getLogger("mindtrace")
BUSY_TIMEOUT = 5.0  # seconds


def making_file(database: Path) -> Path:
    """The file that exists until all tables of a new database are made; they are empty so far."""
    return database.with_name(f".{database.name}.making")


def connect(database: Path) -> sqlite3.Connection:
    """A connection to read by, also where nothing can be written."""
    # rw, not ro: after a writer was killed only a connection that may write can roll its
    # journal back; query_only keeps us readers all the same.
    try:
        return _opened(database, "mode=rw")
    except sqlite3.OperationalError:
        with suppress(sqlite3.OperationalError):
            return _opened(database, "mode=ro")
        full = shutil.disk_usage(database.parent).free < 2**16
        if os.access(database.parent, os.W_OK) and not full:
            raise
    # Nobody can make the files that WAL needs. Without a journal to roll back or forward the
    # database is whole as it is; else a copy of both is.
    journals = [database.with_name(database.name + end) for end in ("-wal", "-journal")]
    hot = [path for path in journals if path.exists() and path.stat().st_size]
    if not hot:
        return _opened(database, "mode=ro&immutable=1")
    memory = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    with TemporaryDirectory(prefix="mindtrace-") as folder:
        for path in (database, *hot):
            shutil.copyfile(path, Path(folder, path.name))
        with closing(_opened(Path(folder, database.name), "mode=rw")) as copy:
            copy.backup(memory)
    return memory


def _opened(database: Path, how: str) -> sqlite3.Connection:
    quoted = str(database).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    uri = f"file:{quoted}?{how}"
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY_TIMEOUT, check_same_thread=False, isolation_level=None
    )
    try:
        connection.execute("select 1 from sqlite_master limit 1").fetchall()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def age_of(revision: str) -> Literal["older", "current", "newer"]:
    """How a schema stands to the installed MLflow, by the files of its migrations."""
    mlflow = importlib.util.find_spec("mlflow")
    migrations = Path(mlflow.origin if mlflow and mlflow.origin else "").parent / "store"
    files = [*migrations.glob("db_migrations/versions/*.py")]
    if not any(file.name.startswith(f"{revision}_") for file in files):
        return "newer"
    follows = f'down_revision = "{revision}"'
    return "older" if any(follows in file.read_text("utf-8") for file in files) else "current"


def schema_error(place: Path | str, revision: str | None, lacks: str = "") -> StoreError:
    """Why the schema of a store, a file or a URI, cannot be used, and what to do."""
    if revision is None:
        reason = "it has no tables of MLflow"
        hint = "check [registry] tracking_uri; the first training makes the tables"
    elif age_of(revision) == "newer":
        reason = f"the database is newer than this MLflow (schema revision {revision}){lacks}"
        hint = "pip install --upgrade mindtrace mlflow"
    else:
        reason = f"its schema (revision {revision}) is of an older MLflow{lacks}"
        hint = f"mlflow db upgrade {place if '://' in str(place) else f'sqlite:///{place}'}"
    return StoreError(f"registry {place}: {reason}", hint=hint)


def revision_of(connection: sqlite3.Connection) -> str | None:
    """The revision of MLflow's tables; None where there are none."""
    try:
        row = connection.execute("select version_num from alembic_version").fetchone()
    except sqlite3.OperationalError:
        return None
    return None if row is None else str(row[0])


def before_writing(database: Path) -> bool:
    """StoreError for a newer schema, a copy, announced, of an older one; whether it has WAL."""
    # By SQLite, because opening and closing the file ourselves would drop every lock that this
    # process holds on it (POSIX), and a reader may be open.
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        revision = revision_of(connection)
        age = "current" if revision is None else age_of(revision)
        if age == "newer":
            raise schema_error(database, revision)
        if age == "older":
            kept = keep_copy(connection, database, str(revision))
            _LOG.warning("MLflow migrates %s; a copy of it as it was stays: %s", database, kept)
        return bool(connection.execute("pragma journal_mode").fetchone() == ("wal",))


def keep_copy(connection: sqlite3.Connection, database: Path, name: str) -> Path:
    """Copy a database beside itself."""
    kept = database.with_name(f"{database.name}.{name}")
    kept.unlink(missing_ok=True)
    connection.execute("vacuum into ?", (str(kept),))
    return kept
