"""Writes to MLflow: one client without global state, and runs from start to end."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import socket
import sqlite3
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

# Of a server MLflow prints addresses of runs, between our results, and bars of its own.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# MLflow would go on for minutes to ask a server that is away, and notice as late that it is back.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.entities.paged_list import PagedList
from sqlalchemy import create_engine, text as sql
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from mindtrace.config.urls import file_path, masked, sqlite_path
from mindtrace.errors import StoreError, hint_if_full
from mindtrace.registry.database import age_of, before_writing, making_file, schema_error
from mindtrace.registry.names import ARTIFACTS, is_below, resolve
from mindtrace.registry.reader import Reader, open_database
from mindtrace.system import file_lock

if TYPE_CHECKING:
    from mindtrace.config.sections import DataSettings
    from mindtrace.data.batches import DataDigests

_LOG = logging.getLogger("mindtrace")
T = TypeVar("T")
End = Literal["FINISHED", "FAILED", "KILLED"]

PATIENCE = 5.0  # seconds
_PORTS = {"http": 80, "https": 443}
_SERVERS = ("http:", "https:", "databricks")
_DATABASES = ("postgresql", "mysql", "mssql")
# MLflow refuses longer values.
_PARAM_LENGTH = 6000
_PARAM_BATCH, _METRIC_BATCH = 100, 500
_PAUSE, _FLUSH = 2.0, 30.0  # seconds between two tries to store metrics; for the last of them
_SCHEMA = re.compile(r"database schema \(found version (\w+)")
_DELETED = re.compile(r"The (experiment|run) (\w+) must be in the 'active' state")
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")

# They log what they raise, with its traceback; we report it.
for _name in ("mlflow", "alembic", "sqlalchemy", "urllib3"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class Store:
    """An MLflow tracking store and registry; `uri` may hold a password and is never shown."""

    # MLflow's fluent functions keep state in module globals: never call them.

    def __init__(self, uri: str, root: Path) -> None:
        """Open a store; a new SQLite file is made with its tables."""
        self.database = database = sqlite_path(uri)
        self.uri = uri
        if database is not None and make_url(uri).database != str(database):
            # `%20` and `?` in a path mean something else in a URL.
            self.uri = URL.create("sqlite", database=str(database)).render_as_string()
        self.root = root
        with store_errors(self.uri):
            ping(uri)
            if database is not None:
                _prepare(database, self.uri)
            self.client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def reader(self) -> Reader:
        """Reads what is in this store."""
        if self.database is not None:
            return open_database(self.database, self.root)
        from mindtrace.registry.client_reader import ClientReader

        return ClientReader(self)

    def experiment_id(self, name: str) -> str:
        """The id of an experiment, made where it does not exist."""
        with store_errors(self.uri):
            if (found := self.client.get_experiment_by_name(name)) is None:
                # A database stores no files, so they go below ROOT; a server stores its own.
                is_server = self.uri.startswith(_SERVERS)
                location = None if is_server else (self.root / ARTIFACTS).as_uri()
                try:
                    return str(self.client.create_experiment(name, location))
                except MlflowException:
                    # Another process may have made it meanwhile.
                    if (found := self.client.get_experiment_by_name(name)) is None:
                        raise
            return str(found.experiment_id)

    def resolved(self, location: str) -> str:
        """A stored location, also `runs:/RUN/...`, as it is with this ROOT in force."""
        if location.startswith("runs:/"):
            run_id, _, name = location.removeprefix("runs:/").partition("/")
            with store_errors(self.uri):
                uri = str(self.client.get_run(run_id).info.artifact_uri)
            location = f"{uri.rstrip('/')}/{name}".rstrip("/")
        return resolve(location, self.root, self.database)

    def claim(self, run_id: str, *, new: bool = False) -> None:
        """Have MLflow write a run's artifacts below this ROOT where it recorded another one."""
        with store_errors(self.uri):
            stored = str(self.client.get_run(run_id).info.artifact_uri)
            here = resolve(stored, self.root, self.database, new=new)
            if here == stored or self.uri.startswith(_SERVERS):
                return
            engine = create_engine(self.uri)
            with engine.begin() as connection:
                change = sql("update runs set artifact_uri = :here where run_uuid = :run_id")
                connection.execute(change, {"here": here, "run_id": run_id})
            engine.dispose()


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turn what MLflow and its database raise into one `StoreError`."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        place = sqlite_path(uri)
        reason = masked((str(error).strip().splitlines() or [type(error).__name__])[0])
        check = "check [registry] tracking_uri and that its store can be written"
        hint: str | None = hint_if_full(error, place and place.parent) or check
        schema = _SCHEMA.search(reason)
        if schema is not None:
            # MLflow recommends an upgrade of the database even where it is the newer one.
            raise schema_error(masked(uri), schema[1]) from error
        if isinstance(error, FileNotFoundError) and error.filename is None:  # os.getcwd()
            reason = "the working directory was deleted"
            hint = "go to a folder that is there"
        if (deleted := _DELETED.search(reason)) is not None:
            kind, its_id = deleted.groups()
            reason = f"{kind} {its_id} was deleted in MLflow"
            hint = f"MLFLOW_TRACKING_URI={masked(uri)} mlflow {kind}s restore --{kind}-id {its_id}"
        raise StoreError(f"registry {masked(uri)}: {reason}", hint=hint) from error


