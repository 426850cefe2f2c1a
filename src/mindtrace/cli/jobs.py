"""`mindtrace retrain`, `mindtrace jobs` and `mindtrace worker`: training as durable jobs."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING

from mindtrace import service
from mindtrace.cli import completion
from mindtrace.cli.command import (
    ALLOW_LEAKAGE,
    TOKEN_FILE,
    URL,
    Call,
    argument,
    command,
    flag,
    group,
    option,
)
from mindtrace.cli.console import DONE, Cell, Console, Pair, flatten
from mindtrace.cli.progress import progress_of
from mindtrace.errors import InterruptedByUser, TrainingError, UsageError, VerdictError
from mindtrace.jobs.job import ENDED, KEY
from mindtrace.progress import EpochReport, Progress
from mindtrace.system import interruptible, stop_signals

if TYPE_CHECKING:
    from mindtrace.config.settings import Settings
    from mindtrace.service.jobs import Document, LocalJobs, RemoteJobs

_POLL = 0.5  # seconds between two reads of a log
_COLUMNS = ("job_id", "state", "submitted_at", "attempts", "epoch", "val_acc", "version", "error")
_LEASE = 10.0  # seconds; another worker takes the job of a silent one within 12
_GRACE = 20.0  # seconds from SIGTERM to SIGKILL
_HIDDEN = "for tests: seconds"
_ID = "20261123T160447570830-acaf0090"

JOB = argument("JOB", "The job's id.", completion.jobs)

app = group("List, show and cancel retraining jobs.")


def retrain(
    call: Call,
    base: str | None = option(
        "REF",
        "Start from the configuration of NAME, NAME@ALIAS or NAME/VERSION.",
        autocompletion=completion.versions,
    ),
    warm_start: bool = flag("--warm-start", "Start from the weights of that version too."),
    force: bool = flag("--force", "Train even if the same training was done before."),
    allow_leakage: bool = ALLOW_LEAKAGE,
    wait: bool = flag("--wait", "Wait until the job ends."),
    follow: bool = flag("--follow", "Wait and show the progress."),
    key: str | None = option("TEXT", "The same key and configuration give the same job."),
    url: str | None = URL,
    token_file: str | None = TOKEN_FILE,
) -> None:
    """Train a new version as a job that survives crashes.

    With --url the job goes to that server, which applies the given configuration over its
    own. Otherwise it goes to the jobs in ROOT (or [jobs] database_url), which `mindtrace
    serve` and `mindtrace worker` run; with --wait or --follow and neither of them running,
    this command runs it.

    With --wait or --follow the exit code follows the job: 0 succeeded, 1 failed, 3
    cancelled. Ctrl-C does not cancel the job.
    """
    settings = call.settings({"serve.token_file": token_file})
    if warm_start and base is None:
        raise UsageError("--warm-start needs --base", hint="--base NAME")
    from mindtrace.service.retrain_request import RetrainRequest

    if key is not None and not re.fullmatch(KEY, key):
        raise UsageError("--key must be 1 to 255 visible ASCII characters, without blanks")
    read = RetrainRequest.from_settings if url is None else RetrainRequest.for_server
    flags = {"warm_start": warm_start, "force": force, "allow_leakage": allow_leakage}
    request = read(settings, base=base, **flags)
    jobs, at = _open_jobs(settings, url), f" --url {url}" if url else ""
    # Both signals as errors: a worker in this process puts its job back before the end.
    with interruptible(), closing(jobs):
        document = jobs.submit(request, idempotency_key=key)
        if wait or follow:
            document = _wait(call.console, jobs, document["job_id"], at, show=follow)
    version = document["version"]
    quiet = document["job_id"] if version is None else f"{document['model_name']}/{version}"
    call.console.result(document, _pairs(document), quiet=quiet)
    if wait or follow:
        _require_success(document, at)
    else:
        _note_waiting(call.console, jobs, [document])
        call.console.next_step(f"mindtrace jobs show {document['job_id']}{at}")


@command(app, "jobs list", "jobs list --limit 3 --json", name="list")
def list_jobs(
    call: Call,
    limit: int = option("N", "At most N jobs.", default=20, min=1),
    url: str | None = URL,
    token_file: str | None = TOKEN_FILE,
) -> None:
    """List jobs, the newest first."""
    with closing(_jobs(call, url, token_file)) as jobs:
        found = jobs.list(limit)
        _note_waiting(call.console, jobs, found)
    call.console.results(found, _COLUMNS, [_row(document) for document in found])


@command(app, f"jobs show {_ID}", f"jobs show {_ID} --json")
def show(
    call: Call, job_id: str = JOB, url: str | None = URL, token_file: str | None = TOKEN_FILE
) -> None:
    """Show a job's progress and outcome."""
    with closing(_jobs(call, url, token_file)) as jobs:
        document = jobs.show(job_id)
        _note_waiting(call.console, jobs, [document])
    call.console.result(document, _pairs(document))


@command(app, f"jobs logs {_ID}", f"jobs logs {_ID} --follow")
def logs(
    call: Call,
    job_id: str = JOB,
    follow: bool = flag("--follow", "Print new lines until the job ends.", "-f"),
    url: str | None = URL,
    token_file: str | None = TOKEN_FILE,
) -> None:
    """Print the log of a job."""
    offset = 0
    with closing(_jobs(call, url, token_file)) as jobs:
        while True:
            # Read the state first: lines written before the end can be read after it.
            ended = not follow or jobs.show(job_id)["state"] in ENDED
            while part := jobs.log(job_id, offset):
                text = part.decode(errors="replace")
                call.console.text({"text": text}, text)
                call.console.write("", flush=True)
                offset += len(part)
            if ended:
                return
            time.sleep(_POLL)


