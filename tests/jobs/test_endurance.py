"""Whatever is killed, and whenever: one end for every job, one version at most, no open run.

The trainings are fake without `--soak 2`; one that is real and killed is in `test_worker.py`.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from tests.jobs.shop import Shop, events, shop
from tests.waiting import until

from mindtrace.errors import ConflictError
from mindtrace.service import jobs

pytestmark = [pytest.mark.slow, pytest.mark.proof]


def post(opened: Shop, url: str, seed: int) -> str:
    """A job's id."""
    body = {"train": {"max_epochs": epochs(opened), "seed": seed}, "force": True}
    answer = httpx.post(f"{url}/retrain", json=body, timeout=60, trust_env=False)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


def epochs(opened: Shop) -> int:
    """Some seconds of training."""
    return 60 if opened.fake else 150


def submit(opened: Shop, seed: int) -> str:
    return opened.submit(max_epochs=epochs(opened), seed=seed, force=True)


def pause(opened: Shop, chance: random.Random) -> None:
    """Until a moment that may be anywhere in a job."""
    time.sleep(chance.uniform(0, 2 if opened.fake else 6))


def processes(root: Path, verb: str) -> list[psutil.Process]:
    """The workers, or the trainings, of a ROOT."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if verb in words and any(word.startswith(f"{root}/jobs/") for word in words):
            found.append(process)
    return found


def kill(found: list[psutil.Process], signum: int = signal.SIGKILL) -> bool:
    for process in found:
        try:
            process.send_signal(signum)
        except psutil.NoSuchProcess:
            continue
        return True
    return False


def cancel(opened: Shop, accepted: list[str]) -> bool:
    """Cancel the job that runs, unless none does or it is too late."""
    for job_id in accepted:
        if opened.job(job_id).state == "running":
            with contextlib.suppress(ConflictError):
                jobs.queue(opened.settings).cancel(job_id)
                return True
    return False


def demand_order(opened: Shop, accepted: list[str]) -> None:
    """What must hold of every job that was accepted."""
    states = [opened.ended(job_id).state for job_id in accepted]
    for job_id, state in zip(accepted, states, strict=True):
        job = opened.job(job_id)
        found = events(opened, job_id)
        assert [event.id for event in found] == list(range(1, len(found) + 1))
        ends = [event for event in found if event.name == "end"]
        assert (len(ends), found[-1].name) == (1, "end"), job
        assert ends[0].data["state"] == state
        versions = opened.versions(job_id)
        assert versions == ([job.version] if state == "succeeded" else []), (job, versions)
        if state == "failed":
            assert job.error is not None
            assert "3 attempts were lost" in job.error["message"], job
        until(lambda job_id=job_id: "RUNNING" not in opened.runs(job_id))
    assert processes(opened.root, "train") == []
    print(f"{len(accepted)} jobs: {states.count('succeeded')} succeeded")  # shown by -s


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def opened(tmp_path: Path, request: pytest.FixtureRequest, soak: int) -> Iterator[Shop]:
    on_postgres = request.param == "postgres"
    if soak == 1 and on_postgres != ("two_workers" in request.node.name):
        pytest.skip("the other database, with --soak 2")
    database = request.getfixturevalue("postgres_database") if on_postgres else None
    with shop(tmp_path, database, fake=soak == 1) as found:
        yield found


def test_kills_of_worker_child_and_server_in_turn(opened: Shop, soak: int) -> None:
    chance = random.Random(0)
    server, said = opened.launch("serve")
    accepted: list[str] = []
    try:
        for number in range(4 if soak == 1 else 5 * soak):
            while jobs.counts(opened.settings)["queued"] < 2:
                accepted.append(post(opened, said["url"], len(accepted)))
            pause(opened, chance)
            if number % 3 < 2:
                victim = ("worker", "train")[number % 3]
                until(lambda victim=victim: kill(processes(opened.root, victim)))
            else:
                server.kill()
                server.wait()
                server, said = opened.launch("serve")
            if number % 4 == 1:
                pause(opened, chance)
                until(lambda: cancel(opened, accepted))
            if number % 4 == 3:
                pause(opened, chance)
                until(lambda: kill(processes(opened.root, "worker"), signal.SIGTERM))
        demand_order(opened, accepted)
    finally:
        server.terminate()
        server.wait()
    assert processes(opened.root, "worker") == []


def test_two_workers_one_of_which_never_comes_back(opened: Shop, soak: int) -> None:
    chance = random.Random(1)
    gone = opened.start()
    worker = opened.start()
    accepted: list[str] = []
    for number in range(3 if soak == 1 else 5 * soak):
        while jobs.counts(opened.settings)["queued"] < 2:
            accepted.append(submit(opened, len(accepted)))
        pause(opened, chance)
        if number == 0:
            gone.kill()
        elif number % 2:
            worker.kill()
            worker.wait()
            worker = opened.start()
        else:
            until(lambda: kill(processes(opened.root, "train")))
    demand_order(opened, accepted)


def test_workers_that_are_stopped_and_wake_after_their_lease(opened: Shop, soak: int) -> None:
    chance = random.Random(2)
    sleepers: list[subprocess.Popen[str]] = []
    accepted: list[str] = []
    for _ in range(max(2, soak)):
        sleepers.append(opened.start())
        job_id = submit(opened, len(accepted))
        accepted.append(job_id)
        opened.when(job_id, lambda job: job.attempts == 1)
        # Anywhere: while it loads, trains, tests or registers.
        pause(opened, chance)
        opened.suspend(sleepers[-1].pid)
        heir = opened.start()
        opened.ended(job_id)
        heir.terminate()
        heir.wait()
    for sleeper in sleepers:
        os.kill(sleeper.pid, signal.SIGCONT)
    # All of them are of use again, and none of them does anything about the past.
    accepted += [opened.submit(seed=90 + number, force=True) for number in range(min(4, 2 * soak))]
    demand_order(opened, accepted)
    assert all(opened.job(job_id).state == "succeeded" for job_id in accepted)
    for sleeper in sleepers:
        sleeper.terminate()
        assert sleeper.wait(120) == 0