def pages(search: Callable[..., PagedList[T]], *words: str | None, **options: Any) -> Iterator[T]:
    """All that a search of MLflow's finds, page after page."""
    token = None
    while True:
        page = search(*words, page_token=token, **options)
        yield from page
        token = page.token
        if not token:
            return


def upload(store: Store, run_id: str, folder: Path, name: str) -> None:
    """Keep the files of a folder as artifacts of a run: all of them, or none."""
    with store_errors(store.uri):
        try:
            store.client.log_artifacts(run_id, str(folder), name)
        except BaseException:
            with suppress(Exception):  # the first error says why
                delete_artifacts(store, run_id, name)
            raise


def delete_artifacts(store: Store, run_id: str, name: str) -> None:
    """Delete the artifacts of a run under `name`; nothing of another ROOT, which may need it."""
    place = store.resolved(f"runs:/{run_id}")
    folder = file_path(place)
    if folder is None:
        get_artifact_repository(place, tracking_uri=store.uri).delete_artifacts(name)
    elif is_below(folder / name, store.root):
        shutil.rmtree(folder / name, ignore_errors=True)


def if_there(ask: Callable[[], T]) -> T | None:
    """An answer of MLflow's; None where it says that there is no such thing."""
    try:
        return ask()
    except MlflowException as error:
        if error.error_code in _MISSING:
            return None
        raise


def _prepare(database: Path, uri: str) -> None:
    """Make the tables once, however many processes begin together, and set WAL."""
    if database.stat().st_size > 0 and before_writing(database):
        return
    making = making_file(database)
    with file_lock(database.parent / f".{database.name}.lock"):
        if making.exists():
            # The process that made the tables was killed. MLflow cannot continue from there,
            # and the tables are still empty.
            for end in ("", "-journal", "-wal", "-shm"):
                database.with_name(database.name + end).unlink(missing_ok=True)
        if not database.exists() or database.stat().st_size == 0:
            making.touch()
        MlflowClient(tracking_uri=uri, registry_uri=uri).search_experiments(max_results=1)
        making.unlink(missing_ok=True)
        with closing(sqlite3.connect(database, timeout=30)) as connection:
            connection.execute("pragma journal_mode = wal")


def ping(uri: str) -> None:
    """Ask once whether a store answers; raises the errors of `store_errors` as they are."""
    database, parts = sqlite_path(uri), urlsplit(uri)
    if database is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
        for path in (database.parent, database):
            if path.exists() and not os.access(path, os.W_OK):
                raise PermissionError(f"{path} cannot be written")
        with closing(sqlite3.connect(database, timeout=PATIENCE)) as connection:
            connection.execute("select 1 from sqlite_master limit 1").fetchall()
    elif parts.scheme in _PORTS:
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        if parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
            return  # only the proxy can reach it
        try:
            socket.create_connection((host, port), PATIENCE).close()
        except OSError as error:
            raise ConnectionError(f"no answer from {host}:{port}: {error}") from error
    elif parts.scheme.partition("+")[0] in _DATABASES:
        try:
            engine = create_engine(uri)
        except ImportError as error:
            hint = "pip install 'mindtrace[postgres]'"
            raise StoreError(f"registry {masked(uri)}: {error}", hint=hint) from error
        try:
            with engine.connect() as connection:
                if engine.dialect.has_table(connection, "alembic_version"):
                    found = connection.scalar(sql("select version_num from alembic_version"))
                    if age_of(str(found)) != "current":  # MLflow may migrate it silently
                        raise schema_error(masked(uri), str(found))
        finally:
            engine.dispose()


