"""A queue in a database of each kind, and a workplace over SQLite, all empty."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from tests.registry.servers import execute, postgres_programs, postgres_server

from mindtrace.jobs.attempt import Workplace
from mindtrace.jobs.process import listed_environment
from mindtrace.jobs.queue import JobQueue


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL server, without a database at its end."""
    with postgres_server(postgres_programs()) as url:
        yield url


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[str]:
    """The URL of an empty database."""
    name = f"jobs_{uuid4().hex}"
    execute(f"{postgres_url}/postgres", f"create database {name}")
    yield f"{postgres_url}/{name}"
    execute(f"{postgres_url}/postgres", f"drop database if exists {name} with (force)")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """`[jobs] database_url`: None is SQLite in ROOT."""
    if request.param == "sqlite":
        return None
    url: str = request.getfixturevalue("postgres_database")
    return url


@pytest.fixture
def queue(database_url: str | None, tmp_path: Path) -> Iterator[JobQueue]:
    opened = JobQueue(database_url, tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Workplace]:
    queue = JobQueue(None, tmp_path)
    environ = listed_environment(os.environ, {"DIR_PATHS__ROOT": str(tmp_path)})
    yield Workplace(queue, tmp_path, tmp_path / "checkpoints", environ, threading.Event())
    queue.close()
