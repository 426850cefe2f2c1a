"""Real workers over a ROOT: started, stopped, killed; and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from tests.waiting import PATIENCE, until

from mindtrace.config.settings import Settings, load_settings
from mindtrace.jobs.job import Event, Job
from mindtrace.service import jobs
from mindtrace.service.retrain_request import RetrainRequest

FAKE = str(Path(__file__).with_name("fake_training.py"))
CONFIG = """
[DIR_PATHS]
ROOT = {root}
[data]
source = digits
[model]
hidden = 16
[train]
max_epochs = 2
[compute]
threads = 1
[serve]
port = 0
"""


@dataclass(frozen=True)
class Shop:
    """A ROOT with its database of jobs, and the workers that a test starts."""

    root: Path
    database_url: str | None
    fake: bool  # whether trainings are those of fake_training.py
    workers: list[subprocess.Popen[str]]

    @property
    def config(self) -> Path:
        return self.root / "cfg.ini"

    @property
    def program(self) -> list[str]:
        """`mindtrace`, or the one with the fake training."""
        return [sys.executable, "-P", *([FAKE] if self.fake else ["-m", "mindtrace"])]

    @property
    def store(self) -> Path:
        return self.root / ("fake.db" if self.fake else "mlflow.db")

    @property
    def environ(self) -> dict[str, str]:
        return {"JOBS__DATABASE_URL": self.database_url} if self.database_url else {}

    @property
    def settings(self) -> Settings:
        return load_settings(self.config, environ=self.environ)

    def start(self, *words: str, lease: float = 2.0) -> subprocess.Popen[str]:
        """A worker that takes jobs."""
        return self.launch("worker", "--lease", str(lease), *words)[0]

    def launch(self, verb: str, *words: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
        """A command that runs until it is stopped, and what it says when it is ready."""
        with (self.root / "workers.txt").open("a") as log:
            process = subprocess.Popen(
                [*self.program, verb, "--config", str(self.config), "--json", *words],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **self.environ},
                process_group=0,
            )
        self.workers.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (self.root / "workers.txt").read_text()
        return process, json.loads(line)

    def suspend(self, pid: int) -> None:
        """Stop a process, but not in the middle of a write.

        SQLite's one writer keeps everybody out, for as long as it is stopped.
        """
        while True:
            os.kill(pid, signal.SIGSTOP)
            until(lambda: _stands_still(pid))
            if all(map(_has_no_writer, (self.root / "jobs.db", self.store))):
                return
            os.kill(pid, signal.SIGCONT)

    def submit(self, *, force: bool = False, data: Mapping[str, Any] = {}, **train: Any) -> str:
        """A job's id; what is not said is as in CONFIG."""
        request = RetrainRequest.from_mapping({"data": data, "train": train}, force=force)
        return jobs.submit(self.settings, request).job_id

    def job(self, job_id: str) -> Job:
        return jobs.queue(self.settings).get(job_id)

    def when(self, job_id: str, true: Callable[[Job], Any], patience: float = PATIENCE) -> Job:
        """The job, once it is as wanted."""

        def found() -> Job | None:
            job = self.job(job_id)
            return job if true(job) else None

        try:
            job: Job = until(found, patience)
        except AssertionError as error:
            told = (self.root / "workers.txt").read_text()
            raise AssertionError(f"{self.job(job_id)}\n{told}") from error
        return job

    def ended(self, job_id: str) -> Job:
        return self.when(job_id, lambda job: job.ended)

    def trainings(self, job_id: str) -> list[psutil.Process]:
        """The processes that train for a job."""
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if job_id in (process.info["cmdline"] or ())
        ]

    def kept(self, job_id: str) -> list[Path]:
        """What is left of a job's folders; they go right after its end was told."""
        return [
            *self.root.glob(f"checkpoints/jobs/{job_id}"),
            *self.root.glob(f"jobs/{job_id}/config.ini"),
        ]

    def versions(self, job_id: str) -> list[int]:
        """What a job registered, by the store's own tables."""
        return [
            row[0]
            for row in self._rows(
                "select v.version from model_versions v join model_version_tags t"
                " using (workspace, name, version)"
                " where t.key = 'mindtrace.job_id' and t.value = ?",
                job_id,
            )
        ]

    def runs(self, job_id: str) -> list[str]:
        """How the runs of a job ended, or that they did not."""
        return [
            row[0]
            for row in self._rows(
                "select r.status from runs r join tags t using (run_uuid)"
                " where t.key = 'mindtrace.job_id' and t.value = ?",
                job_id,
            )
        ]

    def _rows(self, sql: str, value: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.store, timeout=30)
        try:
            made = "select 1 from sqlite_master where name = 'model_version_tags'"
            if connection.execute(made).fetchone() is None:
                return []
            return connection.execute(sql, (value,)).fetchall()
        finally:
            connection.close()

    def close(self) -> None:
        while self.workers:
            worker = self.workers.pop()
            if worker.poll() is None:
                worker.send_signal(signal.SIGCONT)
                worker.kill()
            worker.communicate()


def _stands_still(pid: int) -> bool:
    """Whether every thread has stopped: one that is in the kernel first ends what it does there."""
    if sys.platform != "linux":
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    tasks = Path(f"/proc/{pid}/task").glob("*/stat")
    try:
        return all(task.read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)
    except OSError:  # a thread ended right now
        return False


def _has_no_writer(file: Path) -> bool:
    if not file.exists():
        return True
    connection = sqlite3.connect(file, timeout=1, isolation_level=None)
    try:
        connection.execute("begin immediate")
    except sqlite3.OperationalError:
        return False
    else:
        return True
    finally:
        connection.close()


@contextmanager
def shop(root: Path, database_url: str | None, *, fake: bool = False) -> Iterator[Shop]:
    """A shop whose workers are gone in the end."""
    root.mkdir(exist_ok=True)
    (root / "cfg.ini").write_text(CONFIG.format(root=root))
    opened = Shop(root, database_url, fake, [])
    try:
        yield opened
    finally:
        opened.close()
        jobs.queue(opened.settings).close()


def events(opened: Shop, job_id: str) -> list[Event]:
    """All that happened to a job."""
    found: list[Event] = []
    while page := jobs.queue(opened.settings).events(job_id, len(found)):
        found += page
    return found


def event_epochs(opened: Shop, job_id: str) -> list[int]:
    """The epochs that were told of, in order."""
    return [event.data["epoch"] for event in events(opened, job_id) if event.name == "epoch"]
