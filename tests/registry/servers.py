"""Real servers for tests: PostgreSQL and `mlflow server`, on loopback, in a folder of their own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 120.0  # seconds: until a server that does not start fails its test
PASSWORD = "geheim"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[Any], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


@contextmanager
def mlflow_server(folder: Path, port: int | None = None) -> Iterator[str]:
    """Its URL."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    words = f"--host 127.0.0.1 --port {port} --workers 1 --backend-store-uri sqlite:///s.db"
    place = ["--artifacts-destination", str(folder / "artifacts")]
    quiet = {"no_proxy": "127.0.0.1", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *words.split(), *place],
            cwd=folder,
            stdout=log,
            stderr=log,
            env={**os.environ, **quiet},
        )
        try:
            wait_until(lambda: _is_healthy(url), process, folder / "log.txt")
            yield url
        finally:
            process.terminate()
            process.wait(timeout=PATIENCE)


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def postgres_programs() -> Path:
    """The folder of `initdb` and `postgres`; Debian keeps them off the PATH.

    Without them the test that asks is skipped, but never in continuous integration.
    """
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for place in places:
        if (place / "postgres").exists():
            return place
    assert os.environ.get("CI") != "true", "continuous integration installs PostgreSQL"
    pytest.skip("no PostgreSQL server program: apt-get install postgresql")


def _user() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


@contextmanager
def postgres_server(programs: Path) -> Iterator[str]:
    """A URL with its password, without a database at its end."""
    with postgres_folder(programs) as folder, running_postgres(programs, folder) as url:
        yield url


@contextmanager
def postgres_folder(programs: Path) -> Iterator[Path]:
    """The folder of a server that does not run yet."""
    user = _user()
    folder = Path(tempfile.mkdtemp(prefix="mindtrace-pg-"))  # short: sockets have short names
    try:
        (folder / "password").write_text(PASSWORD)
        if user is not None:
            for path in (folder, folder / "password"):
                shutil.chown(path, user)
        made = subprocess.run(
            [
                *(programs / "initdb", "-D", folder / "data", "-U", "mindtrace"),
                *("-A", "scram-sha-256", "--pwfile", folder / "password"),
                *("--no-sync", "-E", "UTF8", "--locale=C"),
            ],
            user=user,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert made.returncode == 0, made.stderr
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_postgres(programs: Path, folder: Path, port: int | None = None) -> Iterator[str]:
    """The same URL as `postgres_server`, of a folder that may have been served before."""
    port = port or free_port()
    settings = ["-p", str(port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1"]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [programs / "postgres", "-D", folder / "data", "-F", *settings],
            user=_user(),
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    url = f"postgresql://mindtrace:{PASSWORD}@127.0.0.1:{port}"
    try:
        wait_until(lambda: _connects(f"{url}/postgres"), process, folder / "log.txt")
        yield url
    finally:
        process.send_signal(signal.SIGINT)  # its fast way: clients are not waited for
        process.wait(timeout=PATIENCE)


def _connects(url: str) -> bool:
    import psycopg

    try:
        psycopg.connect(url, connect_timeout=1).close()
    except psycopg.OperationalError:
        return False
    return True


def execute(url: str, statement: str) -> None:
    """One statement, outside any transaction."""
    import psycopg

    connection = psycopg.connect(url)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()


def run_together(script: str, *arguments: str, count: int, **environment: str) -> list[str]:
    """What processes wrote that printed `ready`, read a line, and so went on at one moment."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        for _ in range(count)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    ended = [process.communicate(timeout=PATIENCE) for process in started]
    assert [process.returncode for process in started] == [0] * count, ended
    return [out for out, _ in ended]