def start_run(
    store: Store, experiment_name: str, run_name: str | None, tags: Mapping[str, str]
) -> Run:
    """A new run."""
    experiment_id = store.experiment_id(experiment_name)
    with store_errors(store.uri):
        created = store.client.create_run(experiment_id, tags=dict(tags), run_name=run_name)
    store.claim(created.info.run_id, new=True)
    return Run(store, created.info.run_id)


def resume_run(store: Store, run_id: str) -> Run:
    """A run that was interrupted, running again."""
    with store_errors(store.uri):
        store.client.update_run(run_id, status="RUNNING")
    store.claim(run_id)
    return Run(store, run_id)


class Run:
    """An MLflow run of ours; a thread sends its metrics, so a training waits for no store."""

    def __init__(self, store: Store, run_id: str) -> None:
        self.store = store
        self.run_id = run_id
        self.ended: End | None = None
        self.note: Callable[[str], object] = _LOG.warning  # hears once that the store is away
        self._rows: list[Metric] = []  # not stored yet
        self._lock = threading.Lock()
        self._sender: threading.Thread | None = None
        self._fault: StoreError | None = None  # why the last of them could not be stored
        self._given_up = threading.Event()

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters; values become text."""
        rows = [Param(key, str(value)[:_PARAM_LENGTH]) for key, value in params.items()]
        with store_errors(self.store.uri):
            for start in range(0, len(rows), _PARAM_BATCH):
                self.store.client.log_batch(self.run_id, params=rows[start : start + _PARAM_BATCH])

    def log_dataset(self, data: DataSettings, digests: DataDigests) -> None:
        """Record what the run trains on; MLflow keeps the first 36 characters of a digest."""
        name = data.source if data.dir is None else Path(data.dir).name
        source = json.dumps({"uri": str(data.dir or data.source)})
        profile = json.dumps(dict(digests.counts))
        found = Dataset(name, digests.data_digest[:36], "local", source, profile=profile)
        context = [InputTag("mlflow.data.context", "training")]
        with store_errors(self.store.uri):
            self.store.client.log_inputs(self.run_id, [DatasetInput(found, context)])

    def rename(self, before: str, name: str) -> None:
        """Give the run another name, if it still has the one before."""
        with store_errors(self.store.uri):
            if self.store.client.get_run(self.run_id).info.run_name == before:
                self.store.client.update_run(self.run_id, name=name)

    def log_text(self, text: str, file: str) -> None:
        """Keep a text as an artifact of the run."""
        with store_errors(self.store.uri):
            self.store.client.log_text(self.run_id, text, file)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Send metrics in the background, until the store has them; `end` waits for them."""
        now = int(time.time() * 1000)
        with self._lock:
            self._rows += [Metric(key, value, now, step) for key, value in metrics.items()]
            if self._sender is None:
                # A daemon: a store that does not answer cannot keep the process from its end.
                name = "mlflow-metrics"
                self._sender = threading.Thread(target=self._send, name=name, daemon=True)
                self._sender.start()

    def flush(self, patience: float = _FLUSH) -> None:
        """Wait until all metrics are stored; StoreError if they are not within `patience`."""
        if (sender := self._sender) is not None:
            sender.join(patience)
        if self._rows:
            late = f"registry {masked(self.store.uri)}: metrics are not stored in {patience:g} s"
            raise self._fault or StoreError(late)

    def end(self, status: End) -> None:
        """Set the final status, once; later calls do nothing."""
        if self.ended is not None:
            return
        self.ended = status
        try:
            self.flush(_FLUSH if status == "FINISHED" else PATIENCE)
        finally:
            self._given_up.set()
            with store_errors(self.store.uri):
                self.store.client.set_terminated(self.run_id, status)

    def _send(self) -> None:
        while not self._given_up.is_set():
            with self._lock:
                rows = self._rows[:_METRIC_BATCH]
                if not rows:
                    self._sender = None
                    return
            try:
                with store_errors(self.store.uri):
                    self.store.client.log_batch(self.run_id, metrics=rows)
            except StoreError as fault:
                if self._fault is None:
                    self.note(f"{fault.message}; metrics are kept until it answers")
                self._fault = fault
                self._given_up.wait(_PAUSE)
                continue
            if self._fault is not None:
                self.note("the registry answers again")
            self._fault = None
            del self._rows[: len(rows)]
