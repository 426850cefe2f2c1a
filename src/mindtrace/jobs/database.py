"""The database of jobs: DBOS's own tables, and one of ours beside them, in SQLite or PostgreSQL."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from mindtrace.config.urls import masked
from mindtrace.errors import StoreError, hint_if_full
from mindtrace.jobs.job import Job, Request, database_file
from mindtrace.system import file_lock

if TYPE_CHECKING:
    from dbos import DBOSClient

APPLICATION = "mindtrace-jobs"
WORKFLOW, QUEUE, VERSION = "train", "training", "2"
RECORD, EVENTS, LOG = "job", "events", "log"  # the names of our DBOS event and streams
REQUEST, KEY = "request", "key"  # attributes of a workflow
_LOCK = "select pg_advisory_xact_lock(1853320292)"

# Options of a PostgreSQL session. A stopped process must not hold a row for long, and the server
# must notice a machine that is gone. Our tables are in DBOS's schema.
_SESSION = {
    "search_path": "dbos,public",
    "statement_timeout": "15s",
    "idle_in_transaction_session_timeout": "5s",
    "client_min_messages": "warning",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
_CONNECT = {
    "options": " ".join(f"-c {name}={value}" for name, value in _SESSION.items()),
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "application_name": "mindtrace",
}
# The database's own clock, in seconds since 1970.
_NOW = {
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
    "postgresql": "extract(epoch from clock_timestamp())",
}

workflows = sa.table(
    "workflow_status",
    *map(sa.column, ("workflow_uuid", "status", "name", "executor_id", "recovery_attempts")),
    *map(sa.column, ("queue_name", "completed_at")),
    sa.column("attributes", sa.JSON().with_variant(JSONB(), "postgresql")),
)
records = sa.table(
    "workflow_events", *map(sa.column, ("workflow_uuid", "key", "value", "serialization"))
)
streams = sa.table("streams", *map(sa.column, ("workflow_uuid", "key", "value", "offset")))
heartbeats = sa.Table(
    "mindtrace_heartbeats",
    sa.MetaData(),
    sa.Column("executor_id", sa.Text, primary_key=True),
    sa.Column("expires", sa.Double, nullable=False),
)

# Earlier releases kept jobs in a table of their own in the same database.
LEGACY = "mindtrace_jobs"
_LEGACY_STATUSES = {"succeeded": "SUCCESS", "failed": "ERROR", "cancelled": "CANCELLED"}
# What they had DBOS keep of a job; it must not run again.
_LEGACY_TABLES = ("workflow_input", "workflow_output", "operation_outputs", "workflow_status")

log = logging.getLogger("mindtrace.jobs")


class Database:
    """Connections to `[jobs] database_url` (None: a file in ROOT); a worker is not `durable`."""

    def __init__(self, url: str | None, root: Path, *, durable: bool = True) -> None:
        self._file = database_file(url, root)
        if self._file is None:
            address = sa.make_url(str(url)).set(drivername="postgresql+psycopg")
            self.engine = sa.create_engine(address, connect_args=_CONNECT, pool_pre_ping=True)
        else:
            self.engine = _sqlite_engine(self._file, durable=durable)
        self.now: sa.ColumnElement[float] = sa.literal_column(_NOW[self.engine.dialect.name])
        self._url = self.engine.url.render_as_string(hide_password=False)
        self._exists = False

    @functools.cached_property
    def client(self) -> DBOSClient:
        """DBOS's client; creates and migrates the database, and adopts jobs of old releases."""
        # Half a second and 60 MB: only for callers that change something.
        from dbos import DBOS, DBOSClient, DBOSPortableJSONSerializer

        _hush_dbos()
        client = DBOSClient(
            system_database_engine=self.engine,
            serializer=DBOSPortableJSONSerializer(),
            application_name=APPLICATION,
            lazy=True,
            retry_connection_errors=False,
        )
        with self.reported(), self._locked_file():
            DBOS.migrate(self._url)
            with self.locked() as connection:
                heartbeats.create(connection, checkfirst=True)
                if sa.inspect(connection).has_table(LEGACY):
                    _adopt_legacy(client, connection)
        return client

    def rows(self, query: sa.Select[Any]) -> Sequence[Any]:
        """The rows of a query; none, without creating anything, where there is no database."""
        with self.reported():
            if not self._exists:
                if self._file is not None and not self._file.exists():
                    return []
                tables = sa.inspect(self.engine)
                if tables.has_table(LEGACY):
                    _ = self.client
                self._exists = tables.has_table(heartbeats.name)
                if not self._exists:
                    return []
            with self.engine.connect() as connection:
                return connection.execute(query).all()

    @contextlib.contextmanager
    def changing(self) -> Iterator[sa.Connection]:
        """A transaction; StoreError."""
        with self.reported(), self.engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def locked(self) -> Iterator[sa.Connection]:
        """A transaction that waits until no other one is in this block; StoreError."""
        with self.changing() as connection:
            connection.exec_driver_sql(_LOCK if self._file is None else "begin immediate")
            yield connection

    @contextlib.contextmanager
    def reported(self) -> Iterator[None]:
        """Turn the database's errors in the block into a `StoreError`."""
        try:
            yield
        except (sa.exc.SQLAlchemyError, OSError) as error:
            cause = getattr(error, "orig", None) or error
            reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
            hint = hint_if_full(cause) or "check [jobs] database_url and that it can be written"
            message = f"jobs database {masked(self._url)}: {masked(reason)}"
            raise StoreError(message, hint=hint) from error

    def close(self) -> None:
        self.engine.dispose()

    @contextlib.contextmanager
    def _locked_file(self) -> Iterator[None]:
        """Only this process creates the file; PostgreSQL has its own locks."""
        if self._file is None:
            yield
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(self._file.with_name(f"{self._file.name}.lock")):
            with self.engine.connect() as connection:
                connection.exec_driver_sql("pragma journal_mode = wal")  # fails at once if busy
            yield


