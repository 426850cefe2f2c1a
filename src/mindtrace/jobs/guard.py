"""In the process that trains for a job: the check right before it registers a version."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field

from mindtrace.config.settings import Settings
from mindtrace.errors import InterruptedByUser
from mindtrace.jobs.queue import JobQueue


@dataclass(frozen=True)
class RegistrationGuard:
    """Lets one attempt of a job register, the one whose worker has the job."""

    job_id: str
    fence: int
    force: bool  # train even if such a version exists
    queue: JobQueue = field(repr=False)

    def require(self) -> None:
        """From here on the job cannot be cancelled.

        Raises InterruptedByUser: it was, or another worker has it; StoreError: nobody can tell.
        """
        if not self.queue.begin_registering(self.job_id, self.fence):
            raise InterruptedByUser(signal.SIGTERM)


def registration_guard(
    settings: Settings, job_id: str, fence: int, *, force: bool
) -> RegistrationGuard:
    """The guard of a training that a worker started."""
    jobs = settings.jobs
    queue = JobQueue(jobs.database_url, settings.dirs.root, jobs.max_queued)
    return RegistrationGuard(job_id, fence, force, queue)
