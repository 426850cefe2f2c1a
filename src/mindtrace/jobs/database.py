"""Floor 8: where jobs are kept: tables of our own, beside those of DBOS.

In: SQL with `?` for its values, in a transaction. Out: rows as dictionaries, and one
error for whatever is wrong with the database. One connection is kept; it is opened anew
where it broke while nobody used it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mindtrace.config.urls import masked
from mindtrace.errors import StoreError
from mindtrace.jobs.dialects import Dialect, Postgres, Sqlite

FILE = "jobs.db"
Row = dict[str, Any]

_PATIENCE = 20.0  # seconds to wait for other threads
_READ = "begin"
_TABLES = """
create table if not exists mindtrace_jobs (
    job_id text primary key,
    state text not null,
    submitted_at text not null,
    started_at text,
    ended_at text,
    attempts integer not null default 0,
    epoch integer,
    max_epochs integer,
    val_acc double precision,
    model_name text,
    version integer,
    reused integer not null default 0,
    promotion text,
    error text,
    request text not null,
    request_digest text,
    key_digest text unique,
    dispatched integer not null default 0,
    worker_id text,
    fence integer not null default 0,
    lost integer not null default 0,
    cancelling integer not null default 0,
    registering integer not null default 0,
    promoting integer not null default 0,
    swept integer not null default 0
);
create index if not exists mindtrace_jobs_state on mindtrace_jobs (state);
create table if not exists mindtrace_job_events (
    job_id text not null,
    id integer not null,
    event text not null,
    data text not null,
    primary key (job_id, id)
);
create table if not exists mindtrace_job_log (
    job_id text not null,
    start integer not null,
    text text not null,
    primary key (job_id, start)
);
create table if not exists mindtrace_workers (
    worker_id text primary key,
    expires double precision not null,
    place text not null
)
"""


def open_database(url: str | None, root: Path, *, durable: bool = True) -> Database:
    """The database that `[jobs] database_url` names; nothing is opened yet.

    Args:
        url: None is a file in `root`.
        root: ROOT.
        durable: False for a worker, which writes often: whatever a power cut takes of its
            last moments, it would do again. See `Sqlite`.
    """
    if url is None or url.startswith("sqlite"):
        path = root / FILE if url is None else Path(url.partition(":///")[2].partition("?")[0])
        return Database(Sqlite(path, durable=durable), f"sqlite:///{path}")
    postgres = Postgres(url)
    return Database(postgres, postgres.url)


class Work:
    """A transaction that is open."""

    def __init__(self, dialect: Dialect, connection: Any) -> None:
        self.now = dialect.now
        self.locking = dialect.locking
        self.alone = dialect.alone
        self._dialect = dialect
        self._connection = connection

    def rows(self, sql: str, *values: Any) -> list[Row]:
        """Run a statement; what it returns, if it returns something."""
        cursor = self._connection.execute(self._dialect.sql(sql), values)
        if cursor.description is None:
            return []
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def row(self, sql: str, *values: Any) -> Row | None:
        """Run a statement; its first row, or None."""
        return next(iter(self.rows(sql, *values)), None)

    def changed(self, sql: str, *values: Any) -> int:
        """Run a statement; how many rows it changed."""
        return int(self._connection.execute(self._dialect.sql(sql), values).rowcount)


class Database:
    """Transactions, one at a time.

    Attributes:
        dialect: what kind of database it is.
        url: with its password, if it has one: never to be shown.
    """

    def __init__(self, dialect: Dialect, url: str) -> None:
        self.dialect = dialect
        self.url = url
        self._connection: Any = None
        self._turn = threading.Lock()

    def exists(self) -> bool:
        """Whether there is anything to read; a file that is not there is not made."""
        return self.dialect.exists()

    @contextlib.contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[Work]:
        """All of the block's statements or none of them.

        Args:
            write: whether it will change something; SQLite lets one writer in at a time.

        Raises:
            StoreError: the database is away.
        """
        if not self._turn.acquire(timeout=_PATIENCE):
            raise self._away("it is busy")
        try:
            with self.told():
                work = self._begun(self.dialect.begin if write else _READ)
                try:
                    yield work
                    self._connection.execute("commit")
                except BaseException:
                    self._rolled_back()
                    raise
        finally:
            self._turn.release()

    @contextlib.contextmanager
    def exclusive(self, name: str, patience: float) -> Iterator[Any]:
        """Hold a lock that all processes share; see `Dialect.exclusive`.

        Raises:
            ConflictError: another process holds it.
            StoreError: the database is away.
        """
        with contextlib.ExitStack() as stack:
            with self.told():
                holder = stack.enter_context(self.dialect.exclusive(name, patience))
            yield holder

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Turn what the driver raises in the block into a `StoreError`."""
        try:
            yield
        except self.dialect.errors() as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise self._away(lines[0]) from error

    def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with contextlib.suppress(*self.dialect.errors()):
                connection.close()

    def _begun(self, begin: str) -> Work:
        if self._connection is not None:
            try:
                self._connection.execute(begin)
            except self.dialect.errors():
                self.close()
        if self._connection is None:
            self._connection = self._opened(begin)
        return Work(self.dialect, self._connection)

    def _opened(self, begin: str) -> Any:
        connection = self.dialect.connect()
        try:
            for statement in (self.dialect.begin, self.dialect.alone, *_TABLES.split(";")):
                connection.execute(statement)
            connection.execute("commit")
            connection.execute(begin)
        except BaseException:
            connection.close()
            raise
        return connection

    def _rolled_back(self) -> None:
        # A connection of which we do not know where it stands is of no use any more.
        try:
            self._connection.execute("rollback")
        except self.dialect.errors():
            self.close()

    def _away(self, reason: str) -> StoreError:
        return StoreError(
            f"jobs database {masked(self.url)}: {masked(reason)}",
            hint="check [jobs] database_url and that it can be written",
        )
