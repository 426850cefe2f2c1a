"""Floor 8: takes jobs from the queue and runs them, one at a time on this ROOT.

In: a queue and the environment of its children. Out: records that tell the truth: what
a child reports, how it ended, and who ended it.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mindtrace.jobs import child
from mindtrace.jobs.child import Ended, Event
from mindtrace.jobs.job import CANCELLED, FAILED, SUCCEEDED, Job, now
from mindtrace.jobs.queue import CONFIG, JobQueue

log = logging.getLogger("mindtrace.jobs")
# Seconds until we look again whether the process that runs jobs is gone.
_ELSEWHERE = 0.5

Command = Callable[[Path, str], Sequence[str]]


class Runner:
    """A thread that starts with the first job; several processes may each have one."""

    def __init__(
        self,
        queue: JobQueue,
        environ: Mapping[str, str],
        *,
        command: Command = child.train_command,
        grace: float = child.GRACE,
    ) -> None:
        """Prepare a runner; nothing runs yet.

        Args:
            queue: where jobs come from.
            environ: all that a child sees.
            command: makes the command line from a configuration file and a job's id.
            grace: seconds from SIGTERM to SIGKILL.
        """
        self.queue = queue
        self.environ = environ
        self._command = command
        self._grace = grace
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Say that there may be a job."""
        self._wake.set()
        with self._starting:
            if self._thread is None and not self._stopping.is_set():
                self._thread = threading.Thread(target=self._loop, name="jobs", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """End the running job's child and wait for it; waiting jobs stay in the queue."""
        with self._starting:
            self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _loop(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            with self.queue.running_lock() as ours:
                while ours and not self._stopping.is_set():
                    job = self.queue.claim()
                    if job is None:
                        break
                    self._run(job)
            self._wake.wait(None if ours else _ELSEWHERE)

    def _run(self, job: Job) -> None:
        course = _Course(self.queue, job)
        folder = self.queue.folder_of(job.job_id)
        try:
            ended = child.run(
                self._command(folder / CONFIG, job.job_id),
                folder=folder,
                environ=self.environ,
                on_event=course.hear,
                stop=lambda: self._stopping.is_set() or self.queue.cancel_wanted(job.job_id),
                grace=self._grace,
            )
        except OSError as error:
            log.error("job %s: %s", job.job_id, error)
            changes = _failed(type(error).__name__, error.strerror or "it could not be run")
        else:
            changes = self._outcome(job, ended)
        self.queue.update(course.job, ended_at=now(), **changes)

    def _outcome(self, job: Job, ended: Ended) -> dict[str, Any]:
        if ended.status == 0 and ended.result is not None:
            # Told to stop too late: it is done, and says so.
            return {
                "state": SUCCEEDED,
                "model_name": ended.result.get("model_name"),
                "version": ended.result.get("version"),
            }
        if ended.stopped and self.queue.cancel_wanted(job.job_id):
            return {"state": CANCELLED}
        if ended.stopped:
            return _failed("TrainingError", "the server stopped while the job ran")
        if ended.error is not None:
            message = str(ended.error.get("message", ""))
            return _failed(str(ended.error.get("type", "MindtraceError")), message)
        return _failed("TrainingError", _ending(ended.status))


class _Course:
    """Turns a child's events into its job's record."""

    def __init__(self, queue: JobQueue, job: Job) -> None:
        self.queue = queue
        self.job = job

    def hear(self, event: Event) -> None:
        if event["event"] == "started":
            self._note(max_epochs=event.get("max_epochs"))
        elif event["event"] == "epoch":
            self._note(
                epoch=event.get("epoch"),
                max_epochs=event.get("max_epochs"),
                val_acc=(event.get("metrics") or {}).get("val_acc"),
            )

    def _note(self, **progress: Any) -> None:
        self.job = replace(self.job, **progress)
        self.queue.update(self.job)


def _failed(kind: str, message: str) -> dict[str, Any]:
    return {"state": FAILED, "error": {"type": kind, "message": message}}


def _ending(status: int) -> str:
    if status < 0:
        return f"the training was killed by {signal.Signals(-status).name}"
    return f"the training ended with status {status}, the log says more"
