"""Floor 8: what happens to a job, in order, for whoever follows it: events and log.

In: a transaction that changed the job. Out: rows with dense numbers for events, and with
places in bytes for the log. Both are written by the one who changes the job, in the same
transaction, so that they never tell of anything that was not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mindtrace.jobs.database import Work
from mindtrace.jobs.job import END, Event, Job

STATE, EPOCH = "state", "epoch"
LOG_LIMIT = 1 << 20  # bytes of a job's log
_CUT = "\n... the log is too long and ends here\n"
_PAGE = 64  # rows


def read_job(work: Work, job_id: str) -> Job | None:
    """A job as it is now."""
    row = work.row("select * from mindtrace_jobs where job_id = ?", job_id)
    return None if row is None else Job.from_row(row)


def tell_state(work: Work, job_id: str) -> Job:
    """Tell of the job's state as it is now: `state`, or `end` for the last time."""
    job = read_job(work, job_id)
    assert job is not None
    tell(work, job_id, END if job.ended else STATE, job.document())
    return job


def tell(work: Work, job_id: str, name: str, data: Mapping[str, Any]) -> None:
    """Add an event; the job's row must be locked, by having been changed."""
    work.changed(
        "insert into mindtrace_job_events (job_id, id, event, data)"
        " select ?, coalesce(max(id), 0) + 1, ?, ? from mindtrace_job_events where job_id = ?",
        job_id,
        name,
        json.dumps(data, allow_nan=False),
        job_id,
    )


def read_events(work: Work, job_id: str, after: int, limit: int) -> Sequence[Event]:
    """The events behind a number, in order."""
    rows = work.rows(
        "select id, event, data from mindtrace_job_events"
        " where job_id = ? and id > ? order by id limit ?",
        job_id,
        after,
        limit,
    )
    return [Event(row["id"], row["event"], row["data"]) for row in rows]


def add_log(work: Work, job_id: str, text: str) -> None:
    """Add to a job's log, up to `LOG_LIMIT`; the job's row must be locked."""
    size = _log_size(work, job_id)
    if size >= LOG_LIMIT:
        return
    if size + len(text.encode()) > LOG_LIMIT:
        text = text.encode()[: LOG_LIMIT - size].decode(errors="ignore") + _CUT
    work.changed(
        "insert into mindtrace_job_log (job_id, start, text) values (?, ?, ?)", job_id, size, text
    )


def read_log(work: Work, job_id: str, offset: int) -> bytes:
    """A part of a job's log from a place in bytes on; empty at its end, UTF-8."""
    rows = work.rows(
        "select start, text from mindtrace_job_log where job_id = ? and start >= ("
        " select coalesce(max(start), 0) from mindtrace_job_log where job_id = ? and start <= ?"
        ") order by start limit ?",
        job_id,
        job_id,
        offset,
        _PAGE,
    )
    if not rows:
        return b""
    found = "".join(row["text"] for row in rows).encode()
    return found[offset - rows[0]["start"] :]


def _log_size(work: Work, job_id: str) -> int:
    row = work.row(
        "select start, text from mindtrace_job_log where job_id = ? order by start desc limit 1",
        job_id,
    )
    return 0 if row is None else row["start"] + len(row["text"].encode())
