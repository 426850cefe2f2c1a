"""Floor 8: one job's training, from a hold on it to how it ended.

In: a hold that was just taken. Out: what became of it, as plain values, so that DBOS can
keep them. The training is a process of its own; while it runs, its events go into the
database and the wishes of others (cancel, another worker's hold, our own end) come to it.
A database that is away for a while stops nothing: what there is to tell waits. A registry
that is away ends a training, which goes on from its checkpoint when the registry is back.
"""

from __future__ import annotations

import functools
import logging
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mindtrace.errors import StoreError
from mindtrace.jobs import child, sweep
from mindtrace.jobs.child import Ended, Event
from mindtrace.jobs.database import Database
from mindtrace.jobs.hold import CANCEL, GO_ON, LOST, Hold
from mindtrace.jobs.job import CANCELLED, FAILED, SUCCEEDED, is_job_id
from mindtrace.jobs.place import Place, claimed
from mindtrace.jobs.words import words

CONFIG = "config.ini"
ATTEMPTS = 3
_LOOK_EVERY = 0.5  # seconds between two looks whether somebody wants something else
_AGAIN = 1.0  # seconds until the next try where the database is away
_PAUSE = 5.0  # seconds until the next attempt where the registry was away: at first,
_LONGEST_PAUSE = 120.0  # later,
_PATIENCE = 4 * 3600.0  # and altogether
_OURS = "TrainingError"
_AWAY = "StoreError"
_PASSING = (_AWAY, "InterruptedByUser", "ConflictError")  # not the training's fault
_UNFIT = ("UsageError", "NotFoundError")  # of a checkpoint that is not for this machine

log = logging.getLogger("mindtrace.jobs")
Outcome = dict[str, Any]
Command = Callable[..., Sequence[str]]
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Workplace:
    """What a worker works with.

    Attributes:
        database: of the jobs.
        worker_id: this start of this worker.
        root: holds a folder for each job.
        checkpoints: holds a folder for each job's checkpoints.
        environ: all that a child sees.
        stopping: set when the worker shall end.
        grace: seconds from SIGTERM to SIGKILL.
        gives_way: whether a training computes only while nobody else wants to, at first.
        command: makes a training's command line.
    """

    database: Database
    worker_id: str
    root: Path
    checkpoints: Path
    environ: Mapping[str, str]
    stopping: threading.Event
    grace: float = child.GRACE
    gives_way: bool = False
    command: Command = child.train_command


def train(work: Workplace, hold: Hold) -> Outcome | None:
    """Train; blocks.

    Returns:
        How it ended: `state`, `swept`, and `version` or `error`. None where the job is
        another worker's by now, or was put back because this one ends.
    """
    last, waited = "the training or its worker was killed", 0.0
    gives_way = work.gives_way
    while True:
        if hold.cancelling:
            return _ended(work, hold, CANCELLED)
        if hold.lost >= ATTEMPTS:
            return _failed(work, hold, f"{ATTEMPTS} attempts were lost: {last}")
        if not patiently(hold.begin):
            return None
        log.info("job %s: a training begins", hold.job_id)
        try:
            ended = _attempt(work, hold, gives_way)
        except OSError as error:
            return failed(work, hold, error)
        if ended.status == 0 and ended.result is not None:
            # Perhaps it was told to stop, but too late: it is done, and says so.
            return _succeeded(work, hold, ended.result)
        passing = ended.status >= 0 and _kind(ended) in _PASSING
        if passing:
            waited += _wait(work, hold, min(max(_PAUSE, waited), _LONGEST_PAUSE))
        wanted = patiently(hold.wanted)
        if wanted == CANCEL:
            return _ended(work, hold, CANCELLED)
        if wanted == LOST:
            return None
        if work.stopping.is_set():
            patiently(hold.release)
            return None
        if ended.status >= 0 and (not passing or waited >= _PATIENCE):
            return _failed(work, hold, _ending(ended), kind=_kind(ended))
        last = _ending(ended)
        log.warning("job %s: %s", hold.job_id, last)
        # Where others never stop, a training must compete with them, or it would never end.
        gives_way = gives_way and not ended.starved
        # Who was killed may be killed again, out of memory, perhaps: that is a loss.
        loses = not ended.starved and (not passing or _kind(ended) != _AWAY)
        if not patiently(functools.partial(hold.take, loses=loses)):
            return None


def failed(work: Workplace, hold: Hold, error: Exception) -> Outcome | None:
    """The outcome of a job over which we ourselves failed; as of `train`."""
    text = " ".join(str(error).split())[:500]
    return _failed(work, hold, text, kind=type(error).__name__)


def prepared(work: Workplace, hold: Hold) -> Path:
    """The job's folder on this machine, with its configuration in it."""
    folder = work.root / "jobs" / hold.job_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(hold.request.config, encoding="utf-8")
    return folder


def forget(work: Workplace, job_id: str) -> None:
    """Remove what this machine keeps of a job that nobody will go on with."""
    for folder in (work.checkpoints, work.root):
        shutil.rmtree(folder / "jobs" / job_id, ignore_errors=True)


