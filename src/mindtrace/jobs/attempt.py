"""One job's training in a process of its own, from a worker's claim on the job to its outcome."""

import logging
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypeVar

from mindtrace.errors import StoreError
from mindtrace.jobs.database import EVENTS, LOG, RECORD
from mindtrace.jobs.job import EPOCH, FLAGS, STATE, Job, Request, State, is_job_id, iso_time
from mindtrace.jobs.process import GRACE, Watchdog, checkpoint_lock
from mindtrace.jobs.queue import CANCELLING, LOST, REGISTERING, JobQueue
from mindtrace.jobs.reconcile import Versions, reconcile_runs
from mindtrace.progress import EpochReport
from mindtrace.system import ChildResult, last_json, own_command

CONFIG = "config.ini"
ATTEMPTS = 3
LOG_LIMIT = 1 << 20  # bytes of a job's log
_POLL = 0.5  # seconds between two reports, and between two checks for a cancellation
_AGAIN = 1.0  # seconds until the next try where the database is away
_PAUSE = 5.0  # seconds until the next attempt where the registry was away: at first,
_LONGEST_PAUSE = 120.0  # later,
_PATIENCE = 4 * 3600.0  # and altogether
_AWAY = "StoreError"
_PASSING = (_AWAY, "InterruptedByUser", "ConflictError")  # not the training's fault
_UNFIT = ("UsageError", "NotFoundError")  # the checkpoint is not for this machine
_STOP = (CANCELLING, LOST)
_CUT = "\n... the log is too long and ends here\n"

log = logging.getLogger("mindtrace.jobs")
Outcome = dict[str, Any]
Answer = TypeVar("Answer")


def train_command(
    config: Path, job_id: str, fence: int, request: Request, *, resume: bool
) -> list[str]:
    """The command line of a job's training."""
    return [
        *own_command("train", "--config", str(config), "--json"),
        *("--job-id", job_id, "--attempt", str(fence)),
        *(("--set", f"jobs.promote={request.promote}") if request.promote else ()),
        *(("--parent", request.parent) if request.parent else ()),
        *(f"--{flag.replace('_', '-')}" for flag in FLAGS if getattr(request, flag)),
        *(("--resume", "last") if resume else ()),
    ]


@dataclass(frozen=True)
class Workplace:
    """The queue, folders and limits of a worker."""

    queue: JobQueue
    root: Path
    checkpoints: Path
    environ: Mapping[str, str]  # all that a child sees
    stopping: threading.Event  # set when the worker should end
    grace: float = GRACE

    def forget(self, job_id: str) -> None:
        """Remove this machine's files of a job that nobody will go on with."""
        for folder in (self.checkpoints, self.root):
            shutil.rmtree(folder / "jobs" / job_id, ignore_errors=True)

    def kept(self) -> set[str]:
        """The jobs that this machine has files of."""
        folders = (self.checkpoints, self.root)
        names = (path.name for folder in folders for path in folder.glob("jobs/*"))
        return {name for name in names if is_job_id(name)}


