"""Floor 8: the two databases that can hold jobs, and where they differ.

In: the address of one. Out: connections in autocommit mode, the few words of SQL that
are not the same in both, and a lock that all processes share.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from mindtrace.errors import ConflictError

_BUSY = 15.0  # seconds to wait for SQLite's one writer
_LOOK_EVERY = 0.2  # seconds between two tries to get a lock
_CONNECT = 5  # seconds until a silent server is away
# Of a session with PostgreSQL. The second lets go of a row that a stopped process holds;
# by the last three the server itself notices a machine that is gone, and lets go of its locks.
_SESSION = {
    "statement_timeout": "15s",
    "idle_in_transaction_session_timeout": "5s",
    "client_min_messages": "warning",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}


class Dialect(Protocol):
    """What `Database` must know of a kind of database."""

    now: str
    """SQL for the database's own clock, seconds since 1970."""
    locking: str
    """SQL behind a `select` whose row will be changed."""
    begin: str
    """SQL that begins a transaction which will write."""
    alone: str
    """SQL, first in such a transaction, that lets nobody else make tables meanwhile."""

    def connect(self) -> Any:
        """A new connection that commits each statement by itself."""

    def sql(self, text: str) -> str:
        """A statement with `?` for its values, as the driver wants it."""

    def errors(self) -> tuple[type[Exception], ...]:
        """What the driver raises."""

    def exists(self) -> bool:
        """Whether there is anything to read without making it."""

    def exclusive(self, name: str, patience: float) -> contextlib.AbstractContextManager[Any]:
        """A lock that the system takes back from a process that is gone.

        Yields a connection that holds it, or None where a file does.

        Raises:
            ConflictError: another process holds it for longer than `patience` seconds.
        """


class Sqlite:
    """A file; its directory takes the locks."""

    now = "((julianday('now') - 2440587.5) * 86400.0)"
    locking = ""
    begin = "begin immediate"  # a read that turns into a write would fail, not wait
    alone = "select 1"  # it has begun, so we are

    def __init__(self, path: Path, *, durable: bool) -> None:
        """Name a file.

        Args:
            path: where it is, or will be.
            durable: whether what was written outlives a power cut at once; else within
                moments. Nothing but a power cut tells the difference.
        """
        self.path = path
        self.durable = durable

    def connect(self) -> sqlite3.Connection:
        """Open the file, made where it does not exist; it stays in WAL mode."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self.path, timeout=_BUSY, isolation_level=None, check_same_thread=False
        )
        try:
            if connection.execute("pragma journal_mode").fetchone() != ("wal",):
                self._turn_to_wal(connection)
            connection.execute(f"pragma synchronous = {'full' if self.durable else 'normal'}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _turn_to_wal(self, connection: sqlite3.Connection) -> None:
        try:
            with self.exclusive("wal", _BUSY):  # SQLite itself would not wait for it
                connection.execute("pragma journal_mode = wal")
        except ConflictError as error:
            raise sqlite3.OperationalError(error.message) from error

    def sql(self, text: str) -> str:
        """As it is."""
        return text

    def errors(self) -> tuple[type[Exception], ...]:
        """Those of sqlite3 and of the file."""
        return (sqlite3.Error, OSError)

    def exists(self) -> bool:
        """Whether somebody made the file."""
        return self.path.exists()

    @contextlib.contextmanager
    def exclusive(self, name: str, patience: float) -> Iterator[None]:
        """The lock of a file beside the database.

        It is never removed: who waits for it has it open, and would wait for nothing.
        """
        folder = self.path.with_name(f"{self.path.name}.locks")
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _patiently(lambda: locked(descriptor), name, patience)
            yield None
        finally:
            os.close(descriptor)


class Postgres:
    """A server; each connection ends by itself where its process or machine is gone."""

    now = "extract(epoch from clock_timestamp())"
    locking = "for update"
    begin = "begin"
    alone = "select pg_advisory_xact_lock(1853320292)"

    def __init__(self, url: str) -> None:
        _, _, rest = url.partition("://")
        self.url = f"postgresql://{rest}"  # whatever driver a `+` named, ours is psycopg

    def connect(self) -> Any:
        """Connect, so that nothing ever waits for long."""
        import psycopg

        return psycopg.connect(
            self.url,
            autocommit=True,
            connect_timeout=_CONNECT,
            options=" ".join(f"-c {name}={value}" for name, value in _SESSION.items()),
            keepalives=1,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=20_000,
            application_name="mindtrace",
        )

    def sql(self, text: str) -> str:
        """With the placeholders of psycopg; no statement of ours has another `?` or a `%`."""
        return text.replace("?", "%s")

    def errors(self) -> tuple[type[Exception], ...]:
        """Those of psycopg."""
        import psycopg

        return (psycopg.Error, OSError)

    def exists(self) -> bool:
        """Nobody knows without asking."""
        return True

    @contextlib.contextmanager
    def exclusive(self, name: str, patience: float) -> Iterator[Any]:
        """An advisory lock of a connection, which is of no other use."""
        connection = self.connect()
        number = _number(name)

        def mine() -> bool:
            row = connection.execute("select pg_try_advisory_lock(%s)", (number,)).fetchone()
            return bool(row[0])

        try:
            _patiently(mine, name, patience)
            yield connection
        finally:
            connection.close()


def locked(descriptor: int) -> bool:
    """Lock an open file for us alone; False where somebody else has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _patiently(mine: Callable[[], bool], name: str, patience: float) -> None:
    deadline = time.monotonic() + patience
    while not mine():
        if time.monotonic() > deadline:
            raise ConflictError(f"somebody else still holds '{name}' after {patience:.0f} s")
        time.sleep(_LOOK_EVERY)


def _number(name: str) -> int:
    """63 bits for a name: what an advisory lock goes by."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
