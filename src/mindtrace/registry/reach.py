"""Whether a store answers at all, found out in one try.

In: a tracking URI. Out: nothing, or what is wrong. MLflow itself tries again and again,
for two minutes with a database and four with a server, and warns each time.
"""

from __future__ import annotations

import socket
import sqlite3
import urllib.request
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import create_engine

from mindtrace.config.redact import masked
from mindtrace.config.urls import sqlite_path
from mindtrace.errors import StoreError

PATIENCE = 5.0  # seconds
_PORTS = {"http": 80, "https": 443}
_DATABASES = ("postgresql", "mysql", "mssql")


def reach(uri: str) -> None:
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
