"""Real workers with a fake training; what is killed or stopped is a proof, over both databases."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa
from tests.jobs.shop import Shop, event_epochs, shop
from tests.registry.servers import postgres_programs, postgres_server
from tests.waiting import until

from mindtrace.errors import ConflictError, StoreError
from mindtrace.jobs.database import workflows
from mindtrace.registry.provenance import git_state
from mindtrace.service import jobs
from mindtrace.service.promotion import history
from mindtrace.service.registry import show_version
from mindtrace.service.retrain_request import RetrainRequest

pytestmark = pytest.mark.slow
LONG = 3000  # epochs of 50 ms: somebody ends it before


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Shop]:
    """A shop with SQLite."""
    with shop(tmp_path, None, fake=True) as found:
        yield found


@pytest.fixture
def either(tmp_path: Path, database_url: str | None) -> Iterator[Shop]:
    """A shop with SQLite, and one with PostgreSQL."""
    with shop(tmp_path, database_url, fake=True) as found:
        yield found


def cancel(opened: Shop, job_id: str) -> None:
    jobs.queue(opened.settings).cancel(job_id)


def begun(opened: Shop, job_id: str) -> int:
    """The epoch of a job that trains, once that is its third."""
    return opened.when(job_id, lambda job: (job.epoch or 0) >= 3).epoch or 0


def test_jobs_are_run_cancelled_and_handed_over(opened: Shop) -> None:
    worker = opened.start()
    first, middle, following = opened.submit(), opened.submit(max_epochs=LONG), opened.submit()
    job = opened.ended(first)
    assert (job.state, job.error, job.attempts) == ("succeeded", None, 1)
    assert (job.model_name, job.version, job.reused, job.promotion) == ("digits", 1, False, None)
    assert (job.epoch, job.max_epochs, event_epochs(opened, first)) == (2, 2, [1, 2])
    assert (opened.versions(first), opened.runs(first)) == ([1], ["FINISHED"])
    assert "registering digits" in jobs.queue(opened.settings).log(first).decode()

    begun(opened, middle)
    cancel(opened, middle)
    job = opened.ended(middle)
    assert (job.state, job.version, opened.trainings(middle)) == ("cancelled", None, [])
    assert (opened.versions(middle), opened.runs(middle)) == ([], ["KILLED"])
    assert opened.ended(following).version == 2
    until(lambda: not opened.kept("*"))
    with pytest.raises(ConflictError):
        cancel(opened, middle)

    last = opened.submit(max_epochs=LONG)
    begun(opened, last)
    worker.terminate()
    assert worker.wait(60) == 0
    job = opened.job(last)
    assert (job.state, job.attempts) == ("queued", 1)
    assert (opened.runs(last), opened.trainings(last)) == (["KILLED"], [])
    worker = opened.start()
    opened.when(last, lambda found: (found.epoch or 0) > (job.epoch or 0) + 3)
    assert opened.runs(last) == ["RUNNING"]
    assert event_epochs(opened, last).count(1) == 1  # it did not begin anew
    worker.send_signal(signal.SIGHUP)  # its terminal is closed
    assert worker.wait(60) == 0
    assert (opened.job(last).state, opened.trainings(last)) == ("queued", [])
    assert f"job {following} succeeded" in (opened.root / "workers.txt").read_text()


def test_a_job_that_no_thread_of_its_worker_runs_is_handed_out_again(opened: Shop) -> None:
    """DBOS leaves it like this where the disk was full when its thread ended."""
    opened.start(lease=0.5)
    job_id = opened.submit()
    opened.ended(job_id)
    with jobs.queue(opened.settings).changing() as connection:
        lost = sa.update(workflows).where(workflows.c.workflow_uuid == job_id)
        connection.execute(lost.values(status="PENDING"))
    following = opened.submit()  # a lost job would keep it waiting for ever
    assert opened.ended(following).state == "succeeded"
    assert opened.ended(job_id).state == "succeeded"
    assert opened.versions(job_id) == [1]


@pytest.mark.proof
@pytest.mark.sampled(1)
def test_a_dead_workers_job_is_taken_up_and_gone_on_with(either: Shop, soak: int) -> None:
    """From the last checkpoint; with `--soak 2` by the lease that users have, in 15 seconds."""
    lease = 2 if soak == 1 else 10
    first = either.start(lease=lease)
    job_id = either.submit(max_epochs=LONG)
    begun(either, job_id)
    second = either.start(lease=lease)
    (training,) = either.trainings(job_id)
    first.kill()
    killed = time.monotonic()
    before = either.job(job_id).epoch or 0
    either.when(job_id, lambda job: job.attempts == 2)
    assert soak == 1 or time.monotonic() - killed < 15
    training.wait(10)  # no orphan trains on
    either.when(job_id, lambda job: (job.epoch or 0) > before + 3)
    epochs = event_epochs(either, job_id)
    assert epochs == sorted(epochs)
    cancel(either, job_id)
    assert either.ended(job_id).state == "cancelled"
    assert either.runs(job_id) == ["KILLED"]
    assert second.poll() is None


@pytest.mark.proof
@pytest.mark.postgres
def test_another_machine_that_slept_registers_nothing(
    tmp_path: Path, postgres_database: str
) -> None:
    """Without a common disk nobody can end its training, which wakes and goes on."""
    store = f"registry.tracking_uri=sqlite:///{tmp_path}/here/mlflow.db"
    with (
        shop(tmp_path / "here", postgres_database, fake=True) as here,
        shop(tmp_path / "there", postgres_database, fake=True) as there,
    ):
        sleeper = here.start("--set", store)
        # Long enough to be met in the middle; what it says must fit into an unread pipe.
        job_id = here.submit(max_epochs=60)
        begun(here, job_id)
        (training,) = here.trainings(job_id)
        here.suspend(training.pid)
        here.suspend(sleeper.pid)
        there.start("--set", store)
        done = there.ended(job_id)
        assert (done.state, done.attempts) == ("succeeded", 2)
        training.resume()
        until(lambda: not here.trainings(job_id))
        sleeper.send_signal(signal.SIGCONT)
        assert len(here.versions(job_id)) == 1
        assert sorted(here.runs(job_id)) == ["FINISHED", "KILLED"]
        there.workers[0].terminate()
        there.workers[0].wait()
        assert here.ended(here.submit(seed=5)).state == "succeeded"
        assert here.job(job_id) == done


@pytest.mark.proof
@pytest.mark.long
def test_real_trainings_start_from_a_version_and_are_promoted_once(tmp_path: Path) -> None:
    with shop(tmp_path, None) as opened:
        worker = opened.start()
        job_id = opened.submit(max_epochs=60, lr=0.005)
        opened.when(job_id, lambda job: (job.epoch or 0) >= 3)
        worker.kill()
        opened.start()
        first = opened.ended(job_id)
        assert (first.state, first.attempts, first.version) == ("succeeded", 2, 1)
        assert opened.runs(job_id) == ["FINISHED"]
        opened.config.write_text(f"{opened.config.read_text()}[jobs]\npromote = gate\n")
        settings, wishes = opened.settings, {"train": {"max_epochs": 1, "lr": 1e-6}}
        requests = [
            RetrainRequest.from_mapping(wishes, base="digits/1"),
            RetrainRequest.from_mapping(wishes, base="digits@champion", warm_start=True),
        ]
        cold, warm = (opened.ended(jobs.submit(settings, one).job_id) for one in requests)
        assert first.val_acc is not None
        assert cold.val_acc is not None
        assert warm.val_acc is not None
        assert warm.val_acc >= first.val_acc - 0.05 > cold.val_acc
        shown = show_version(settings, f"digits/{warm.version}")
        assert (shown.parent, shown.job_id) == ("digits/1", warm.job_id)
        assert shown.git.get("commit") == git_state().get("git_commit")
        assert shown.params["model.hidden"] == "16"

        for job, promoted, verdict in ((cold, False, "REJECT"), (warm, True, "PROMOTE")):
            assert job.state == "succeeded"
            assert job.promotion is not None
            found = job.promotion["promoted"], job.promotion["verdict"]
            assert found == (promoted, verdict)
        entries = history(settings, "digits")
        actions = [(1, "promote"), (2, "refuse"), (3, "promote")]
        assert [(entry.to, entry.action) for entry in entries] == actions
        assert entries[2].reason == f"job {warm.job_id}"

        again = opened.ended(jobs.submit(settings, requests[0]).job_id)
        assert (again.state, again.version, again.reused) == ("succeeded", 2, True)
        failed = opened.ended(opened.submit(data={"num_val": 1797}))
        assert (failed.state, failed.version) == ("failed", None)
        assert failed.error is not None
        assert "RUNNING" not in opened.runs(failed.job_id)


@pytest.mark.proof
@pytest.mark.postgres
def test_a_database_that_is_away_stops_no_training(tmp_path: Path) -> None:
    with (
        postgres_server(postgres_programs()) as url,
        shop(tmp_path / "shop", f"{url}/postgres", fake=True) as opened,
    ):
        worker = opened.start()
        job_id = opened.submit(max_epochs=300)
        begun(opened, job_id)
        (training,) = opened.trainings(job_id)
        port = url.rpartition(":")[2]
        (server,) = [
            process
            for process in psutil.process_iter(["cmdline"])
            if (process.info["cmdline"] or [""])[0].endswith("postgres")
            and port in process.info["cmdline"]
        ]
        words, user = server.info["cmdline"], server.username()
        server.send_signal(signal.SIGINT)  # its fast way: connections are cut
        server.wait(60)
        with pytest.raises(StoreError):
            opened.job(job_id)
        time.sleep(4)  # longer than the lease
        assert worker.poll() is None
        again = subprocess.Popen(words, user=user if os.geteuid() == 0 else None, cwd="/")
        try:
            until(lambda: _answers(opened, job_id))
            job = opened.ended(job_id)
            assert (job.state, job.attempts) == ("succeeded", 1)
            assert event_epochs(opened, job_id) == list(range(1, 301))
            assert not training.is_running()
        finally:
            opened.close()
            again.send_signal(signal.SIGINT)
            again.wait(60)


def _answers(opened: Shop, job_id: str) -> bool:
    try:
        opened.job(job_id)
    except StoreError:
        return False
    return True
