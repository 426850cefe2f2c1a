"""Writing to MLflow: stores that are made once, runs that end truly, errors without passwords."""

from __future__ import annotations

import signal
import socket
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from pytorch_lightning.utilities.exceptions import SIGTERMException
from tests.registry.conftest import sqlite_store
from tests.registry.servers import run_together

from mindtrace.errors import InterruptedByUser, StoreError, TrainingError
from mindtrace.registry.callbacks import run_finished_or_failed
from mindtrace.registry.database import age_of
from mindtrace.registry.reader import open_database
from mindtrace.registry.store import Run, Store, resume_run, start_run, store_errors

OPEN = """
import pathlib, sys
from mindtrace.registry.store import Store
print("ready", flush=True)
sys.stdin.readline()
store = Store(sys.argv[1], pathlib.Path(sys.argv[2]))
print(store.experiment_id("shared"))
"""


def test_a_new_store_has_the_tables_that_are_read_and_wal(tmp_path: Path) -> None:
    """Also where the process that began to make them was killed."""
    database = tmp_path / "new" / "folder" / "mlflow.db"
    database.parent.mkdir(parents=True)
    (database.parent / ".mlflow.db.making").touch()
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("create table experiments (half_made)")  # MLflow would fail over it

    assert Store(f"sqlite:///{database}", tmp_path).experiment_id("x")

    assert open_database(database).names() == []
    assert not (database.parent / ".mlflow.db.making").exists()
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("pragma journal_mode").fetchone() == ("wal",)


@pytest.mark.proof
def test_processes_that_begin_together_share_one_new_store(tmp_path: Path) -> None:
    where = (f"sqlite:///{tmp_path / 'mlflow.db'}", str(tmp_path))
    assert len(set(run_together(OPEN, *where, count=4))) == 1


