"""`mindtrace worker`: takes jobs from DBOS, one at a time, until it is told to end."""

import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from mindtrace.errors import StoreError, TrainingError
from mindtrace.jobs.attempt import Attempt, Outcome, Workplace, patiently
from mindtrace.jobs.database import APPLICATION, QUEUE, VERSION, WORKFLOW
from mindtrace.jobs.job import Request, State, iso_time
from mindtrace.jobs.reconcile import reconcile_runs

_ROUND = 0.5  # seconds between two checks for jobs of dead workers
_POLL = 0.3  # seconds between two checks for work
_SWEEP = 30.0  # seconds between two checks for open runs
_AT_ONCE = 500  # jobs of one sweep
_LAST_SECONDS = 10.0  # beyond the grace of a child, to put a job back
# We count lost attempts ourselves: DBOS's limit would also count an orderly hand-over.
_NO_LIMIT = 1_000_000

log = logging.getLogger("mindtrace.jobs")


class Worker:
    """A worker in this process; others take its job after `lease` seconds of silence."""

    def __init__(self, work: Workplace, *, lease: float) -> None:
        self._work = work
        self._queue = work.queue
        self._lease = lease
        # Unique for each start: DBOS would hand a running job to a second worker of this id.
        self._id = f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(4)}"
        self._idle = threading.Event()
        self._idle.set()
        self._beating = threading.Lock()
        self._left = threading.Event()
        self._lost_rounds = 0
        self._fault: Exception | None = None

    def run(self, ready: Callable[[str], Any]) -> None:
        """Work until `stopping` is set, then put the job back; `ready` gets our id. StoreError."""
        _ = self._queue.client  # creates the database
        self._beat()  # before DBOS takes a job, or others would think us dead
        self._repeat(self._beat, self._lease / 4)
        self._launch()
        ready(self._id)
        # Not in this thread: DBOS waits for a database that is away, and signals would wait too.
        self._repeat(self._take_over, _ROUND)
        self._repeat(self._sweep, _SWEEP)
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
        """One job from DBOS's call to its end; DBOS keeps a step's result while the job is ours."""
        self._park_if_stopping()
        fence = patiently(lambda: self._queue.fence(job_id, self._id))
        if fence is None:
            return
        job = patiently(lambda: self._queue.get(job_id))
        attempt = Attempt(self._work, journal, job, request, fence)
        outcome: Outcome | None = run_step({"name": "train"}, self._train, attempt)
        if outcome is None:
            return
        state = outcome["state"]
        log.info("job %s %s", job_id, state)
        self._work.forget(job_id)
        if state == State.CANCELLED:
            patiently(lambda: self._queue.end_cancelled(job_id))
        if state == State.FAILED:
            raise TrainingError(outcome["error"]["message"])

    def _train(self, attempt: Attempt) -> Outcome | None:
        outcome = attempt.train()
        if outcome is None:
            self._park_if_stopping()
            return None
        fields = {name: outcome[name] for name in outcome if name not in ("state", "open_runs")}
        attempt.save(**fields, begun=False, ended_at=iso_time(datetime.now(UTC)))
        if outcome["open_runs"]:
            patiently(lambda: self._queue.note_open_runs(attempt.job.job_id, True))
        return outcome

    def _park_if_stopping(self) -> None:
        """If this worker ends, never return: DBOS would note that the job is done."""
        if self._work.stopping.is_set():
            self._idle.set()
            threading.Event().wait()

    def _leave(self) -> None:
        """End the heartbeats, and hand our job to the next worker."""
        with self._beating:
            self._left.set()
            try:
                self._queue.leave(self._id)
                # A parked job counts as running, so that DBOS hands us no other.
                self._hand_out_again([self._id])
            except StoreError as error:
                log.warning("%s", error.message)  # the lease ends by itself

    def _hand_out_again(self, executor_ids: list[str]) -> None:
        from dbos import DBOS

        with self._queue.reported():
            # One update, guarded by state and executor: safe for several workers at once.
            DBOS._recover_pending_workflows(executor_ids)

    def _repeat(self, action: Callable[[], None], pause: float) -> None:
        """Repeat an action, in a thread, to the end; an unexpected error ends this worker."""

        def loop() -> None:
            while not self._left.is_set():
                try:
                    action()
                except StoreError as error:
                    log.warning("%s", error.message)
                except Exception as error:  # noqa: BLE001 - `run` raises it
                    self._fault = error
                    self._work.stopping.set()
                    return
                self._left.wait(pause)

        threading.Thread(target=loop, daemon=True).start()

    def _take_over(self) -> None:
        """Hand out again the jobs of workers that are not alive, and one of ours that is lost."""
        # We are alive, even if our heartbeat expired while this machine slept.
        dead = [executor_id for executor_id in self._queue.dead() if executor_id != self._id]
        # DBOS ends a job's thread without a trace where the database cannot be written.
        idle = self._idle.is_set() and not self._work.stopping.is_set()
        lost = idle and self._queue.has_job(self._id)
        self._lost_rounds = self._lost_rounds + 1 if lost else 0
        if self._lost_rounds * _ROUND > self._lease:
            dead.append(self._id)
            self._lost_rounds = 0
        if dead:
            log.info("taking over from %s", ", ".join(dead))
            self._hand_out_again(dead)

    def _sweep(self) -> None:
        """Close open runs of ended jobs, and remove their files."""
        work, queue = self._work, self._queue
        left = {job.job_id: job.state for job in queue.with_open_runs(_AT_ONCE)}
        if left and reconcile_runs(work.environ, work.root / "jobs", left) is not None:
            for job_id in left:
                queue.note_open_runs(job_id, False)
        for job in queue.find(sorted(work.kept())):
            if job.ended:
                work.forget(job.job_id)

    def _beat(self) -> None:
        with self._beating:
            if not self._left.is_set():
                self._queue.beat(self._id, self._lease)
