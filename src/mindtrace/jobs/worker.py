"""Floor 8: `mindtrace worker`: takes jobs, one at a time, until it is told to end.

In: settings. Out: nothing; `run` returns when a signal, or the end of the server beside
which it runs, has come, and the job at hand was put back with its checkpoint. Three things
go on at a time: a heartbeat, a round (hand jobs to DBOS, take over from the dead, close
open runs), and DBOS's own threads, one of which trains.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from mindtrace.config.settings import Settings
from mindtrace.errors import StoreError
from mindtrace.jobs import child, events, supervise, sweep, workers
from mindtrace.jobs.database import open_database
from mindtrace.jobs.engine import Engine
from mindtrace.jobs.hold import Hold
from mindtrace.jobs.job import FAILED, QUEUED
from mindtrace.jobs.promote import not_promoted, promote
from mindtrace.jobs.supervise import Outcome, Workplace, patiently

_ROUND = 0.5  # seconds
_AT_ONCE = 500  # jobs of one sweep
_SWEEP = 30.0  # seconds between two looks for open runs
_LAST_WORDS = 10.0  # seconds, beyond the grace of a child, to put a job back

log = logging.getLogger("mindtrace.jobs")


class Worker:
    """A worker of one process."""

    def __init__(
        self,
        settings: Settings,
        environ: dict[str, str],
        stopping: threading.Event,
        *,
        lease: float = workers.LEASE,
        grace: float = child.GRACE,
        gives_way: bool = False,
    ) -> None:
        """Prepare a worker; nothing runs yet.

        Args:
            settings: where jobs, checkpoints and versions are.
            environ: all that its trainings see.
            stopping: set from outside when it shall end.
            lease: seconds of silence after which others take its job.
            grace: seconds that a training has to end, once it was told to.
            gives_way: its trainings compute only while nobody else wants to.
        """
        self._settings = settings
        self._database = open_database(
            settings.jobs.database_url, settings.dirs.root, durable=False
        )
        self._lease = lease
        self._idle = threading.Event()
        self._idle.set()
        self._work = Workplace(
            database=self._database,
            worker_id=workers.new_worker_id(),
            root=settings.dirs.root,
            checkpoints=settings.dirs.checkpoints,
            environ=environ,
            stopping=stopping,
            grace=grace,
            gives_way=gives_way,
        )
        self._engine = Engine(self._database, self._work.worker_id)
        self._next_sweep = 0.0
        self._sweeper = threading.Thread()
        self._beating = threading.Lock()
        self._left = False
        self._fault: Exception | None = None

    def run(self, ready: Callable[[str], Any]) -> None:
        """Work until `stopping` is set; then put away what is at hand.

        Args:
            ready: called with the worker's id once jobs are taken.

        Raises:
            StoreError: the database is away at the start; later it is waited for.
        """
        self._beat()  # before DBOS looks for work, or others would think us dead
        threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True).start()
        self._engine.launch(self._retrain)
        ready(self._work.worker_id)
        threading.Thread(target=self._go_round, name="rounds", daemon=True).start()
        self._work.stopping.wait()
        self._idle.wait(self._work.grace + _LAST_WORDS)
        with self._beating:
            self._left = True
            try:
                workers.leave(self._database, self._work.worker_id)
            except StoreError as error:
                log.warning("%s", error.message)  # the lease ends by itself
        if self._fault is not None:
            raise self._fault

    def _go_round(self) -> None:
        # Aside, as DBOS waits for a database that is away, and hears no signal meanwhile.
        while not self._work.stopping.wait(_ROUND):
            try:
                self._round()
            except StoreError as error:
                log.warning("%s", error.message)
            except Exception as error:  # noqa: BLE001 - told by the thread that waits for us
                self._fault = error
                self._work.stopping.set()

    def _round(self) -> None:
        with self._database.transaction(write=False) as work:
            rows = work.rows(
                "select job_id from mindtrace_jobs where state = ? and dispatched = 0"
                " order by job_id",
                QUEUED,
            )
        for row in rows:
            self._engine.hand_in(row["job_id"])
            with self._database.transaction() as work:
                work.changed(
                    "update mindtrace_jobs set dispatched = 1 where job_id = ?", row["job_id"]
                )
        self._engine.take_over(self._alive)
        if time.monotonic() >= self._next_sweep and not self._sweeper.is_alive():
            self._next_sweep = time.monotonic() + _SWEEP
            self._sweeper = threading.Thread(target=self._tidy, name="sweep", daemon=True)
            self._sweeper.start()

    def _alive(self) -> set[str]:
        # We are, whatever the database heard of us while this machine slept.
        return {*workers.alive(self._database), self._work.worker_id}

    def _retrain(self, job_id: str) -> None:
        """One job, from DBOS's hand to its end."""
        self._idle.clear()
        try:
            if self._work.stopping.is_set():
                self._park()
            hold = Hold(self._database, job_id, self._work.worker_id)
            try:
                self._course(hold)
            except Exception as error:
                # DBOS would call it done, and nobody would look at it again.
                log.exception("job %s", job_id)
                self._give_up(hold, error)
        finally:
            self._idle.set()

    def _give_up(self, hold: Hold, error: Exception) -> None:
        """End a job of which not even the failure could be put down; a sweep looks after it."""
        said = {"type": type(error).__name__, "message": " ".join(str(error).split())[:500]}
        patiently(lambda: hold.finish(FAILED, swept=False, error=said))

    def _course(self, hold: Hold) -> None:
        if not patiently(hold.take):
            return
        try:
            outcome = self._engine.step("train", self._train, hold)
        except Exception as error:
            log.exception("job %s", hold.job_id)
            outcome = self._unless_parked(supervise.failed(self._work, hold, error))
        if outcome is None:
            return
        try:
            promotion = self._engine.step(
                "promote", promote, self._settings, self._work, hold, outcome
            )
        except Exception as error:
            log.exception("job %s: its version was not promoted", hold.job_id)
            promotion = not_promoted(error)
        if patiently(lambda: hold.finish(**outcome, promotion=promotion)):
            log.info("job %s %s", hold.job_id, outcome["state"])
            supervise.forget(self._work, hold.job_id)

    def _train(self, hold: Hold) -> Outcome | None:
        return self._unless_parked(supervise.train(self._work, hold))

    def _unless_parked(self, outcome: Outcome | None) -> Outcome | None:
        if outcome is None and self._work.stopping.is_set():
            self._park()
        return outcome

    def _park(self) -> None:
        """Never come back: DBOS would note that the job, which waits for another, is done."""
        self._idle.set()
        threading.Event().wait()

    def _tidy(self) -> None:
        """Put away what jobs left that ended where nobody could do it."""
        try:
            self._sweep()
            for job_id in supervise.kept(self._work):
                with self._database.transaction(write=False) as work:
                    job = events.read_job(work, job_id)
                if job is not None and job.ended:
                    supervise.forget(self._work, job_id)
        except StoreError as error:
            log.warning("%s", error.message)

    def _sweep(self) -> None:
        """Close the runs of jobs that ended."""
        with self._database.transaction(write=False) as work:
            rows = work.rows(
                "select job_id, state from mindtrace_jobs where ended_at is not null and swept = 0"
                " limit ?",
                _AT_ONCE,
            )
        ended = {row["job_id"]: row["state"] for row in rows}
        folder = self._settings.dirs.root / "jobs"
        if ended and sweep.sweep(self._work.environ, folder, ended) is not None:
            with self._database.transaction() as work:
                for job_id in ended:
                    work.changed("update mindtrace_jobs set swept = 1 where job_id = ?", job_id)

    def _beat(self) -> None:
        with self._beating:
            if not self._left:
                workers.beat(self._database, self._work.worker_id, self._lease)

    def _keep_beating(self) -> None:
        while True:
            time.sleep(self._lease / 4)
            try:
                self._beat()
            except StoreError as error:
                log.warning("%s", error.message)
