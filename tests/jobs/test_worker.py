"""Real workers, real trainings, real kills, over SQLite and PostgreSQL."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.jobs.shop import Shop, event_epochs, shop, until
from tests.registry.servers import postgres_programs, postgres_server

from mindtrace.errors import ConflictError, QueueFullError, StoreError
from mindtrace.service import jobs
from mindtrace.service.promotion import history
from mindtrace.service.retrain_request import RetrainRequest

pytestmark = pytest.mark.slow
LONG = 3000  # epochs of 10 to 20 ms: somebody ends it before


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Shop]:
    """A shop with SQLite."""
    with shop(tmp_path, None) as found:
        yield found


@pytest.fixture
def either(tmp_path: Path, database_url: str | None) -> Iterator[Shop]:
    """A shop with SQLite, and one with PostgreSQL."""
    with shop(tmp_path, database_url) as found:
        yield found


def test_a_job_makes_a_version(either: Shop) -> None:
    either.start()
    job_id = either.submit()
    job = either.ended(job_id)
    assert (job.state, job.error, job.attempts) == ("succeeded", None, 1)
    assert (job.model_name, job.version, job.reused) == ("digits", 1, False)
    assert (job.epoch, job.max_epochs) == (2, 2)
    assert event_epochs(either, job_id) == [1, 2]
    assert either.versions(job_id) == [1]
    assert either.runs(job_id) == ["FINISHED"]
    assert "registering digits" in jobs.queue(either.settings).log(job_id).decode()
    until(lambda: not either.kept("*"))

    again = either.ended(either.submit())
    assert (again.state, again.version, again.reused) == ("succeeded", 1, True)
    forced = either.ended(either.submit(force=True))
    assert (forced.version, forced.reused) == (2, False)


def test_a_dead_workers_job_is_taken_up_and_gone_on_with(either: Shop) -> None:
    """By the lease that users have: within 15 seconds, from the last checkpoint."""
    first = either.start(lease=10)
    job_id = either.submit(max_epochs=LONG)
    either.when(job_id, lambda job: (job.epoch or 0) >= 3)
    second = either.start(lease=10)
    (training,) = either.trainings(job_id)
    first.kill()
    killed = time.monotonic()
    before = either.job(job_id).epoch or 0
    either.when(job_id, lambda job: job.attempts == 2)
    assert time.monotonic() - killed < 15
    assert not training.is_running()  # no orphan trains on
    either.when(job_id, lambda job: (job.epoch or 0) > before + 3)
    epochs = event_epochs(either, job_id)
    assert epochs == sorted(epochs)
    jobs.queue(either.settings).cancel(job_id)
    assert either.ended(job_id).state == "cancelled"
    assert either.runs(job_id) == ["KILLED"]
    assert second.poll() is None


def test_three_lost_attempts_are_the_end(opened: Shop) -> None:
    job_id = opened.submit(max_epochs=LONG)
    for attempt in (1, 2, 3):
        worker = opened.start()
        opened.when(job_id, lambda job, n=attempt: job.attempts == n)
        until(lambda: opened.runs(job_id))
        worker.kill()
        worker.wait()
    opened.start()
    job = opened.ended(job_id)
    assert (job.state, job.attempts) == ("failed", 3)
    assert job.error is not None
    assert "3 attempts were lost" in job.error["message"]
    assert set(opened.runs(job_id)) == {"FAILED"}
    assert opened.versions(job_id) == []


def test_a_worker_that_is_told_to_end_hands_its_job_over(opened: Shop) -> None:
    worker = opened.start()
    job_id = opened.submit(max_epochs=LONG)
    opened.when(job_id, lambda job: (job.epoch or 0) >= 3)
    worker.terminate()
    assert worker.wait(60) == 0
    job = opened.job(job_id)
    assert (job.state, job.attempts) == ("queued", 1)
    assert opened.runs(job_id) == ["KILLED"]
    assert opened.trainings(job_id) == []
    began = time.monotonic()
    opened.start()
    opened.when(job_id, lambda found: (found.epoch or 0) > (job.epoch or 0) + 3)
    assert time.monotonic() - began < 60
    assert opened.runs(job_id) == ["RUNNING"]
    epochs = event_epochs(opened, job_id)
    assert epochs == sorted(set(epochs)) or epochs.count(1) == 1  # it did not begin anew


def test_cancel_in_the_middle_leaves_nothing(opened: Shop) -> None:
    opened.start()
    job_id, following = opened.submit(max_epochs=LONG), opened.submit()
    opened.when(job_id, lambda job: (job.epoch or 0) >= 2)
    jobs.queue(opened.settings).cancel(job_id)
    job = opened.ended(job_id)
    assert opened.trainings(job_id) == []
    assert (job.state, job.version) == ("cancelled", None)
    assert opened.runs(job_id) == ["KILLED"]
    assert opened.versions(job_id) == []
    until(lambda: not opened.kept(job_id))
    assert opened.ended(following).state == "succeeded"
    with pytest.raises(ConflictError):
        jobs.queue(opened.settings).cancel(job_id)


def test_a_training_that_does_not_end_is_killed(opened: Shop) -> None:
    opened.start("--grace", "0.5")
    job_id = opened.submit(max_epochs=LONG)
    opened.when(job_id, lambda job: (job.epoch or 0) >= 2)
    (training,) = opened.trainings(job_id)
    training.suspend()  # it will hear no SIGTERM
    jobs.queue(opened.settings).cancel(job_id)
    assert opened.ended(job_id).state == "cancelled"
    assert not training.is_running()
    assert opened.runs(job_id) == ["KILLED"]


def test_a_stopped_worker_that_wakes_registers_nothing_more(either: Shop) -> None:
    sleeper = either.start()
    job_id = either.submit(max_epochs=300)
    either.when(job_id, lambda job: (job.epoch or 0) >= 3)
    either.suspend(sleeper.pid)
    either.start()
    done = either.ended(job_id)
    os.kill(sleeper.pid, signal.SIGCONT)
    assert done.state == "succeeded"
    # It is of use again: the other one ends, and it takes the next job.
    either.workers[-1].terminate()
    either.workers[-1].wait()
    assert either.ended(either.submit(seed=5)).state == "succeeded"
    assert either.job(job_id) == done
    assert len(either.versions(job_id)) == 1
    assert set(either.runs(job_id)) == {"FINISHED"}


@pytest.mark.postgres
def test_another_machine_that_slept_registers_nothing(
    tmp_path: Path, postgres_database: str
) -> None:
    """Without a common disk nobody can end its training, which wakes and goes on."""
    store = f"registry.tracking_uri=sqlite:///{tmp_path}/here/mlflow.db"
    with (
        shop(tmp_path / "here", postgres_database) as here,
        shop(tmp_path / "there", postgres_database) as there,
    ):
        sleeper = here.start("--set", store)
        # Long enough to be met in the middle; what it says must fit into an unread pipe.
        job_id = here.submit(max_epochs=150, batch_size=8)
        here.when(job_id, lambda job: (job.epoch or 0) >= 3)
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


def test_runs_that_nobody_owns_are_closed_by_the_next_worker(opened: Shop) -> None:
    worker = opened.start()
    job_id = opened.submit(max_epochs=LONG)
    opened.when(job_id, lambda job: (job.epoch or 0) >= 1)
    worker.kill()
    worker.wait()

    def cancelled() -> bool:
        job = opened.job(job_id)
        return job.ended or jobs.queue(opened.settings).cancel(job_id).ended

    until(cancelled)  # once its lease is over, by whoever wants it
    assert opened.runs(job_id) == ["RUNNING"]
    opened.start()
    until(lambda: opened.runs(job_id) == ["KILLED"])


def test_what_promote_says_is_done_once(opened: Shop) -> None:
    opened.start()
    opened.ended(opened.submit())
    opened.config.write_text(f"{opened.config.read_text()}[jobs]\npromote = gate\n")
    good, bad = opened.submit(max_epochs=30, lr=0.003), opened.submit(max_epochs=1, lr=1e-6)
    promoted, refused = opened.ended(good), opened.ended(bad)
    assert promoted.promotion is not None
    assert (promoted.promotion["promoted"], promoted.promotion["verdict"]) == (True, "PROMOTE")
    assert refused.state == "succeeded"
    assert refused.promotion is not None
    assert (refused.promotion["promoted"], refused.promotion["verdict"]) == (False, "REJECT")
    entries = history(opened.settings, "digits")
    assert [(entry.to, entry.action) for entry in entries] == [
        (1, "promote"),
        (2, "promote"),
        (3, "refuse"),
    ]
    assert entries[1].reason == f"job {good}"

    opened.config.write_text(opened.config.read_text().replace("gate", "always"))
    forced = opened.ended(opened.submit(max_epochs=1, lr=1e-5))
    assert forced.promotion is not None
    assert forced.promotion["promoted"] is True
    assert history(opened.settings, "digits")[-1].to == forced.version


def test_a_version_to_start_from(opened: Shop) -> None:
    opened.start()
    first = opened.ended(opened.submit(max_epochs=20, lr=0.005))
    settings = opened.settings

    def request(**options: object) -> RetrainRequest:
        wishes = {"train": {"max_epochs": 1, "lr": 1e-6}}
        return RetrainRequest.from_mapping(wishes, base="digits@champion", **options)

    cold = opened.ended(jobs.submit(settings, request()).job_id)
    warm = opened.ended(jobs.submit(settings, request(warm_start=True)).job_id)
    assert warm.val_acc is not None
    assert cold.val_acc is not None
    assert first.val_acc is not None
    assert warm.val_acc >= first.val_acc - 0.05 > cold.val_acc
    from mindtrace.service.registry import show_version

    shown = show_version(settings, f"digits/{warm.version}")
    assert (shown.parent, shown.job_id) == ("digits/1", warm.job_id)
    assert shown.params["model.hidden"] == "16"


def test_full_is_full_without_a_worker_and_one_key_is_one_job(opened: Shop) -> None:
    ids = [opened.submit(seed=seed) for seed in range(8)]
    with pytest.raises(QueueFullError):
        opened.submit(seed=9)
    for job_id in ids[1:]:
        jobs.queue(opened.settings).cancel(job_id)
    again = opened.submit(key="k", seed=20)
    assert opened.submit(key="k", seed=20) == again
    jobs.queue(opened.settings).cancel(ids[0])
    opened.start()
    assert opened.ended(again).state == "succeeded"
    assert opened.submit(key="k", seed=20) == again


@pytest.mark.postgres
def test_a_database_that_is_away_stops_no_training(tmp_path: Path) -> None:
    with (
        postgres_server(postgres_programs()) as url,
        shop(tmp_path / "shop", f"{url}/postgres") as opened,
    ):
        worker = opened.start()
        job_id = opened.submit(max_epochs=300)
        opened.when(job_id, lambda job: (job.epoch or 0) >= 3)
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
