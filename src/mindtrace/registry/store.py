"""The way to MLflow for whoever writes: one client, no global state.

In: a tracking URI. Out: a `Store`, whose errors are ours. Everything goes through
`MlflowClient(tracking_uri=...)` and explicit run ids; MLflow's fluent functions keep
their state in module globals and are never called.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Of a server MLflow prints addresses of runs, between our results, and bars of its own.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.entities.paged_list import PagedList
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from mindtrace.config.redact import masked
from mindtrace.config.urls import sqlite_path
from mindtrace.errors import StoreError
from mindtrace.registry.names import ARTIFACTS
from mindtrace.registry.reach import reach

T = TypeVar("T")
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")

for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class Store:
    """An MLflow tracking store and registry.

    Attributes:
        client: bound to `uri`.
        uri: as configured, with its password if it has one: never to be shown.
        root: where local artifacts go.
    """

    def __init__(self, uri: str, root: Path) -> None:
        """Open a store; a new SQLite file is made with its tables.

        Raises:
            StoreError: it cannot be reached or written.
        """
        database = sqlite_path(uri)
        self.uri = uri if database is None else _as_sqlalchemy_reads_it(database, uri)
        self.root = root
        with store_errors(self.uri):
            reach(uri)
            if database is not None:
                _prepare(database, self.uri)
            self.client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def experiment_id(self, name: str) -> str:
        """The id of an experiment, made where it does not exist."""
        with store_errors(self.uri):
            found = self.client.get_experiment_by_name(name)
            if found is not None:
                return str(found.experiment_id)
            try:
                return str(self.client.create_experiment(name, self._artifact_location()))
            except MlflowException:
                # Somebody else may have made it meanwhile.
                again = self.client.get_experiment_by_name(name)
                if again is None:
                    raise
                return str(again.experiment_id)

    def _artifact_location(self) -> str | None:
        """Beside the database for a database; a server has a place of its own."""
        if self.uri.startswith(("http:", "https:", "databricks")):
            return None
        return (self.root / ARTIFACTS).as_uri()


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turn what MLflow and its database raise into one `StoreError`."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise StoreError(
            f"registry {masked(uri)}: {masked(lines[0])}",
            hint="check [registry] tracking_uri and that its store can be written",
        ) from error


def pages(search: Callable[..., PagedList[T]], *words: str | None, **options: Any) -> Iterator[T]:
    """All that a search of MLflow's finds, page after page."""
    token = None
    while True:
        page = search(*words, page_token=token, **options)
        yield from page
        token = page.token
        if not token:
            return


def if_there(ask: Callable[[], T]) -> T | None:
    """An answer of MLflow's; None where it says that there is no such thing."""
    try:
        return ask()
    except MlflowException as error:
        if error.error_code in _MISSING:
            return None
        raise


def _as_sqlalchemy_reads_it(database: Path, uri: str) -> str:
    """A URI that means this file; `%20` and `?` in a path mean something else in one."""
    quoted = "sqlite:///" + str(database).replace("%", "%25").replace("?", "%3F")
    for text in (uri, quoted):
        if make_url(text).database == str(database):
            return text
    raise StoreError(
        f"registry {database}: this path cannot be written as a URL",
        hint="set [DIR_PATHS] ROOT to a folder without % and ? in its name",
    )


def _prepare(database: Path, uri: str) -> None:
    """Make the tables once, however many processes begin together, and set WAL."""
    if database.stat().st_size > 0 and _is_wal(database):
        return
    making = database.parent / f".{database.name}.making"
    with (database.parent / f".{database.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if making.exists():
            # Who made the tables died over it. MLflow cannot go on from there, and nobody
            # has put anything into them yet.
            for end in ("", "-journal", "-wal", "-shm"):
                database.with_name(database.name + end).unlink(missing_ok=True)
        if not database.exists() or database.stat().st_size == 0:
            making.touch()
        MlflowClient(tracking_uri=uri, registry_uri=uri).search_experiments(max_results=1)
        making.unlink(missing_ok=True)
        with sqlite3.connect(database, timeout=30) as connection:
            connection.execute("pragma journal_mode = wal")
        connection.close()


def _is_wal(database: Path) -> bool:
    # Asked of SQLite: whoever opens the file himself and closes it again takes away every
    # lock that this process holds on it, and a reader of ours may be open.
    connection = sqlite3.connect(database, timeout=30)
    try:
        return bool(connection.execute("pragma journal_mode").fetchone() == ("wal",))
    finally:
        connection.close()