@command(app, f"jobs cancel {_ID}", f"jobs cancel {_ID} --json")
def cancel(
    call: Call, job_id: str = JOB, url: str | None = URL, token_file: str | None = TOKEN_FILE
) -> None:
    """Cancel a queued or running job; nothing is registered.

    A running training has 20 seconds to end. A job that has ended or is registering its
    version is a conflict (exit 5).
    """
    with closing(_jobs(call, url, token_file)) as jobs:
        document = jobs.cancel(job_id)
    call.console.result(document, _pairs(document))


def worker(
    call: Call,
    lease: float = option(None, _HIDDEN, default=_LEASE, hidden=True, min=0.5, max=60),
    grace: float = option(None, _HIDDEN, default=_GRACE, hidden=True, min=0),
    lock_fd: int | None = option(None, "The lock, opened by the parent process.", hidden=True),
) -> None:
    """Run retraining jobs, one at a time.

    Runs until SIGTERM, SIGHUP or Ctrl-C; the current job returns to the queue with its
    checkpoint, and the next worker continues it. `mindtrace serve` starts a worker itself;
    with [jobs] database_url any number of them may run, on any number of machines.
    """
    settings = call.settings()
    from mindtrace.jobs.sidecar import hold_lock

    line = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(stream=sys.stderr, format=line, level=logging.WARNING)
    level = logging.WARNING if call.console.quiet else logging.INFO
    logging.getLogger("mindtrace").setLevel(level)
    if lock_fd is None:
        hold_lock(settings.dirs.root)  # until the end: servers of this ROOT start no worker then
    try:
        service.jobs.work(
            settings,
            _stopping(beside=lock_fd is not None),
            lease=lease,
            grace=grace,
            ready=lambda name: call.console.ready({"worker_id": name}, f"worker {name} takes jobs"),
        )
        status = DONE
    except Exception as error:  # noqa: BLE001 - the process must end in any case
        status = call.console.fail(error)
    # Not a return: Python would wait for DBOS's threads, and one of them may hold a job that
    # went back to the queue, which must not finish here.
    sys.stderr.flush()
    os._exit(status)


def _note_waiting(
    console: Console, jobs: LocalJobs | RemoteJobs, documents: Sequence[Document]
) -> None:
    """What takes a queued job, if nothing does."""
    if not console.json and jobs.waits(documents):
        console.note("no worker runs it; start one: mindtrace worker")


def _open_jobs(settings: Settings, url: str | None) -> LocalJobs | RemoteJobs:
    """The jobs of the server at `url`, or the local ones."""
    if url is None:
        return service.jobs.LocalJobs(settings)
    return service.jobs.RemoteJobs(url, service.serve.read_token(settings.serve.token_file))


def _jobs(call: Call, url: str | None, token_file: str | None) -> LocalJobs | RemoteJobs:
    return _open_jobs(call.settings({"serve.token_file": token_file}), url)


def _pairs(document: Document) -> list[Pair]:
    """A job's document as names and values, without those that have none."""
    return [pair for pair in flatten(document, unprefixed="progress") if pair[1] is not None]


def _row(document: Document) -> list[Cell]:
    flat = dict(_pairs(document))
    version = flat.get("version")
    reference = None if version is None else f"{flat.get('model_name')}/{version}"
    return [*(flat.get(name) for name in _COLUMNS[:-2]), reference, flat.get("error.message")]


def _wait(
    console: Console, jobs: LocalJobs | RemoteJobs, job_id: str, at: str, *, show: bool
) -> Document:
    """Follow a job to its end and return its last document; `at` is the --url for hints."""
    document: Document = {}
    try:
        with progress_of(console) if show else nullcontext(Progress()) as progress:
            for name, data in jobs.follow(job_id):
                if name == "epoch":
                    progress.epoch(EpochReport.read(data))
                    progress.advanced(data["epoch"], 1)
                    continue
                if name == "state":
                    _report_state(progress, data, document)
                document = data
    except InterruptedByUser:
        console.note(f"job {job_id} is not cancelled: mindtrace jobs cancel {job_id}{at}")
        raise
    return document


def _report_state(progress: Progress, now: Document, before: Document) -> None:
    if before.get("progress", {}).get("max_epochs") is None and now["progress"]["max_epochs"]:
        progress.started(now["progress"]["max_epochs"], 1)
    elif now["state"] == "queued":
        progress.stage(f"job {now['job_id']} is queued")
    elif now.get("cancelling"):
        progress.stage(f"job {now['job_id']} is being cancelled")
    else:
        progress.stage(f"job {now['job_id']} is training, attempt {now['attempts']}")


def _require_success(document: Document, at: str) -> None:
    if document["state"] == "failed":
        error = document["error"] or {}
        hint = f"mindtrace jobs logs {document['job_id']}{at}"
        raise TrainingError(f"job {document['job_id']} failed: {error.get('message')}", hint=hint)
    if document["state"] == "cancelled":
        raise VerdictError(f"job {document['job_id']} was cancelled")


def _stopping(*, beside: bool) -> threading.Event:
    """Set by a signal that asks for an end and, `beside` a parent process, by the end of stdin."""
    stopping = threading.Event()

    def stop(*_: object) -> None:
        # In a thread: the signal may come while this thread holds the event's lock.
        threading.Thread(target=stopping.set).start()

    for signum in stop_signals():
        signal.signal(signum, stop)
    if beside:
        from mindtrace.jobs.process import when_parent_ends

        when_parent_ends(stopping.set)
    return stopping
