"""Floor 8: DBOS, told exactly what to do: it hands jobs out, and keeps each step's answer.

In: a workplace and what a job consists of. Out: a process that takes jobs, one at a time.
DBOS's own rows live beside ours. It may hand a job out twice, to a worker that was thought
dead and to another: the hold (`hold.py`) makes one course of that.

Why each setting is as it is: the version is fixed, or jobs of yesterday's code would wait
for ever; the executor is this start of this worker, or a second worker would take what the
first is at; values are JSON, and only their ids and outcomes are kept at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mindtrace.errors import StoreError
from mindtrace.jobs.database import Database
from mindtrace.jobs.dialects import Sqlite

APPLICATION = "mindtrace"
WORKFLOW, QUEUE = "retrain", "retrain"
_VERSION = "1"
_POLL = 0.3  # seconds between two looks for work
# Ours are counted by the hold; DBOS's own limit would also count an orderly hand-over.
_NO_LIMIT = 1_000_000

log = logging.getLogger("mindtrace.jobs")
Step = Callable[..., Any]


class Engine:
    """DBOS in this process; one of it."""

    def __init__(self, database: Database, worker_id: str) -> None:
        """Prepare it; nothing runs before `launch`."""
        self._database = database
        self._worker_id = worker_id

    def launch(self, work: Callable[[str], None]) -> None:
        """Begin to hand out jobs: `work(job_id)` is called for each, in a thread.

        Raises:
            StoreError: the database is away.
        """
        from dbos import DBOS, DBOSPortableJSONSerializer

        _hush()
        DBOS(
            config={
                "name": APPLICATION,
                "system_database_url": _sqlalchemy_url(self._database),
                "executor_id": self._worker_id,
                "application_version": _VERSION,
                "serializer": DBOSPortableJSONSerializer(),
                "log_level": "WARNING",
                "use_listen_notify": False,
            }
        )

        @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=_NO_LIMIT)
        def retrain(job_id: str) -> None:
            work(job_id)

        self._workflow = retrain
        with _told():
            DBOS.launch()
            DBOS.register_queue(QUEUE, worker_concurrency=1, polling_interval_sec=_POLL)

    def step(self, name: str, do: Step, *values: Any) -> Any:
        """Do something once: where it was done before the worker died, its answer comes back."""
        from dbos import DBOS

        return DBOS.run_step({"name": name}, do, *values)

    def hand_in(self, job_id: str) -> None:
        """Give a job to DBOS; the same one again changes nothing.

        Raises:
            StoreError: the database is away.
        """
        from dbos import DBOS, SetWorkflowID

        with _told(), SetWorkflowID(job_id):
            DBOS.enqueue_workflow(QUEUE, self._workflow, job_id)

    def take_over(self, alive: Callable[[], set[str]]) -> None:
        """Hand out again what was handed to workers that are not alive.

        Args:
            alive: asked after the jobs: who has one by then was alive before.

        Raises:
            StoreError: the database is away.
        """
        from dbos import DBOS

        with _told():
            pending = DBOS.list_workflows(
                status="PENDING", queue_name=QUEUE, load_input=False, load_output=False
            )
            owners = {one.executor_id for one in pending if one.executor_id}
            dead = sorted(owners - alive()) if owners else []
            if dead:
                log.info("taking over from %s", ", ".join(dead))
                # One update, guarded by state and executor: several takers do no harm.
                DBOS._recover_pending_workflows(dead)


def _sqlalchemy_url(database: Database) -> str:
    from sqlalchemy.engine import URL

    if isinstance(database.dialect, Sqlite):
        url = URL.create("sqlite", database=str(database.dialect.path))
        return url.render_as_string()
    return database.url


@contextmanager
def _told() -> Iterator[None]:
    """What SQLAlchemy raises in DBOS, as the error that it is."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except SQLAlchemyError as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise StoreError(f"jobs database: {lines[0]}") from error


def _hush() -> None:
    """Of what DBOS logs, warnings are for us; a traceback of a job that went elsewhere is not."""
    logger = logging.getLogger("dbos")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    logger.addHandler(_Relay())


class _Relay(logging.Handler):
    """Tells DBOS's warnings in one line each."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            text = record.getMessage().splitlines() or [""]
            log.log(record.levelno, "dbos: %s", text[0])
