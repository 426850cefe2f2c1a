"""Floor 8: the hold that a worker has on a job, and all that it may do with it.

In: a job's id and a worker's. Out: changes of the job's row that happen only while the
hold stands. Each taking of a job raises its fence by one, and every change demands the
fence that its author took: whoever was thought dead and comes back changes nothing. So
whatever DBOS hands out, and however often, a job has one course and one end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mindtrace.jobs import events
from mindtrace.jobs.database import Database, Work
from mindtrace.jobs.job import ENDED, QUEUED, RUNNING, Request, now

GO_ON, CANCEL, LOST = "go on", "cancel", "lost"

_MINE = "where job_id = ? and fence = ? and state = 'running'"


class Hold:
    """One worker's hold on one job.

    Attributes:
        job_id: the job.
        worker_id: the worker.
        fence: 0 before the job was taken.
        request: what it shall train; set when it is taken.
        attempts: how many were begun, ours included.
        lost: how many attempts ended without a word, their workers or processes killed.
        cancelling: whether somebody asked for its end before it was taken.
    """

    request: Request

    def __init__(self, database: Database, job_id: str, worker_id: str) -> None:
        self.job_id = job_id
        self.worker_id = worker_id
        self.fence = 0
        self.attempts = 0
        self.lost = 0
        self.cancelling = False
        self._database = database

    def take(self, *, loses: bool = True) -> bool:
        """Take the job, from whoever had it; False if it has ended, or is not there.

        Args:
            loses: whether an attempt that was begun before and has not put the job back
                counts as lost.

        Raises:
            StoreError: the database is away.
        """
        with self._database.transaction() as work:
            sql = f"select * from mindtrace_jobs where job_id = ? {work.locking}"
            row = work.row(sql, self.job_id)
            if row is None or row["state"] in ENDED:
                return False
            # Who lets go of a job puts it back into the queue; one that runs was left. One
            # that was left before its attempt began lost none.
            left = loses and row["state"] == RUNNING
            self.lost = min(row["lost"] + left, row["attempts"])
            self.fence = row["fence"] + 1
            self.attempts = row["attempts"]
            self.cancelling = bool(row["cancelling"])
            work.changed(
                "update mindtrace_jobs set state = ?, worker_id = ?, fence = ?, lost = ?,"
                " started_at = coalesce(started_at, ?) where job_id = ?",
                *(RUNNING, self.worker_id, self.fence, self.lost, now(), self.job_id),
            )
        self.request = Request.from_json(row["request"])
        return True

    def begin(self) -> bool:
        """Count an attempt and tell of it; False if the hold is lost."""
        with self._database.transaction() as work:
            if not self._change(work, "attempts = attempts + 1"):
                return False
            events.tell_state(work, self.job_id)
        self.attempts += 1
        return True

    def wanted(self) -> str:
        """`go on`, `cancel`, or `lost` where another worker has the job by now."""
        with self._database.transaction(write=False) as work:
            row = work.row(
                f"select cancelling from mindtrace_jobs {_MINE}", self.job_id, self.fence
            )
        if row is None:
            return LOST
        return CANCEL if row["cancelling"] else GO_ON

    def registering(self) -> bool:
        """Whether an attempt began to register, so that a version may be there."""
        with self._database.transaction(write=False) as work:
            row = work.row(
                f"select registering from mindtrace_jobs {_MINE}", self.job_id, self.fence
            )
        return row is not None and bool(row["registering"])

    def tell(self, happened: Sequence[Mapping[str, Any]], text: str = "") -> None:
        """Tell of what a training said, all at once.

        Args:
            happened: its events, in order; of interest are `started` and `epoch`.
            text: for the log.
        """
        with self._database.transaction() as work:
            if not self._change(work, "worker_id = worker_id"):
                return
            for event in happened:
                if event["event"] == "started":
                    self._change(work, "max_epochs = ?", event.get("max_epochs"))
                    events.tell_state(work, self.job_id)
                elif event["event"] == "epoch":
                    self._tell_epoch(work, event)
            if text:
                events.add_log(work, self.job_id, text.replace("\0", "?"))

    def _tell_epoch(self, work: Work, event: Mapping[str, Any]) -> None:
        val_acc = (event.get("metrics") or {}).get("val_acc")
        self._change(
            work,
            "epoch = ?, max_epochs = ?, val_acc = ?",
            *(event.get("epoch"), event.get("max_epochs"), val_acc),
        )
        told = {name: value for name, value in event.items() if name != "event"}
        events.tell(work, self.job_id, events.EPOCH, told)

    def promoting(self) -> bool | None:
        """Note that the promotion begins.

        Returns:
            Whether an earlier attempt had begun it; None if the hold is lost.
        """
        with self._database.transaction() as work:
            sql = f"select promoting from mindtrace_jobs {_MINE} {work.locking}"
            row = work.row(sql, self.job_id, self.fence)
            self._change(work, "promoting = 1")
        return None if row is None else bool(row["promoting"])

    def release(self) -> None:
        """Put the job back into the queue, for another worker to go on with."""
        with self._database.transaction() as work:
            if self._change(work, "state = ?, worker_id = null", QUEUED):
                events.tell_state(work, self.job_id)

    def finish(
        self,
        state: str,
        *,
        swept: bool,
        model_name: str | None = None,
        version: int | None = None,
        reused: bool = False,
        promotion: Mapping[str, Any] | None = None,
        error: Mapping[str, str] | None = None,
    ) -> bool:
        """End the job; False if the hold is lost.

        Args:
            state: succeeded, failed or cancelled.
            swept: whether no MLflow run of it can be open.
            model_name: of the version.
            version: what was registered.
            reused: whether it was there before.
            promotion: what became of it.
            error: what ended it.
        """
        texts = [None if one is None else json.dumps(one) for one in (promotion, error)]
        with self._database.transaction() as work:
            changed = self._change(
                work,
                "state = ?, ended_at = ?, swept = ?, model_name = ?, version = ?, reused = ?,"
                " promotion = ?, error = ?",
                *(state, now(), int(swept), model_name, version, int(reused), *texts),
            )
            if changed:
                events.tell_state(work, self.job_id)
        return changed

    def _change(self, work: Work, changes: str, *values: Any) -> bool:
        sql = f"update mindtrace_jobs set {changes} {_MINE}"
        return work.changed(sql, *values, self.job_id, self.fence) == 1


def registering(work: Work, job_id: str, fence: int) -> bool:
    """Note that an attempt begins to register; False if it must not.

    From here on the job cannot be cancelled, whoever goes on with it.
    """
    return (
        work.changed(
            f"update mindtrace_jobs set registering = 1 {_MINE} and cancelling = 0", job_id, fence
        )
        == 1
    )