def kept(work: Workplace) -> set[str]:
    """The jobs of which this machine keeps something."""
    found = (
        path.name for folder in (work.checkpoints, work.root) for path in folder.glob("jobs/*")
    )
    return {name for name in found if is_job_id(name)}


def patiently(ask: Callable[[], Answer]) -> Answer:
    """Ask the database, for as long as it is away."""
    while True:
        try:
            return ask()
        except StoreError as error:
            log.warning("%s", error.message)
            time.sleep(_AGAIN)


def _wait(work: Workplace, hold: Hold, seconds: float) -> float:
    """Wait, unless somebody wants something else meanwhile; gives `seconds` back."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and patiently(hold.wanted) == GO_ON:
        if work.stopping.wait(_LOOK_EVERY):
            break
    return seconds


def _attempt(work: Workplace, hold: Hold, gives_way: bool) -> Ended:
    folder = prepared(work, hold)
    with claimed(work.checkpoints, hold.job_id, hold.fence) as place:
        resume = place.has_checkpoint
        ended = _run(work, hold, folder, place, resume=resume, gives_way=gives_way)
    unfit = resume and (ended.error or {}).get("type") in _UNFIT and not ended.stopped
    if unfit:
        # The checkpoint is of another machine, say: begin anew, beside it.
        shutil.rmtree(place.folder, ignore_errors=True)
        with claimed(work.checkpoints, hold.job_id, hold.fence) as place:
            ended = _run(work, hold, folder, place, resume=False, gives_way=gives_way)
    return ended


def _run(
    work: Workplace, hold: Hold, folder: Path, place: Place, *, resume: bool, gives_way: bool
) -> Ended:
    course = _Course(work, hold)
    ended = child.run(
        work.command(folder / CONFIG, hold.job_id, hold.fence, hold.request, resume=resume),
        folder=folder,
        environ={**work.environ, "DIR_PATHS__CHECKPOINTS": str(place.folder)},
        on_event=course.hear,
        on_line=course.read,
        stop=course.stop,
        place=place,
        grace=work.grace,
        gives_way=gives_way,
    )
    patiently(course.tell)
    return ended


class _Course:
    """Between a child and its job's row; what it says is told twice a second."""

    def __init__(self, work: Workplace, hold: Hold) -> None:
        self._work = work
        self._hold = hold
        self._happened: list[Event] = []
        self._text: list[str] = []
        self._wanted = GO_ON
        self._next_look = 0.0

    def read(self, line: bytes) -> None:
        """A line for the log."""
        self._text.append(words(line))

    def hear(self, event: Event) -> None:
        """An event for whoever follows the job."""
        self._happened.append(event)

    def stop(self) -> bool:
        """Whether the child shall end; asked often, looks seldom."""
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _LOOK_EVERY
            try:
                self.tell()
                self._wanted = self._hold.wanted()
            except StoreError as error:
                log.warning("job %s: %s", self._hold.job_id, error.message)
        return self._wanted != GO_ON or self._work.stopping.is_set()

    def tell(self) -> None:
        """Everything that waits to be told.

        Raises:
            StoreError: the database is away; what was not told waits on.
        """
        # Counted, as another thread adds to them.
        happened, text = len(self._happened), len(self._text)
        if happened or text:
            self._hold.tell(self._happened[:happened], "".join(self._text[:text]))
            del self._happened[:happened], self._text[:text]


def _succeeded(work: Workplace, hold: Hold, result: Mapping[str, Any]) -> Outcome:
    # Of earlier attempts runs may be open.
    swept = hold.attempts == 1 or _look(work, hold, SUCCEEDED) is not None
    return {
        "state": SUCCEEDED,
        "swept": swept,
        "model_name": result.get("model_name"),
        "version": result.get("version"),
        "reused": bool(result.get("reused")),
    }


def _failed(work: Workplace, hold: Hold, message: str, *, kind: str = _OURS) -> Outcome | None:
    outcome = _ended(work, hold, FAILED)
    if outcome is not None and outcome["state"] == FAILED:
        outcome["error"] = {"type": kind, "message": message}
    return outcome


def _ended(work: Workplace, hold: Hold, state: str) -> Outcome | None:
    """The end of a job without a word of success; what it left open is closed first.

    One that died right after it registered has succeeded, whatever it looks like: while
    only the store can tell and is away, it is asked again, until this worker ends.
    """
    while (found := _look(work, hold, state)) is None and patiently(hold.registering):
        if work.stopping.wait(_PAUSE):
            return None
    version = (found or {}).get(hold.job_id, {})
    return {"state": SUCCEEDED if version else state, "swept": found is not None, **version}


def _look(work: Workplace, hold: Hold, state: str) -> sweep.Versions | None:
    return sweep.sweep(work.environ, work.root / "jobs", {hold.job_id: state})


def _kind(ended: Ended) -> str:
    return str((ended.error or {}).get("type", _OURS))


def _ending(ended: Ended) -> str:
    if ended.starved:
        return "the training waited for a processor all the time: it competes from now on"
    if ended.error is not None:
        return str(ended.error.get("message"))
    if ended.status < 0:
        return f"the training was killed by {signal.Signals(-ended.status).name}"
    return f"the training ended with status {ended.status}, the log says more"
