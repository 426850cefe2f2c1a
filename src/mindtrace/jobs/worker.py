"""`mindtrace worker`: takes jobs from DBOS, one at a time, until it is told to end.

DBOS hands jobs out and lets nobody write who lost one. What it lacks is a sign that a worker
lives: each beats in a table, and what belongs to a silent one is handed out again.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from mindtrace.config.settings import Settings
from mindtrace.errors import StoreError
from mindtrace.jobs.attempt import Attempt, Outcome, Workplace, patiently
from mindtrace.jobs.database import APPLICATION, QUEUE, VERSION, WORKFLOW
from mindtrace.jobs.job import CANCELLED, FAILED, Request, now
from mindtrace.jobs.process import GRACE
from mindtrace.jobs.promote import not_promoted, promote
from mindtrace.jobs.queue import JobQueue
from mindtrace.jobs.reconcile import reconcile_runs

LEASE = 10.0  # seconds; with the next look of another worker, a job is taken up within 12
_ROUND = 0.5  # seconds between two looks for the jobs of dead workers
_POLL = 0.3  # seconds between two looks for work
_SWEEP = 30.0  # seconds between two looks for open runs
_AT_ONCE = 500  # jobs of one sweep
_LAST_SECONDS = 10.0  # beyond the grace of a child, to put a job back
# We count lost attempts ourselves: DBOS's limit would also count an orderly hand-over.
_NO_LIMIT = 1_000_000

log = logging.getLogger("mindtrace.jobs")


class JobFailedError(Exception):
    """Ends the workflow of a job that failed."""


class Worker:
    """A worker of one process; `lease` is how long its silence lasts until others take its job."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        stopping: threading.Event,
        *,
        lease: float = LEASE,
        grace: float = GRACE,
        gives_way: bool = False,
    ) -> None:
        self._settings = settings
        self._lease = lease
        # A worker that starts again is another one: DBOS would take the first one's job.
        self._id = f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(4)}"
        jobs = settings.jobs
        self._queue = JobQueue(
            jobs.database_url, settings.dirs.root, jobs.max_queued, durable=False
        )
        self._work = Workplace(
            queue=self._queue,
            root=settings.dirs.root,
            checkpoints=settings.dirs.checkpoints,
            environ=environ,
            stopping=stopping,
            grace=grace,
            gives_way=gives_way,
        )
        self._idle = threading.Event()
        self._idle.set()
        self._beating = threading.Lock()
        self._left = False
        self._next_sweep = 0.0
        self._sweeper = threading.Thread()
        self._fault: Exception | None = None

    def run(self, ready: Callable[[str], Any]) -> None:
        """Work until `stopping` is set; then put back what is at hand.

        `ready` is called with the worker's id once jobs are taken. Raises StoreError: the
        database is away at the start; later it is waited for.
        """
        _ = self._queue.client  # which makes the database
        self._beat()  # before DBOS looks for work, or others would think us dead
        threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True).start()
        self._launch()
        ready(self._id)
        threading.Thread(target=self._go_round, name="rounds", daemon=True).start()
        self._work.stopping.wait()
        self._idle.wait(self._work.grace + _LAST_SECONDS)
        self._leave()
        if self._fault is not None:
            raise self._fault

    def _launch(self) -> None:
        from dbos import DBOS, DBOSPortableJSONSerializer

        DBOS(
            config={
                "name": APPLICATION,
                "system_database_url": str(self._queue.engine.url),
                "system_database_engine": self._queue.engine,
                "executor_id": self._id,
                # Fixed, or jobs of yesterday's code would wait for ever.
                "application_version": VERSION,
                "serializer": DBOSPortableJSONSerializer(),
                "log_level": "WARNING",
                "use_listen_notify": False,
            }
        )

        @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=_NO_LIMIT)
        def train(request: dict[str, Any]) -> None:
            job_id = DBOS.workflow_id
            assert job_id is not None
            self._idle.clear()
            try:
                self._course(job_id, Request.from_fields(request), DBOS.run_step, DBOS)
            finally:
                self._idle.set()

        with self._queue.reported():
            DBOS.launch()
            DBOS.register_queue(QUEUE, worker_concurrency=1, polling_interval_sec=_POLL)

    def _course(
        self, job_id: str, request: Request, run_step: Callable[..., Any], journal: Any
    ) -> None:
        """One job, from DBOS's hand to its end.

        Steps that a dead worker completed are not repeated. Whatever a step or its end says, it
        counts only as long as the job is ours: DBOS sees to it.
        """
        self._park_if_stopping()
        fence = patiently(lambda: self._queue.fence(job_id, self._id))
        if fence is None:
            return
        job = patiently(lambda: self._queue.get(job_id))
        attempt = Attempt(self._work, journal, job, request, fence)
        outcome: Outcome | None = run_step({"name": "train"}, self._train, attempt)
        if outcome is None:
            return
        promotion = run_step({"name": "promote"}, self._promote, attempt, outcome)
        run_step({"name": "end"}, self._end, attempt, outcome, promotion)
        state = outcome["state"]
        log.info("job %s %s", job_id, state)
        self._work.forget(job_id)
        if state == CANCELLED:
            patiently(lambda: self._queue.end_cancelled(job_id))
        if state == FAILED:
            raise JobFailedError(outcome["error"]["message"])

    def _train(self, attempt: Attempt) -> Outcome | None:
        try:
            try:
                outcome = attempt.train()
            except Exception as error:
                log.exception("job %s", attempt.job.job_id)
                outcome = attempt.failed(error)
        except Exception as error:
            # Not even what it left could be looked at; a sweep does that.
            log.exception("job %s", attempt.job.job_id)
            text = " ".join(str(error).split())[:500]
            error_fields = {"type": type(error).__name__, "message": text}
            return {"state": FAILED, "open_runs": True, "error": error_fields}
        if outcome is None:
            self._park_if_stopping()
        return outcome

    def _promote(self, attempt: Attempt, outcome: Outcome) -> Outcome | None:
        try:
            return promote(attempt, outcome, self._settings.jobs.promote)
        except Exception as error:
            log.exception("job %s: its version was not promoted", attempt.job.job_id)
            return not_promoted(error)

    def _end(self, attempt: Attempt, outcome: Outcome, promotion: Outcome | None) -> None:
        fields = {name: value for name, value in outcome.items() if name not in _OF_THE_END}
        attempt.save(**fields, promotion=promotion, begun=False, ended_at=now())
        job_id, open_runs = attempt.job.job_id, outcome["open_runs"]
        if open_runs:
            patiently(lambda: self._queue.note_open_runs(job_id, open_runs))

    def _park_if_stopping(self) -> None:
        """Where this worker ends, never come back: DBOS would note that the job is done."""
        if self._work.stopping.is_set():
            self._idle.set()
            threading.Event().wait()

    def _leave(self) -> None:
        """Say that we are gone, and hand our job to whoever is next."""
        with self._beating:
            self._left = True
            try:
                self._queue.leave(self._id)
                self._put_back()
            except StoreError as error:
                log.warning("%s", error.message)  # the lease ends by itself

    def _put_back(self) -> None:
        from dbos import DBOS

        # A parked job counts as running, so that DBOS hands us no other.
        with self._queue.reported():
            DBOS._recover_pending_workflows([self._id])

    def _go_round(self) -> None:
        # Aside, as DBOS waits for a database that is away, and hears no signal meanwhile.
        while not self._work.stopping.wait(_ROUND):
            try:
                self._round()
            except StoreError as error:
                log.warning("%s", error.message)
            except Exception as error:  # noqa: BLE001 - raised by the thread that waits for us
                self._fault = error
                self._work.stopping.set()

    def _round(self) -> None:
        self._take_over()
        if time.monotonic() >= self._next_sweep and not self._sweeper.is_alive():
            self._next_sweep = time.monotonic() + _SWEEP
            self._sweeper = threading.Thread(target=self._sweep, name="sweep", daemon=True)
            self._sweeper.start()

    def _take_over(self) -> None:
        """Hand out again what belongs to workers that are not alive."""
        from dbos import DBOS

        # We live, whatever the database heard of us while this machine slept.
        dead = [executor_id for executor_id in self._queue.dead() if executor_id != self._id]
        if dead:
            log.info("taking over from %s", ", ".join(dead))
            with self._queue.reported():
                # One update, guarded by state and executor: several takers do no harm.
                DBOS._recover_pending_workflows(dead)

    def _sweep(self) -> None:
        """Put away what jobs left that ended where nobody could do it."""
        try:
            left = {job.job_id: job.state for job in self._queue.with_open_runs(_AT_ONCE)}
            if left and self._reconciled(left):
                for job_id in left:
                    self._queue.note_open_runs(job_id, False)
            for job in self._queue.find(sorted(self._work.kept())):
                if job.ended:
                    self._work.forget(job.job_id)
        except StoreError as error:
            log.warning("%s", error.message)

    def _reconciled(self, ended: Mapping[str, str]) -> bool:
        folder = self._settings.dirs.root / "jobs"
        return reconcile_runs(self._work.environ, folder, ended) is not None

    def _beat(self) -> None:
        with self._beating:
            if not self._left:
                self._queue.beat(self._id, self._lease)

    def _keep_beating(self) -> None:
        while True:
            time.sleep(self._lease / 4)
            try:
                self._beat()
            except StoreError as error:
                log.warning("%s", error.message)


_OF_THE_END = ("state", "open_runs")
