"""`mindtrace retrain`: a configuration comes in, a job goes out, and if wanted its version."""

from __future__ import annotations

from contextlib import closing
from math import nan
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mindtrace.cli.common import Call
from mindtrace.cli.console import Console
from mindtrace.cli.jobs import TOKEN_FILE, URL, job_fields, jobs_of
from mindtrace.cli.progress import progress_for
from mindtrace.errors import InterruptedByUser, TrainingError, UsageError, VerdictError

if TYPE_CHECKING:
    from mindtrace.progress import Progress
    from mindtrace.service.local_jobs import Document, Jobs


def retrain(
    call: Call,
    *,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="REF", help="Start from the configuration of NAME, NAME@ALIAS or NAME/VERSION."
        ),
    ] = None,
    warm_start: Annotated[
        bool, typer.Option("--warm-start", help="And from the weights of that version.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Train even if the same was trained before.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the job's end.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Wait for it, and show what happens.")
    ] = False,
    key: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="The same key and configuration give the same job."),
    ] = None,
    url: URL = None,
    token_file: TOKEN_FILE = None,
) -> None:
    """Train a new version as a job that survives crashes.

    The job goes to the server at --url, which lays what the configuration sets over its
    own; else to the jobs in ROOT (or [jobs] database_url), which `mindtrace serve` and
    `mindtrace worker` take. Who waits and finds neither works by itself.

    With --wait or --follow the exit code follows the job: 0 succeeded, 1 failed, 3
    cancelled. Ctrl-C leaves the job as it is.
    """
    settings = call.settings({"serve.token_file": token_file})
    if warm_start and base is None:
        raise UsageError("--warm-start needs --base", hint="mindtrace retrain --base NAME ...")
    from mindtrace.jobs.job import is_key
    from mindtrace.service.retrain import Order, Overlay
    from mindtrace.system import interruptible

    if key is not None and not is_key(key):
        raise UsageError("--key must be 1 to 255 visible ASCII characters, without blanks")
    overlay = Overlay.from_settings if url is None else Overlay.for_server
    order = Order(overlay(settings), base, warm_start, force)
    jobs, at = jobs_of(settings, url), f" --url {url}" if url else ""
    # Both signals as errors: a worker beside us puts its job back before we end.
    with interruptible(), closing(jobs):
        document = jobs.submit(order, idempotency_key=key)
        if wait or follow:
            document = _ended(call.console, jobs, document["job_id"], at, show=follow)
    _show(call.console, document)
    if wait or follow:
        _demand_success(document, at)
    else:
        call.console.next_step(f"mindtrace jobs show {document['job_id']}{at}")


def _ended(console: Console, jobs: Jobs, job_id: str, at: str, *, show: bool) -> Document:
    """The job's last document; `at` is what a command needs to ask for it."""
    progress = progress_for(console) if show else _silent()
    try:
        document: Document = {}
        for name, data in jobs.follow(job_id):
            if name == "epoch":
                _tell_epoch(progress, data)
            else:
                if name == "state":
                    _tell_state(progress, data, document)
                document = data
        return document
    except InterruptedByUser:
        console.note(f"job {job_id} is not cancelled: mindtrace jobs cancel {job_id}{at}")
        raise
    finally:
        progress.closed()


def _tell_state(progress: Progress, now: Document, before: Document) -> None:
    if before.get("progress", {}).get("max_epochs") is None and now["progress"]["max_epochs"]:
        progress.started(now["progress"]["max_epochs"], 1)
    elif now["state"] == "queued":
        progress.stage(f"job {now['job_id']} waits")
    elif now.get("cancelling"):
        progress.stage(f"job {now['job_id']} is being cancelled")
    else:
        progress.stage(f"job {now['job_id']} trains, attempt {now['attempts']}")


def _tell_epoch(progress: Progress, data: Document) -> None:
    from mindtrace.progress import EpochReport

    # JSON has no nan, which is what a training that diverges measures.
    metrics = {name: nan if value is None else value for name, value in data["metrics"].items()}
    names = ("epoch", "max_epochs", "seconds", "best")
    report = EpochReport(metrics=metrics, **{name: data[name] for name in names})
    progress.epoch(report)
    progress.advanced(report.epoch, 1)


def _silent() -> Progress:
    from mindtrace.progress import Progress

    return Progress()


def _show(console: Console, document: dict[str, Any]) -> None:
    if console.json:
        console.document(document)
    elif console.quiet:
        version = document["version"]
        reference = f"{document['model_name']}/{version}"
        console.line(document["job_id"] if version is None else reference)
    else:
        console.fields(job_fields(document))


def _demand_success(document: Document, at: str) -> None:
    if document["state"] == "failed":
        error = document["error"] or {}
        raise TrainingError(
            f"job {document['job_id']} failed: {error.get('message')}",
            hint=f"mindtrace jobs logs {document['job_id']}{at}",
        )
    if document["state"] == "cancelled":
        raise VerdictError(f"job {document['job_id']} was cancelled")
