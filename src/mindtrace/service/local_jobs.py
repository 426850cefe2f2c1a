"""Floor 9: the jobs of this configuration for a command, which may have to work itself.

In: settings. Out: documents of jobs, and what happens to one until its end. Where nobody
takes jobs, whoever waits for one has a worker beside it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from mindtrace.config.settings import Settings
from mindtrace.errors import StoreError
from mindtrace.jobs.job import END
from mindtrace.service import jobs, retrain
from mindtrace.service.retrain import Order

_LOOK_EVERY = 0.3  # seconds
_TRIES = 100  # to read a database that is away

Document = dict[str, Any]
Happening = tuple[str, Document]


class Jobs(Protocol):
    """What a command does with jobs, here or at a server."""

    def submit(self, order: Order, *, idempotency_key: str | None) -> Document:
        """Put a retraining into the queue; its document."""

    def show(self, job_id: str) -> Document:
        """A job's document."""

    def list(self, limit: int) -> Sequence[Document]:
        """The newest jobs' documents."""

    def cancel(self, job_id: str) -> Document:
        """Ask for a job's end; its document as it was then."""

    def follow(self, job_id: str) -> Iterator[Happening]:
        """Name and data of what happens to a job, from its beginning to its end."""

    def log(self, job_id: str, offset: int) -> bytes:
        """A part of a job's log from a place in bytes on; empty at its end for now."""

    def close(self) -> None:
        """Nothing more is wanted."""


class LocalJobs:
    """The jobs of the database that the settings name."""

    def __init__(
        self, settings: Settings, *, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self._settings = settings
        self._sleep = sleep
        self._runner = jobs.runner(settings, serving=False)

    def submit(self, order: Order, *, idempotency_key: str | None) -> Document:
        """See `retrain.submit`."""
        job = retrain.submit(self._settings, order, idempotency_key=idempotency_key)
        return job.document()

    def show(self, job_id: str) -> Document:
        """See `jobs.get_job`."""
        return jobs.get_job(self._settings, job_id).document()

    def list(self, limit: int) -> Sequence[Document]:
        """See `jobs.list_jobs`."""
        return [job.document() for job in jobs.list_jobs(self._settings, limit)]

    def cancel(self, job_id: str) -> Document:
        """See `jobs.cancel_job`."""
        return jobs.cancel_job(self._settings, job_id).document()

    def follow(self, job_id: str) -> Iterator[Happening]:
        """Look again and again; a worker is started, if none runs."""
        self._runner.start()
        after, tries = 0, 0
        while True:
            try:
                found = jobs.job_events(self._settings, job_id, after)
                tries = 0
            except StoreError:
                tries += 1
                if tries >= _TRIES:
                    raise
                found = []
            for event in found:
                yield event.name, json.loads(event.data)
                after = event.id
                if event.name == END:
                    return
            if not found:
                self._sleep(_LOOK_EVERY)

    def log(self, job_id: str, offset: int) -> bytes:
        """See `jobs.job_log`."""
        return jobs.job_log(self._settings, job_id, offset)

    def close(self) -> None:
        """End the worker that we started, which puts its job back."""
        self._runner.stop()