def _sqlite_engine(file: Path, *, durable: bool) -> sa.Engine:
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(file)))

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        # A read that turns into a write would fail at once, whatever the timeout.
        connection.isolation_level = "IMMEDIATE"
        connection.execute("pragma busy_timeout = 15000")
        connection.execute("pragma foreign_keys = on")
        connection.execute(f"pragma synchronous = {'full' if durable else 'normal'}")

    return engine


def enqueue(
    client: DBOSClient,
    connection: sa.Connection,
    job_id: str,
    request: Request,
    request_digest: str | None,
    key_digest: str | None,
) -> None:
    """Insert a job in a transaction."""
    client.enqueue_in_transaction(
        connection,
        {
            "workflow_name": WORKFLOW,
            "queue_name": QUEUE,
            "workflow_id": job_id,
            "app_version": VERSION,
            "attributes": {REQUEST: request_digest, KEY: key_digest},
        },
        asdict(request),
    )


def _adopt_legacy(client: DBOSClient, connection: sa.Connection) -> None:
    """Move the old table's jobs to DBOS under their own ids; unfinished ones wait again."""
    ids = f"select job_id from {LEGACY}"
    for name in _LEGACY_TABLES:
        connection.execute(sa.text(f"delete from {name} where workflow_uuid in ({ids})"))
    found: Any = connection.execute(sa.text(f"select * from {LEGACY} order by job_id"))
    for row in found.mappings().all():
        job_id, request = row["job_id"], Request.from_fields(json.loads(row["request"]))
        enqueue(client, connection, job_id, request, row["request_digest"], row["key_digest"])
        record = Job.from_record(job_id, row["state"], row).record()
        for name in ("promotion", "error"):
            record[name] = None if record[name] is None else json.loads(record[name])
        values = {"workflow_uuid": job_id, "key": RECORD, "serialization": "portable_json"}
        record["reused"] = bool(record["reused"])
        connection.execute(sa.insert(records).values(**values, value=json.dumps(record)))
        if row["state"] in _LEGACY_STATUSES:
            ours = workflows.c.workflow_uuid == job_id
            status = _LEGACY_STATUSES[row["state"]]
            connection.execute(sa.update(workflows).where(ours).values(status=status))
    connection.execute(sa.text(f"alter table {LEGACY} rename to {LEGACY}_before"))


def _hush_dbos() -> None:
    """DBOS's warnings become lines of our log, one each, without tracebacks."""
    logger = logging.getLogger("dbos")
    if not any(isinstance(handler, _Relay) for handler in logger.handlers):
        logger.propagate = False
        logger.addHandler(_Relay())


class _Relay(logging.Handler):
    # DBOS's lines about a job that was cancelled, failed or taken over; ours are better.
    _EXPECTED = ("Exception encountered in background workflow", "Waiting for the")

    def emit(self, record: logging.LogRecord) -> None:
        text = (record.getMessage().splitlines() or [""])[0]
        if record.levelno >= logging.WARNING and not any(part in text for part in self._EXPECTED):
            log.log(record.levelno, "dbos: %s", text)
