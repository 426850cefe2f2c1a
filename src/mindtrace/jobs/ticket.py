"""Floor 8: a training's leave to register a version for its job.

In, in the process that trains: the job and the fence of its attempt. Out: a block in which
nobody else registers for this job, entered only by the attempt that has the job. A lock
keeps the others out for as long as this process lives, stopped or not; the fence keeps out
whoever lost the job before. What neither can see, a lock lost with its connection in the
very moment of registering, the last look before and the version's own tag do.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mindtrace.config.settings import Settings
from mindtrace.errors import InterruptedByUser
from mindtrace.jobs.database import Database, open_database
from mindtrace.jobs.hold import registering

# Another attempt that registers is nearly done, or stopped; stopped processes come back.
_PATIENCE = 600.0  # seconds


@dataclass(frozen=True)
class Ticket:
    """What makes a training one of a job.

    Attributes:
        job_id: the job.
        fence: of the attempt.
        force: train even if such a version is there already.
        database: of the jobs.
    """

    job_id: str
    fence: int
    force: bool
    database: Database = field(repr=False)

    @contextmanager
    def registering(self) -> Iterator[Permit]:
        """Hold the right to register for this job.

        Raises:
            InterruptedByUser: the job was cancelled, or another worker has it by now.
            ConflictError: another attempt registers and does not come to an end.
            StoreError: the database of jobs is away.
        """
        with self.database.exclusive(self.job_id, _PATIENCE) as holder:
            permit = Permit(self, holder)
            permit.demand()
            yield permit


class Permit:
    """The right to register, as long as `demand` does not raise."""

    def __init__(self, ticket: Ticket, holder: Any) -> None:
        self._ticket = ticket
        self._holder = holder

    def demand(self) -> None:
        """Look once more, right before the version is made.

        Raises:
            InterruptedByUser: the job is not ours any more.
            StoreError: nobody can tell.
        """
        ticket = self._ticket
        if self._holder is not None:
            # By the very connection that holds the lock: if it is gone, so is the lock.
            with ticket.database.told():
                self._holder.execute("select 1")
        with ticket.database.transaction() as work:
            if not registering(work, ticket.job_id, ticket.fence):
                raise InterruptedByUser(signal.SIGTERM)


def ticket_for(settings: Settings, job_id: str, fence: int, *, force: bool) -> Ticket:
    """The ticket of a training that a worker started."""
    return Ticket(
        job_id, fence, force, open_database(settings.jobs.database_url, settings.dirs.root)
    )
