"""A training without torch and MLflow; a worker and a server that run it are real otherwise."""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import uuid4

from mindtrace.config.settings import load_settings
from mindtrace.config.urls import sqlite_path
from mindtrace.errors import InterruptedByUser, MindtraceError
from mindtrace.jobs.process import die, when_parent_ends
from mindtrace.jobs.queue import RegistrationGuard
from mindtrace.service.jobs import queue
from mindtrace.system import atomic_write

EPOCH_S = 0.05
# Of MLflow's tables what `Shop` reads.
TABLES = """
create table if not exists runs (run_uuid text primary key, status text);
create table if not exists tags (run_uuid text, key text, value text);
create table if not exists model_versions (workspace, name text, version integer primary key);
create table if not exists model_version_tags (workspace, name, version, key, value);
"""


@contextmanager
def store(uri: str) -> Iterator[sqlite3.Connection]:
    """A transaction on the store, beside MLflow's."""
    path = sqlite_path(uri)
    assert path is not None
    path = path.with_name("fake.db")
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        connection.executescript(TABLES)
        connection.execute("begin immediate")
        yield connection
        connection.execute("commit")


def version_of(connection: sqlite3.Connection, job_id: str) -> int | None:
    query = "select version from model_version_tags where value = ?"
    row = connection.execute(query, (job_id,)).fetchone()
    return None if row is None else int(row[0])


def report(**fields: Any) -> None:
    print(json.dumps(fields), file=sys.stderr, flush=True)


def train(words: list[str]) -> int | None:
    """`mindtrace train`, as a worker calls it."""
    config, job_id, attempt = (
        words[words.index(name) + 1] for name in ("--config", "--job-id", "--attempt")
    )
    when_parent_ends(die)
    settings = load_settings(Path(config))
    guard = RegistrationGuard(job_id, int(attempt), False, queue(settings))
    uri, epochs = settings.registry.tracking_uri, settings.train.max_epochs
    last = settings.dirs.checkpoints / "run" / "last.ckpt"
    last.parent.mkdir(parents=True, exist_ok=True)
    done, run = json.loads(last.read_text()) if "--resume" in words else (0, uuid4().hex)

    def ended(status: str) -> None:
        with store(uri) as connection:
            connection.execute("insert or replace into runs values (?, ?)", (run, status))

    with store(uri) as connection:
        version = version_of(connection, job_id)
        if version is None and not done:
            job = (run, "mindtrace.job_id", job_id)
            connection.execute("insert into tags values (?, ?, ?)", job)
    if version is None:
        ended("RUNNING")
        try:
            version = course(uri, guard, range(done + 1, epochs + 1), epochs, last, run)
        except InterruptedByUser:
            ended("KILLED")
            raise
        ended("FINISHED")
    print(json.dumps({"model_name": "digits", "version": version}))
    return None


def course(
    uri: str, guard: RegistrationGuard, left: range, epochs: int, last: Path, run: str
) -> int:
    """Train and register: the version."""
    report(event="started", max_epochs=epochs)
    for epoch in left:
        time.sleep(EPOCH_S)
        fields = {"epoch": epoch, "max_epochs": epochs, "metrics": {"val_acc": epoch / epochs}}
        report(event="epoch", **fields, seconds=EPOCH_S, best=True)
        atomic_write(last, json.dumps([epoch, run]).encode())
    report(event="stage", text="registering digits")
    guard.require()
    with store(uri) as connection:
        found = version_of(connection, guard.job_id)
        if found is not None:
            return found
        guard.require()
        row = connection.execute("insert into model_versions values (' ', 'digits', null)")
        tag = (row.lastrowid, "mindtrace.job_id", guard.job_id)
        connection.execute("insert into model_version_tags values (' ', 'digits', ?, ?, ?)", tag)
        return int(row.lastrowid or 0)


def reconcile(
    environ: Mapping[str, str], _folder: Path, ended: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """As `reconcile_runs`, in this process."""
    found: dict[str, dict[str, Any]] = {}
    with store(environ["REGISTRY__TRACKING_URI"]) as connection:
        for job_id, state in ended.items():
            version = version_of(connection, job_id)
            if version is not None:
                found[job_id] = {"model_name": "digits", "version": version}
            connection.execute(
                "update runs set status = ? where status = 'RUNNING'"
                " and run_uuid in (select run_uuid from tags where value = ?)",
                ("KILLED" if state == "cancelled" else "FAILED", job_id),
            )
    return found


def work() -> None:
    """`mindtrace worker` or `serve`, whose trainings are those above."""
    from mindtrace.cli.main import main
    from mindtrace.jobs import attempt, sidecar, worker

    def ours(make: Callable[..., list[str]], verb: str, *more: str) -> Any:
        def command(*args: Any, **options: Any) -> list[str]:
            words = make(*args, **options)
            return [sys.executable, "-P", __file__, *words[words.index(verb) :], *more]

        return command

    work = ours(sidecar.worker_command, "worker", "--lease", "2")
    with (
        patch.object(attempt, "train_command", ours(attempt.train_command, "train")),
        patch.object(sidecar, "worker_command", work),
        patch.object(attempt, "reconcile_runs", reconcile),
        patch.object(worker, "reconcile_runs", reconcile),
    ):
        main()


def stop(signum: int, _: object) -> None:
    raise InterruptedByUser(signum)


if __name__ == "__main__":
    if sys.argv[1] in ("worker", "serve"):
        work()
    else:
        signal.signal(signal.SIGTERM, stop)
        try:
            train(sys.argv[2:])
        except MindtraceError as error:
            report(error={"type": type(error).__name__, "message": error.message})
            sys.exit(143 if isinstance(error, InterruptedByUser) else 1)
