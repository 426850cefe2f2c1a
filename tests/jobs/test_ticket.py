"""Leave to register: one at a time, for the attempt that has the job, and for no other."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.jobs.test_queue import ANY, taken

from mindtrace.errors import ConflictError, InterruptedByUser, StoreError
from mindtrace.jobs import ticket as tickets
from mindtrace.jobs.database import open_database
from mindtrace.jobs.hold import Hold
from mindtrace.jobs.queue import JobQueue
from mindtrace.jobs.ticket import Ticket

# A process that registers, and does not come to an end.
HOLDER = """
import sys, time
from pathlib import Path
from mindtrace.jobs.database import open_database
from mindtrace.jobs.ticket import Ticket
url, root, job_id, fence = sys.argv[1:]
with Ticket(job_id, int(fence), False, open_database(url or None, Path(root))).registering():
    print("in", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def hold(queue: JobQueue) -> Hold:
    return taken(queue.database, queue.submit(ANY))


def ticket(hold: Hold, database_url: str | None, root: Path) -> Ticket:
    """The ticket of this hold, with a database of its own, as another process has."""
    return Ticket(hold.job_id, hold.fence, False, open_database(database_url, root))


def holder(hold: Hold, database_url: str | None, root: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, database_url or "", str(root), hold.job_id, str(hold.fence)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    return process


def test_who_has_the_job_may_register(
    hold: Hold, queue: JobQueue, database_url: str | None, tmp_path: Path
) -> None:
    mine = ticket(hold, database_url, tmp_path)
    with mine.registering() as permit:
        permit.demand()
        with pytest.raises(ConflictError, match="too late"):
            queue.cancel(hold.job_id)
    mine.database.close()


def test_who_lost_it_or_was_cancelled_may_not(
    hold: Hold, queue: JobQueue, database_url: str | None, tmp_path: Path
) -> None:
    mine = ticket(hold, database_url, tmp_path)
    queue.cancel(hold.job_id)
    with pytest.raises(InterruptedByUser), mine.registering():
        raise AssertionError
    zombie = taken(queue.database, queue.submit(ANY))
    late = ticket(zombie, database_url, tmp_path)
    with pytest.raises(InterruptedByUser), late.registering() as permit:
        permit.demand()
        taken(queue.database, queue.get(zombie.job_id), "heir")
        permit.demand()  # right before the version would be made
        raise AssertionError
    for one in (mine, late):
        one.database.close()


def test_one_at_a_time_until_the_other_is_gone(
    hold: Hold,
    queue: JobQueue,
    database_url: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = holder(hold, database_url, tmp_path)
    heir = taken(queue.database, queue.get(hold.job_id), "heir")
    mine = ticket(heir, database_url, tmp_path)
    monkeypatch.setattr(tickets, "_PATIENCE", 0.3)
    with pytest.raises(ConflictError), mine.registering():
        raise AssertionError
    monkeypatch.setattr(tickets, "_PATIENCE", 60.0)
    threading.Timer(0.3, other.kill).start()
    with mine.registering() as permit:
        permit.demand()
    other.communicate()
    mine.database.close()


@pytest.mark.postgres
def test_who_lost_the_lock_with_its_connection_does_not_register(
    queue: JobQueue, postgres_database: str, tmp_path: Path
) -> None:
    from tests.registry.servers import execute

    own = JobQueue(open_database(postgres_database, tmp_path), 1)
    hold = taken(own.database, own.submit(ANY))
    mine = ticket(hold, postgres_database, tmp_path)
    with pytest.raises(StoreError), mine.registering() as permit:
        server, _, name = postgres_database.rpartition("/")
        execute(
            f"{server}/postgres",
            f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'",
        )
        permit.demand()
    for one in (own.database, mine.database):
        one.close()
