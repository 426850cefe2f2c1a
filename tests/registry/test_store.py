"""The way to MLflow: made once, in WAL mode, errors in one line and without passwords."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from mindtrace.errors import StoreError
from mindtrace.registry.reader import open_database
from mindtrace.registry.store import Store, store_errors

OPEN = """
import pathlib, sys
from mindtrace.registry.store import Store
print("ready", flush=True)
sys.stdin.read()
store = Store(sys.argv[1], pathlib.Path(sys.argv[2]))
print(store.experiment_id("shared"))
"""


def pragma(database: Path, name: str) -> str:
    connection = sqlite3.connect(database)
    try:
        return str(connection.execute(f"pragma {name}").fetchone()[0])
    finally:
        connection.close()


def test_a_new_store_has_the_tables_that_are_read_and_wal(tmp_path: Path) -> None:
    database = tmp_path / "new" / "folder" / "mlflow.db"

    Store(f"sqlite:///{database}", tmp_path)

    assert open_database(database).names() == []
    assert pragma(database, "journal_mode") == "wal"


def test_artifacts_go_into_root_and_not_into_the_working_directory(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    run = store.client.create_run(store.experiment_id("any"))
    store.client.log_text(run.info.run_id, "text", "file.txt")

    assert list((tmp_path / "cwd").iterdir()) == []
    (file,) = store.root.glob("mlartifacts/*/artifacts/file.txt")
    assert file.read_text() == "text"


@pytest.mark.slow
def test_processes_that_begin_together_share_one_new_store(tmp_path: Path) -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, f"sqlite:///{tmp_path / 'mlflow.db'}", str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )
        for _ in range(4)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    answers = [process.communicate("") for process in started]

    assert [process.returncode for process in started] == [0] * 4, answers
    assert len({out for out, _ in answers}) == 1


@pytest.mark.parametrize(
    "error",
    [
        MlflowException("first\nsecond"),
        sqlite3.OperationalError("locked"),
        PermissionError(13, "no"),
    ],
)
def test_what_mlflow_raises_becomes_one_line_with_a_hint(error: Exception) -> None:
    with pytest.raises(StoreError) as caught, store_errors("sqlite:///x.db"):
        raise error

    assert "\n" not in caught.value.message
    assert caught.value.message.startswith("registry sqlite:///x.db: ")
    assert "tracking_uri" in str(caught.value.hint)


def test_a_schema_newer_than_mlflow_is_not_said_to_need_an_upgrade() -> None:
    text = "Detected out-of-date database schema (found version 0123456789ab, but expected dc11)."

    with pytest.raises(StoreError) as caught, store_errors("sqlite:///x.db"):
        raise MlflowException(text + " Take a backup, then run 'mlflow db upgrade <database_uri>'")

    assert "0123456789ab) is newer than the installed MLflow" in caught.value.message
    assert "--upgrade mindtrace mlflow" in str(caught.value.hint)


def test_a_password_is_in_no_message() -> None:
    uri = "postgresql://user:geheim@127.0.0.1:1/db"

    with pytest.raises(StoreError) as caught, store_errors(uri):
        raise MlflowException(f"could not connect to {uri}")

    assert "geheim" not in caught.value.message


@pytest.fixture
def closed_port() -> int:
    """A port of this machine at which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:{port}", "postgresql://user:geheim@127.0.0.1:{port}/db"]
)
def test_a_store_that_is_away_is_told_after_one_try(
    root: Path, closed_port: int, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StoreError) as caught:
        Store(uri.format(port=closed_port), root)

    assert "\n" not in caught.value.message
    assert f"127.0.0.1:{closed_port}" in caught.value.message
    assert "geheim" not in caught.value.message
    assert "retried" not in caplog.text


@pytest.mark.parametrize("content", [b"no database at all" * 100, None])
def test_a_database_that_is_none_is_told_after_one_try(root: Path, content: bytes | None) -> None:
    if content is None:
        (root / "mlflow.db").mkdir()
    else:
        (root / "mlflow.db").write_bytes(content)

    with pytest.raises(StoreError) as caught:
        Store(f"sqlite:///{root / 'mlflow.db'}", root)

    assert str(root / "mlflow.db") in caught.value.message
    assert "\n" not in caught.value.message