NEWER = (
    "Detected out-of-date database schema (found version 0123456789ab, but expected dc11)."
    " Take a backup, then run 'mlflow db upgrade <database_uri>'"
)
SECRET = "postgresql://user:geheim@127.0.0.1:1/db"


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (MlflowException("first\nsecond"), "registry sqlite:///x.db: first", "tracking_uri"),
        (sqlite3.OperationalError("locked"), "registry sqlite:///x.db: locked", "tracking_uri"),
        (PermissionError(13, "no"), "registry sqlite:///x.db: [Errno 13] no", "tracking_uri"),
        (MlflowException(f"cannot connect to {SECRET}"), "user:***@127.0.0.1", "tracking_uri"),
        (
            MlflowException(NEWER),
            "the database is newer than this MLflow (schema revision 0123456789ab)",
            "--upgrade mindtrace mlflow",
        ),
    ],
)
def test_what_mlflow_raises_becomes_one_line_with_a_hint(
    error: Exception, message: str, hint: str
) -> None:
    with pytest.raises(StoreError) as caught, store_errors("sqlite:///x.db"):
        raise error

    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert "geheim" not in caught.value.message
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:{port}", "postgresql://user:geheim@127.0.0.1:{port}/db"]
)
def test_a_store_that_is_away_is_an_error_after_one_try(
    root: Path, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # nobody listens
        port = listener.getsockname()[1]

    with pytest.raises(StoreError) as caught:
        Store(uri.format(port=port), root)

    assert "\n" not in caught.value.message
    assert f"127.0.0.1:{port}" in caught.value.message
    assert "geheim" not in caught.value.message
    assert "retried" not in caplog.text


def test_what_was_deleted_in_mlflow_is_said_and_how_it_comes_back(store: Store) -> None:
    run = start_run(store, "e", None, {})
    place = store.experiment_id("e")
    store.client.delete_run(run.run_id)
    store.client.delete_experiment(place)
    for kind, its_id, work in (
        ("experiment", place, lambda: start_run(store, "e", None, {})),
        ("run", run.run_id, lambda: resume_run(store, run.run_id)),
        ("run", run.run_id, lambda: run.end("FINISHED")),
    ):
        with pytest.raises(StoreError, match=f"{kind} {its_id} was deleted in MLflow") as caught:
            work()
        assert str(caught.value.hint).endswith(f" mlflow {kind}s restore --{kind}-id {its_id}")


SCHEMAS = sorted((Path(__file__).parent / "schemas").glob("*.sql"))


@pytest.mark.parametrize("dump", SCHEMAS, ids=lambda path: path.stem)
def test_what_this_mlflow_migrates_is_announced_and_kept(
    root: Path, dump: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Older schemas; one that is newer, or the same, is left alone."""
    database = root / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(dump.read_text(encoding="utf-8"))
        (before,) = connection.execute("select version_num from alembic_version").fetchone()

    try:
        sqlite_store(root)
    except StoreError as error:
        after, said = before, error.message
    else:
        with closing(sqlite3.connect(database)) as connection:
            (after,) = connection.execute("select version_num from alembic_version").fetchone()
        said = caplog.text

    kept = root / f"mlflow.db.{before}"
    if after != before:
        assert str(kept) in said
        assert open_database(kept).aliases("digits") == {"champion": 2}
    elif age_of(before) == "newer":
        assert "the database is newer than this MLflow" in said
        assert not kept.exists()
    assert open_database(database).aliases("digits") == {"champion": 2}


NO_DATABASES = {
    "text": b"no database at all" * 100,
    "half": b"SQLite format 3\0" * 10,
    "folder": None,
}


@pytest.mark.parametrize("content", NO_DATABASES.values(), ids=NO_DATABASES)
@pytest.mark.parametrize("opened", [sqlite_store, lambda root: open_database(root / "mlflow.db")])
def test_a_database_that_is_none_is_an_error(
    root: Path, opened: Any, content: bytes | None
) -> None:
    if content is None:
        (root / "mlflow.db").mkdir()
    else:
        (root / "mlflow.db").write_bytes(content)
    with pytest.raises(StoreError) as caught:
        opened(root)
    assert str(root / "mlflow.db") in caught.value.message
    assert "\n" not in caught.value.message


@pytest.fixture
def run(store: Store) -> Run:
    return start_run(store, "digits", "a name", {"mindtrace.job_id": "j1"})


def stored(run: Run) -> Any:
    return run.store.client.get_run(run.run_id)


def away(*arguments: Any, **options: Any) -> None:
    raise MlflowException("gone")


def test_a_run_keeps_what_it_was_given(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    found = stored(run)
    assert (found.info.status, found.info.run_name) == ("RUNNING", "a name")
    assert found.data.tags["mindtrace.job_id"] == "j1"

    run.log_params({f"key.{n}": n for n in range(150)})
    run.log_params({"long": "x" * 10_000, "none": None, "list": [1, 2], "umlaut": "ü"})
    run.log_text("[train]\nlr = 0.1\n", "config.ini")
    with run_finished_or_failed(run):
        for step in range(1, 21):
            run.log_metrics({"val_acc": step / 100, "val_loss": 1 / step}, step=step)

    found = stored(run)
    assert found.info.status == "FINISHED"
    assert found.data.metrics == {"val_acc": 0.2, "val_loss": 0.05}
    history = run.store.client.get_metric_history(run.run_id, "val_acc")
    assert [(point.step, point.value) for point in history] == [
        (step, step / 100) for step in range(1, 21)
    ]
    params = found.data.params
    assert (params["key.149"], params["long"]) == ("149", "x" * 6000)
    assert (params["none"], params["list"], params["umlaut"]) == ("None", "[1, 2]", "ü")
    (file,) = run.store.root.glob(f"mlartifacts/{run.run_id}/artifacts/config.ini")
    assert file.read_text() == "[train]\nlr = 0.1\n"
    assert list((tmp_path / "cwd").iterdir()) == []
    assert not [thread for thread in threading.enumerate() if "mlflow-metrics" in thread.name]


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_the_first_status_stays_and_a_run_can_go_on(run: Run, status: Any) -> None:
    run.end(status)
    run.end("FINISHED")

    assert run.ended == stored(run).info.status == status
    assert stored(run).info.end_time is not None
    again = resume_run(run.store, run.run_id)
    assert stored(again).info.status == "RUNNING"
    again.end("FINISHED")
    assert stored(run).info.status == "FINISHED"
    with pytest.raises(StoreError):
        resume_run(run.store, "0" * 32)


def test_a_run_ends_as_its_work_did(store: Store) -> None:
    for error, status in (
        (TrainingError("diverged"), "FAILED"),
        (ZeroDivisionError(), "FAILED"),
        (MemoryError(), "FAILED"),
        (SystemExit(1), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (InterruptedByUser(signal.SIGTERM), "KILLED"),
        (SIGTERMException(), "KILLED"),
    ):
        run = start_run(store, "digits", None, {})
        with pytest.raises(type(error)), run_finished_or_failed(run):
            raise error
        assert stored(run).info.status == status, error


@pytest.mark.parametrize("failures", [1, 2, 5])
def test_metrics_wait_for_a_store_that_is_away(
    run: Run, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    log_batch, tries, notes = run.store.client.log_batch, iter(range(failures)), []

    def sometimes(*arguments: Any, **options: Any) -> None:
        if next(tries, None) is not None:
            raise MlflowException("gone")
        log_batch(*arguments, **options)

    monkeypatch.setattr("mindtrace.registry.store._PAUSE", 0.0)
    monkeypatch.setattr(run.store.client, "log_batch", sometimes)
    run.note = notes.append
    for step in range(1, 700):
        run.log_metrics({"val_acc": step / 1000}, step=step)
    run.end("FINISHED")

    history = run.store.client.get_metric_history(run.run_id, "val_acc")
    assert [point.step for point in history] == list(range(1, 700))
    assert ["gone" in note for note in notes] == [True, False]
    assert notes[1] == "the registry answers again"


@pytest.mark.parametrize("status", ["FINISHED", "KILLED"])
@pytest.mark.parametrize("hangs", [False, True], ids=["away", "hangs"])
def test_a_run_ends_without_metrics_that_cannot_be_stored(
    run: Run, monkeypatch: pytest.MonkeyPatch, status: Any, hangs: bool
) -> None:
    let_go = threading.Event()
    for patience in ("_FLUSH", "PATIENCE"):
        monkeypatch.setattr(f"mindtrace.registry.store.{patience}", 0.1)
    monkeypatch.setattr(run.store.client, "log_batch", lambda *_, **__: let_go.wait() and away())
    if not hangs:
        let_go.set()
    run.log_metrics({"a": 1.0}, step=1)
    with pytest.raises(StoreError, match="not stored in" if hangs else "gone"):
        run.end(status)
    assert stored(run).info.status == status
    let_go.set()


def test_an_error_of_the_work_is_not_hidden_by_one_of_the_store(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.store.client, "set_terminated", away)

    with pytest.raises(TrainingError, match="diverged") as caught, run_finished_or_failed(run):
        raise TrainingError("diverged")
    assert "gone" in caught.value.__notes__[0]
