"""Floor 8: which workers are alive: each says so again and again, by the database's clock.

In: a worker's word. Out: whether a worker's word still holds. Who has been silent for a
lease counts as dead, and its job goes to another; should it come back, the job's fence
keeps it from changing anything.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Set
from typing import Any

from mindtrace.jobs.database import Database, Work

LEASE = 10.0  # seconds; with the next look of another worker, a job is taken up within 12
_FORGOTTEN = 3600.0  # seconds until a dead worker's row goes


def new_worker_id() -> str:
    """An id for one start of one worker: a worker that starts again is another one."""
    return f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(4)}"


def beat(database: Database, worker_id: str, lease: float) -> None:
    """Say that a worker lives, for `lease` seconds from now."""
    with database.transaction() as work:
        work.changed(
            "insert into mindtrace_workers (worker_id, expires, place)"
            f" values (?, {work.now} + ?, ?)"
            " on conflict (worker_id) do update set expires = excluded.expires",
            *(worker_id, lease, f"{socket.gethostname()}:{os.getpid()}"),
        )
        work.changed(f"delete from mindtrace_workers where expires < {work.now} - ?", _FORGOTTEN)


def leave(database: Database, worker_id: str) -> None:
    """Say that a worker is gone; its job may be taken at once."""
    with database.transaction() as work:
        work.changed("delete from mindtrace_workers where worker_id = ?", worker_id)


def alive(database: Database) -> Set[str]:
    """The ids of all workers whose word still holds."""
    with database.transaction(write=False) as work:
        rows = work.rows(f"select worker_id from mindtrace_workers where expires > {work.now}")
    return {row["worker_id"] for row in rows}


def is_alive(work: Work, worker_id: Any) -> bool:
    """Whether a worker's word still holds."""
    row = work.row(
        f"select 1 from mindtrace_workers where worker_id = ? and expires > {work.now}", worker_id
    )
    return row is not None
