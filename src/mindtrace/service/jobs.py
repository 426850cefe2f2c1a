"""Floor 9: the jobs of a configuration: asked, followed, cancelled; and who works on them.

In: settings, and mostly a job's id. Out: jobs as values. Everything that blocks does so for
milliseconds, or until the database is known to be away. Nothing here imports DBOS but the
worker itself.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mindtrace.config.sections import SECTIONS
from mindtrace.config.settings import Settings
from mindtrace.config.urls import masked

if TYPE_CHECKING:
    from mindtrace.jobs.beside import Runner
    from mindtrace.jobs.job import Event, Job
    from mindtrace.jobs.queue import JobQueue


def queue(settings: Settings) -> JobQueue:
    """The jobs of these settings; one object, and one connection, for each process."""
    return _queue(settings.jobs.database_url, settings.dirs.root, settings.jobs.max_queued)


@functools.lru_cache(maxsize=8)
def _queue(database_url: str | None, root: Any, max_queued: int) -> JobQueue:
    from mindtrace.jobs.database import open_database
    from mindtrace.jobs.queue import JobQueue

    return JobQueue(open_database(database_url, root), max_queued)


def get_job(settings: Settings, job_id: str) -> Job:
    """A job as it is now.

    Raises:
        NotFoundError: there is no such job.
        StoreError: the database of jobs is away.
    """
    return queue(settings).get(job_id)


def list_jobs(settings: Settings, limit: int = 20, before: str | None = None) -> Sequence[Job]:
    """Jobs, newest first; older than the job `before`, if that is given.

    Raises:
        StoreError: the database of jobs is away.
    """
    return queue(settings).list(limit, before)


def counts(settings: Settings) -> Mapping[str, int]:
    """How many jobs are in each state.

    Raises:
        StoreError: the database of jobs is away.
    """
    return queue(settings).counts()


def cancel_job(settings: Settings, job_id: str) -> Job:
    """Ask for the end of a job.

    Raises:
        NotFoundError: there is no such job.
        ConflictError: it has ended, or as good as that.
        StoreError: the database of jobs is away.
    """
    return queue(settings).cancel(job_id)


def job_events(settings: Settings, job_id: str, after: int = 0) -> Sequence[Event]:
    """What happened to a job behind the event with that number; empty where nothing did.

    Raises:
        NotFoundError: there is no such job.
        StoreError: the database of jobs is away.
    """
    return queue(settings).events(job_id, after)


def job_log(settings: Settings, job_id: str, offset: int = 0) -> bytes:
    """A part of a job's log from a place in bytes on, UTF-8; empty at its end for now.

    Raises:
        NotFoundError: there is no such job.
        StoreError: the database of jobs is away.
    """
    return queue(settings).log(job_id, offset)


def runner(settings: Settings, *, serving: bool) -> Runner:
    """Starts a worker beside this process once there are jobs; to be stopped at the end.

    Args:
        settings: of this process, and so of the worker.
        serving: whether this process answers requests, before which trainings step back;
            else it has the terminal to itself, and the worker tells of warnings only.
    """
    from mindtrace.jobs.beside import Runner, beside_command, beside_server
    from mindtrace.jobs.child import listed_environment

    return Runner(
        settings.dirs.root,
        unfinished=lambda: queue(settings).unfinished(),
        config=lambda: settings.to_ini([*SECTIONS]),
        environ=listed_environment(os.environ, secrets(settings)),
        command=beside_server if serving else beside_command,
    )


def work(
    settings: Settings,
    stopping: threading.Event,
    *,
    lease: float,
    grace: float,
    gives_way: bool,
    ready: Callable[[str], Any],
) -> None:
    """Take jobs until `stopping` is set; blocks.

    Args:
        settings: where jobs, checkpoints and versions are.
        stopping: set from outside.
        lease: seconds of silence after which another worker takes a job.
        grace: seconds that a training has to end, once it was told to.
        gives_way: its trainings compute only while nobody else wants to.
        ready: called with the worker's id.

    Raises:
        StoreError: the database of jobs is away.
    """
    from mindtrace.jobs.child import listed_environment
    from mindtrace.jobs.worker import Worker

    environ = listed_environment(os.environ, own_places(settings))
    worker = Worker(settings, environ, stopping, lease=lease, grace=grace, gives_way=gives_way)
    worker.run(ready)


def secrets(settings: Settings) -> dict[str, str]:
    """Values with passwords, as environment variables: no file ever holds them."""
    values = {
        "REGISTRY__TRACKING_URI": settings.registry.tracking_uri,
        "DATA__MIRROR": settings.data.mirror,
        "JOBS__DATABASE_URL": settings.jobs.database_url,
    }
    return {name: text for name, text in values.items() if text and masked(text) != text}


def own_places(settings: Settings) -> dict[str, str]:
    """This machine's folders and stores, above what a job's configuration says of another's."""
    values = {
        "DIR_PATHS__ROOT": str(settings.dirs.root),
        "DIR_PATHS__DATA": str(settings.dirs.data),
        "REGISTRY__TRACKING_URI": settings.registry.tracking_uri,
        "DATA__MIRROR": settings.data.mirror,
        "JOBS__DATABASE_URL": settings.jobs.database_url,
    }
    return {name: text for name, text in values.items() if text}
