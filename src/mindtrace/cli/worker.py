"""`mindtrace worker`: takes jobs and trains, until it is told to end."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Annotated

import typer

from mindtrace.cli.common import Call
from mindtrace.cli.console import Console
from mindtrace.cli.exits import DONE
from mindtrace.documents import document

_LEASE, _GRACE = 10.0, 20.0  # seconds
_HIDDEN = "for tests: seconds"


def worker(
    call: Call,
    *,
    lease: Annotated[float, typer.Option(hidden=True, min=0.5, help=_HIDDEN)] = _LEASE,
    grace: Annotated[float, typer.Option(hidden=True, min=0, help=_HIDDEN)] = _GRACE,
    lock_fd: Annotated[
        int | None, typer.Option(hidden=True, help="Of the lock, from who started us.")
    ] = None,
    gives_way: Annotated[
        bool, typer.Option("--gives-way", hidden=True, help="Behind requests of a server.")
    ] = False,
) -> None:
    """Take retraining jobs, one at a time, and train.

    Runs until SIGTERM or Ctrl-C; the job at hand is put back with its checkpoint, and
    whichever worker comes next goes on with it. `mindtrace serve` starts one by itself;
    with [jobs] database_url any number of them may run, on any number of machines.
    """
    settings = call.settings()
    from mindtrace.jobs.beside import hold_lock
    from mindtrace.service.jobs import work

    _log_to_stderr(quiet=call.console.quiet)
    if lock_fd is None:
        hold_lock(settings.dirs.root)  # until we end: servers of this ROOT need no worker then
    try:
        work(
            settings,
            _stopping(beside=lock_fd is not None),
            lease=lease,
            grace=grace,
            gives_way=gives_way,
            ready=lambda worker_id: _say(call.console, worker_id),
        )
        status = DONE
    except Exception as error:  # noqa: BLE001 - whatever it is, the process must end
        status = call.console.fail(error)
    # Not a return: DBOS's threads would be waited for, and one may hold a job that was put
    # back, so that DBOS does not take it for done.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _say(console: Console, worker_id: str) -> None:
    """That jobs are taken from now on, for people and for programs that wait for it."""
    if console.json:
        console.document(document({"worker_id": worker_id}))
        sys.stdout.flush()
    else:
        console.note(f"worker {worker_id} takes jobs")


def _log_to_stderr(*, quiet: bool) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(message)s",
        level=logging.WARNING,
    )
    logging.getLogger("mindtrace").setLevel(logging.WARNING if quiet else logging.INFO)


def _stopping(*, beside: bool) -> threading.Event:
    """Set by SIGTERM, by Ctrl-C, and by the end of the process beside which we run."""
    stopping = threading.Event()

    def heard(*_: object) -> None:
        # By a thread: the signal may come while this one holds the lock of the event.
        threading.Thread(target=stopping.set).start()

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, heard)
    if beside:
        threading.Thread(target=_at_the_end_of_stdin, args=(stopping.set,), daemon=True).start()
    return stopping


def _at_the_end_of_stdin(call: Callable[[], object]) -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    call()
