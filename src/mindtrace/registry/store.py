"""The way to MLflow for whoever writes: one client, no global state.

In: a tracking URI. Out: a `Store`, whose errors are ours. Everything goes through
`MlflowClient(tracking_uri=...)` and explicit run ids; MLflow's fluent functions keep
their state in module globals and are never called.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import sqlite3
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Of a server MLflow prints addresses of runs, between our results, and bars of its own.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.store.entities.paged_list import PagedList
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from mindtrace.config.urls import masked, sqlite_path
from mindtrace.errors import StoreError
from mindtrace.registry.names import ARTIFACTS

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
            ping(uri)
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


PATIENCE = 5.0  # seconds
_PORTS = {"http": 80, "https": 443}
_DATABASES = ("postgresql", "mysql", "mssql")


def ping(uri: str) -> None:
    """Knock once.

    Raises:
        StoreError: there is no driver for this database.
        OSError, sqlite3.Error, sqlalchemy.exc.SQLAlchemyError: nobody answers.
    """
    database = sqlite_path(uri)
    if database is not None:
        _open_file(database)
    elif urlsplit(uri).scheme in _PORTS:
        _open_port(uri)
    elif urlsplit(uri).scheme.partition("+")[0] in _DATABASES:
        _connect(uri)


def _open_file(database: Path) -> None:
    database.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(database, timeout=PATIENCE)) as connection:
        connection.execute("select 1 from sqlite_master limit 1").fetchall()


def _open_port(uri: str) -> None:
    parts = urlsplit(uri)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    behind_proxy = parts.scheme in urllib.request.getproxies()
    if behind_proxy and not urllib.request.proxy_bypass(host):
        # Who is behind a proxy cannot be knocked at from here.
        return
    try:
        socket.create_connection((host, port), PATIENCE).close()
    except OSError as error:
        raise ConnectionError(f"no answer from {host}:{port}: {error}") from error


def _connect(uri: str) -> None:
    try:
        engine = create_engine(uri)
    except ImportError as error:
        raise StoreError(
            f"registry {masked(uri)}: {error}", hint="pip install 'mindtrace[postgres]'"
        ) from error
    try:
        engine.connect().close()
    finally:
        engine.dispose()


End = Literal["FINISHED", "FAILED", "KILLED"]

# MLflow refuses longer values.
_PARAM_LENGTH = 6000
_PARAM_BATCH = 100


def start_run(
    store: Store, experiment_name: str, run_name: str | None, tags: Mapping[str, str]
) -> Run:
    """A new run.

    Raises:
        StoreError: the store is away.
    """
    experiment_id = store.experiment_id(experiment_name)
    with store_errors(store.uri):
        created = store.client.create_run(experiment_id, tags=dict(tags), run_name=run_name)
    return Run(store, created.info.run_id)


def resume_run(store: Store, run_id: str) -> Run:
    """A run that was interrupted, running again.

    Raises:
        StoreError: the store is away, or has no such run.
    """
    with store_errors(store.uri):
        store.client.update_run(run_id, status="RUNNING")
    return Run(store, run_id)


class Run:
    """An MLflow run of ours.

    Attributes:
        run_id: MLflow's.
        ended: the last word, or None while it runs.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        """Take up a run that the store has; `start_run` makes one."""
        self.store = store
        self.run_id = run_id
        self.ended: End | None = None
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="mlflow-metrics")
        self._sent: list[Future[None]] = []

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters; values become text."""
        rows = [Param(key, str(value)[:_PARAM_LENGTH]) for key, value in params.items()]
        with store_errors(self.store.uri):
            for start in range(0, len(rows), _PARAM_BATCH):
                self.store.client.log_batch(self.run_id, params=rows[start : start + _PARAM_BATCH])

    def log_text(self, text: str, file: str) -> None:
        """Keep a text as an artifact of the run."""
        with store_errors(self.store.uri):
            self.store.client.log_text(self.run_id, text, file)

    def log_folder(self, folder: Path, name: str) -> None:
        """Keep the files of a folder as artifacts of the run, under `name`."""
        with store_errors(self.store.uri):
            self.store.client.log_artifacts(self.run_id, str(folder), name)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Send metrics in the background; `end` waits for them."""
        now = int(time.time() * 1000)
        rows = [Metric(key, value, now, step) for key, value in metrics.items()]
        self._sent.append(self._sender.submit(self._send, rows))

    def flush(self) -> None:
        """Wait until all metrics are stored.

        Raises:
            StoreError: some could not be.
        """
        sent, self._sent = self._sent, []
        for future in sent:
            future.result()

    def end(self, status: End) -> None:
        """Say the last word; a second one is not heard."""
        if self.ended is not None:
            return
        self.ended = status
        try:
            self.flush()
        finally:
            self._sender.shutdown()
            with store_errors(self.store.uri):
                self.store.client.set_terminated(self.run_id, status)

    def _send(self, rows: list[Metric]) -> None:
        with store_errors(self.store.uri):
            self.store.client.log_batch(self.run_id, metrics=rows)