@dataclass(eq=False)
class Attempt:
    """A worker's claim on a job; `journal` (DBOS) raises if it is lost, which DBOS catches."""

    work: Workplace
    journal: Any
    job: Job
    request: Request
    fence: int

    def train(self) -> Outcome | None:
        """Train, blocks: the outcome (`state`, `version`, `error`); None if it is not ours."""
        try:
            return self._attempts()
        except Exception as error:
            ours = not isinstance(error, OSError)  # a full disk is not
            log.error("job %s: %s", self.job.job_id, error, exc_info=ours)
            text = " ".join(str(error).split())[:500]
            return self._failed(text, kind=type(error).__name__)

    def _attempts(self) -> Outcome | None:
        last, waited = "the training or its worker was killed", 0.0
        # An attempt that began, and neither ended nor put the job back, is lost.
        lost = self.job.lost + self.job.begun
        while True:
            decision = patiently(self._decision)
            if decision == CANCELLING:
                return self._ended(State.CANCELLED)
            if decision == LOST:
                return None
            if self.work.stopping.is_set():
                self._put_back()
                return None
            if lost >= ATTEMPTS:
                return self._failed(f"{ATTEMPTS} attempts were lost: {last}")
            self._begin(lost)
            ended = self._run()
            if ended.status == 0 and ended.document:
                # A request to stop may have come too late: the training is done.
                return self._succeeded(ended.document)
            kind = str(ended.error.get("type", "TrainingError"))
            passing = ended.status >= 0 and kind in _PASSING
            last = _ending(ended)
            if ended.status >= 0 and (not passing or waited >= _PATIENCE):
                return self._failed(last, kind=kind)
            log.warning("job %s: %s", self.job.job_id, last)
            if passing:
                waited += self._pause(min(max(_PAUSE, waited), _LONGEST_PAUSE))
            # A killed training may be killed again (out of memory): count it as lost.
            lost += not passing or kind != _AWAY

    def save(self, **changes: Any) -> None:
        """Record changes of the job."""
        self.job = replace(self.job, **changes)
        self.journal.set_event(RECORD, self.job.record())

    def _begin(self, lost: int) -> None:
        started = self.job.started_at or iso_time(datetime.now(UTC))
        attempts = self.job.attempts + 1
        self.save(state=State.RUNNING, attempts=attempts, begun=True, lost=lost, started_at=started)
        self._report(STATE, self.job.document())
        log.info("job %s: a training begins", self.job.job_id)

    def _put_back(self) -> None:
        """Leave the job for another worker to go on with."""
        self.save(state=State.QUEUED, begun=False)
        self._report(STATE, self.job.document())

    def _run(self) -> ChildResult:
        place = (self.work.checkpoints, self.job.job_id, self.fence)
        with checkpoint_lock(*place) as (checkpoints, lock):
            resume = any(checkpoints.glob("*/last.ckpt"))
            ended = self._train(checkpoints, lock, resume=resume)
        if resume and ended.error.get("type") in _UNFIT:
            # The checkpoint is of another machine, for example: start from the beginning.
            shutil.rmtree(checkpoints, ignore_errors=True)
            with checkpoint_lock(*place) as (checkpoints, lock):
                ended = self._train(checkpoints, lock, resume=False)
        return ended

    def _train(self, checkpoints: Path, lock: IO[bytes], *, resume: bool) -> ChildResult:
        work, request, job_id = self.work, self.request, self.job.job_id
        folder = work.root / "jobs" / job_id
        decision: str | None = None
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / CONFIG
        config.write_text(request.config, encoding="utf-8")
        with Watchdog(
            train_command(config, job_id, self.fence, request, resume=resume),
            folder=folder,
            environ={**work.environ, "DIR_PATHS__CHECKPOINTS": str(checkpoints)},
            # In the watchdog's thread, as the lines below wait for a database that is away.
            stop=lambda: decision in _STOP or work.stopping.is_set(),
            grace=work.grace,
            lock=lock.fileno(),
        ) as child:
            lock.write(str(child.process.pid).encode())
            lock.close()  # the child inherited it
            while (ended := child.wait(_POLL)) is None:
                self._report_lines(child.take())
                try:
                    decision = self._decision()
                except StoreError as error:
                    log.warning("job %s: %s", job_id, error.message)
                if decision == CANCELLING and not self.job.cancelling:
                    self.job = replace(self.job, cancelling=True)
                    self._report(STATE, self.job.document())
            if decision != LOST:
                self._report_lines(child.take())
        return ended

    def _report(self, name: str, data: Mapping[str, Any]) -> None:
        self.journal.write_stream(EVENTS, {"event": name, "data": data})

    def _report_lines(self, lines: Sequence[bytes]) -> None:
        """Report a training's stderr: the record and events, then the log."""
        events: list[tuple[str, Mapping[str, Any]]] = []
        for line in lines:
            fields = last_json(line)
            if fields.get("event") == "started":
                self.job = replace(self.job, max_epochs=fields.get("max_epochs"))
                events.append((STATE, self.job.document()))
            elif fields.get("event") == "epoch":
                epoch, max_epochs = fields.get("epoch"), fields.get("max_epochs")
                val_acc = (fields.get("metrics") or {}).get("val_acc")
                self.job = replace(self.job, epoch=epoch, max_epochs=max_epochs, val_acc=val_acc)
                del fields["event"]
                events.append((EPOCH, fields))
        text, left = "".join(map(log_text, lines)).replace("\0", "?"), LOG_LIMIT - self.job.log_size
        if len(text.encode()) > left:
            text = text.encode()[:left].decode(errors="ignore") + _CUT if left > 0 else ""
        if events or text:
            self.save(log_size=self.job.log_size + len(text.encode()))
        for name, data in events:
            self._report(name, data)
        if text:
            self.journal.write_stream(LOG, text)

    def _decision(self) -> str | None:
        return self.work.queue.decision(self.job.job_id, self.fence)

    def _pause(self, seconds: float) -> float:
        """Wait, unless the job is cancelled or lost or the worker ends; returns `seconds`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and patiently(self._decision) not in _STOP:
            if self.work.stopping.wait(_POLL):
                break
        return seconds

    def _succeeded(self, result: Mapping[str, Any]) -> Outcome:
        # Earlier attempts may have left runs open.
        closed = self.job.attempts == 1 or self._reconcile(State.SUCCEEDED) is not None
        found = {name: result.get(name) for name in ("model_name", "version", "promotion")}
        found["reused"] = bool(result.get("reused"))
        return {"state": State.SUCCEEDED, "open_runs": not closed, **found}

    def _failed(self, message: str, *, kind: str = "TrainingError") -> Outcome | None:
        outcome = self._ended(State.FAILED)
        if outcome is not None and outcome["state"] == State.FAILED:
            outcome["error"] = {"type": kind, "message": message}
        return outcome

    def _ended(self, state: str) -> Outcome | None:
        """The outcome of a job that did not report success; closes its runs."""
        while (found := self._reconcile(state)) is None and self._is_registering():
            if self.work.stopping.wait(_PAUSE):
                self._put_back()
                return None
        version = (found or {}).get(self.job.job_id, {})
        state = State.SUCCEEDED if version else state
        return {"state": state, "open_runs": found is None, **version}

    def _is_registering(self) -> bool:
        try:
            return self._decision() == REGISTERING
        except StoreError:
            return True  # unknown

    def _reconcile(self, state: str) -> Versions | None:
        folder = self.work.root / "jobs"
        return reconcile_runs(self.work.environ, folder, {self.job.job_id: state})


def patiently(ask: Callable[[], Answer]) -> Answer:
    """Ask the database, again and again while it is away."""
    while True:
        try:
            return ask()
        except StoreError as error:
            log.warning("%s", error.message)
            time.sleep(_AGAIN)


def _ending(ended: ChildResult) -> str:
    if ended.error:
        return str(ended.error.get("message"))
    if ended.status < 0:
        return f"the training was killed by {signal.Signals(-ended.status).name}"
    return f"the training ended with status {ended.status}, the log says more"


def log_text(line: bytes) -> str:
    """A line of a training's stderr for people; it can be encoded as UTF-8."""
    fields = last_json(line)
    error, name = fields.get("error"), fields.get("event")
    if isinstance(error, dict):
        hint = error.get("hint")
        text = f"error: {error.get('message')}\n" + (f"hint: {hint}\n" if hint else "")
    elif name == "started":
        text = f"training of {fields.get('max_epochs')} epochs begins\n"
    elif name == "epoch":
        text = f"{EpochReport.read(fields)}\n"
    elif name in ("stage", "note"):
        text = f"{fields.get('text')}\n"
    else:
        return line.decode(errors="replace")
    return text.encode(errors="backslashreplace").decode()
