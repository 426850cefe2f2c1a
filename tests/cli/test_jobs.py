"""`mindtrace retrain`, `jobs` and `worker`: exit codes, documents, a server at the other end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.application.conftest import _serving as serving
from tests.cli.conftest import documents, error_of, rows
from tests.conftest import Mindtrace, RunCli
from tests.jobs.fake import FakeWorker, taken as take
from tests.jobs.shop import FAKE
from tests.waiting import until

from mindtrace.config.settings import load_settings
from mindtrace.jobs import sidecar as sidecars
from mindtrace.service import jobs

SMALL = ["--set", "model.hidden=16", "--set", "compute.threads=1", "--set", "data.source=digits"]
UNKNOWN = "20250131T235959123456-0a1b2c3d"


def epochs(count: int) -> list[str]:
    return [*SMALL, "--set", f"train.max_epochs={count}"]


@pytest.fixture
def server(root: Path) -> Iterator[str]:
    """The URL of a server of ROOT that starts no worker."""

    def no_worker(application: Any) -> None:
        application.state.worker = False

    with serving(load_settings(), change=no_worker) as client:
        yield str(client.base_url)


def taken(job_id: str) -> FakeWorker:
    """A job as a worker has it that runs in this process."""
    return take(jobs.queue(load_settings()), job_id)


def submitted(run_cli: RunCli, *words: str) -> str:
    result = run_cli("retrain", "--json", *SMALL, *words)
    assert result.exit_code == 0, result.stderr
    return str(json.loads(result.stdout)["job_id"])


@pytest.mark.parametrize("at_server", [False, True])
def test_the_life_of_a_job(
    run_cli: RunCli, root: Path, at_server: bool, request: pytest.FixtureRequest
) -> None:
    at = ["--url", request.getfixturevalue("server")] if at_server else []
    job_id = submitted(run_cli, "--set", "train.seed=5", *at)
    shown = json.loads(run_cli("jobs", "show", job_id, "--json", *at).stdout)
    assert (shown["state"], shown["schema_version"]) == ("queued", 1)

    alone = "" if at_server else "no worker runs it; start one: mindtrace worker\n"
    assert run_cli("jobs", "show", job_id, *at).stderr == alone

    worker = taken(job_id)
    assert "seed = 5" in worker.request().config
    worker.tell(text="größer\n")
    assert run_cli("jobs", "logs", job_id, *at).stdout == "größer\n"
    worker.finish("failed", error={"type": "DataError", "message": "no images"})
    assert run_cli("jobs", "logs", "--follow", job_id, *at).stdout == "größer\n"
    shown = run_cli("jobs", "show", job_id, *at).stdout
    assert "error.message\tno images" in shown

    told = [
        json.loads(line)
        for line in run_cli("jobs", "logs", job_id, "--json", *at).stdout.splitlines()
    ]
    assert [fields["text"] for fields in told] == ["größer\n"]

    other = submitted(run_cli, *at)
    header, *listed = rows(run_cli("jobs", "list", *at).stdout)
    assert header[:2] == ["job_id", "state"]
    assert [row[:2] for row in listed] == [[other, "queued"], [job_id, "failed"]]
    assert listed[1][-1] == "no images"
    only = run_cli("jobs", "list", "--limit", "1", "--json", *at).stdout
    assert json.loads(only)["job_id"] == other

    cancelled = json.loads(run_cli("jobs", "cancel", other, "--json", *at).stdout)
    assert cancelled["state"] == "cancelled"
    late = run_cli("jobs", "cancel", other, *at)
    assert (late.exit_code, late.stdout) == (5, "")
    for verb in ("show", "logs", "cancel"):
        for name in (UNKNOWN, "../x", "?"):
            gone = run_cli("jobs", verb, name, *at)
            assert (gone.exit_code, gone.stdout) == (4, "")


@pytest.mark.parametrize("at_server", [False, True])
def test_what_is_refused(
    run_cli: RunCli, root: Path, at_server: bool, request: pytest.FixtureRequest
) -> None:
    at = ["--url", request.getfixturevalue("server")] if at_server else []
    first = submitted(run_cli, "--key", "k", *at)
    assert submitted(run_cli, "--key", "k", *at) == first
    other = run_cli("retrain", *SMALL, "--key", "k", "--set", "train.seed=1", *at)
    assert other.exit_code == 2
    for _ in range(7):
        submitted(run_cli, *at)
    full = run_cli("retrain", *SMALL, *at)
    assert (full.exit_code, full.stdout) == (5, "")
    assert "max_queued" in full.stderr
    base = run_cli("retrain", *SMALL, "--base", "nothing", *at)
    assert base.exit_code == 4
    folder = run_cli("retrain", *SMALL, "--base", "/etc", *at)
    assert folder.exit_code == 2
    warm = run_cli("retrain", *SMALL, "--warm-start", *at)
    assert (warm.exit_code, "--base" in warm.stderr) == (2, True)


def test_here_a_training_may_begin_with_a_file_of_ours(
    run_cli: RunCli, root: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "w.safetensors"
    worker = taken(submitted(run_cli, "--set", f"model.weights={weights}"))
    assert f"weights = {weights}" in worker.request().config


def test_what_a_server_would_not_take_is_named(run_cli: RunCli, root: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.ini"
    config.write_text("[data]\nsource = folder\ndir = x\n\n[compute]\ndevice = cpu\n")
    at = ["--url", "http://127.0.0.1:9"]
    sets = ["--set", "model.weights=w.safetensors", "--set", "data.mirror=http://m/"]
    refused = run_cli("retrain", "--config", str(config), *sets, "--json", *at)
    assert refused.exit_code == 2
    faults = {
        f"{fault['section']}.{fault['key']}": fault["line"] for fault in error_of(refused)["faults"]
    }
    in_no_line = {"data.mirror": None, "model.weights": None}
    assert faults == {"data.dir": 3, "compute.device": 6, **in_no_line}
    # What belongs to this machine alone is nothing that a server could miss.
    machine = ["--set", "serve.port=1", "--set", "registry.tracking_uri=http://r/"]
    assert run_cli("retrain", *SMALL, *machine, *at).exit_code == 1


@pytest.mark.parametrize("key", ["", " ", "a b", "a\n", "ä", "x" * 256])
def test_a_key_is_the_same_here_and_at_a_server(run_cli: RunCli, root: Path, key: str) -> None:
    for at in ([], ["--url", "http://127.0.0.1:9"]):
        refused = run_cli("retrain", *SMALL, "--key", key, *at)
        assert (refused.exit_code, "--key must be" in refused.stderr) == (2, True)


def test_a_server_that_is_not_there_and_an_empty_list_that_writes_nothing(
    run_cli: RunCli, root: Path
) -> None:
    for words in (["retrain", *SMALL], ["jobs", "list"], ["jobs", "logs", UNKNOWN]):
        result = run_cli(*words, "--url", "http://127.0.0.1:9")
        assert (result.exit_code, result.stdout) == (1, "")
    assert run_cli("jobs", "list", "--url", "ftp://x").exit_code == 2
    assert run_cli("jobs", "list", "--json").stdout == ""
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 3)])
def test_the_exit_code_follows_the_job(
    run_cli: RunCli, root: Path, server: str, state: str, code: int
) -> None:
    words = ["--force", "--key", "k", "--url", server]
    worker = taken(submitted(run_cli, *words))
    worker.tell({"event": "started", "max_epochs": 2})
    for accuracy in (0.5, None):  # the second has diverged
        epoch = {"epoch": 1, "max_epochs": 2, "metrics": {"val_acc": accuracy}}
        worker.tell({"event": "epoch", **epoch, "seconds": 1.0, "best": True})
    error = {"type": "DataError", "message": "no images"} if state == "failed" else None
    worker.finish(state, error=error)
    followed = run_cli("retrain", "--json", *SMALL, "--follow", *words)
    assert followed.exit_code == code, followed.stderr
    assert json.loads(followed.stdout)["state"] == state
    events = [event.get("event", "stage") for event in documents(followed.stderr)]
    assert [name for name in events if name != "stage"] == ["started", "epoch", "epoch"]
    step = f"jobs logs {worker.job_id} --url {server}"
    assert (step in followed.stderr) == (state == "failed")


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_who_follows_may_leave(root: Path, server: str, signum: int, code: int) -> None:
    command = [sys.executable, "-m", "mindtrace", "retrain", *SMALL, "--json"]
    process = subprocess.Popen(
        [*command, "--follow", "--url", server], stderr=subprocess.PIPE, text=True
    )
    worker = taken(_newest_waiting())
    assert process.stderr is not None
    while "is training" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signum)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert f"mindtrace jobs cancel {worker.job_id} --url {server}" in err
    assert worker.decision() is None


def _newest_waiting() -> str:
    queue = jobs.queue(load_settings())
    (job,) = until(lambda: [job for job in queue.list(1) if job.state == "queued"])
    return str(job.job_id)


@pytest.mark.slow
def test_who_waits_has_a_worker_beside_it(
    run_cli: RunCli, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sidecars.worker_command

    def command(config: Path, lock: int, *, serving: bool) -> list[str]:
        words = real(config, lock, serving=serving)
        return [sys.executable, "-P", FAKE, *words[words.index("worker") :]]

    monkeypatch.setattr(sidecars, "worker_command", command)
    done = run_cli("retrain", *epochs(2), "--follow", "--json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["state"], document["version"]) == ("succeeded", 1)
    assert '"event": "epoch", "epoch": 2' in done.stderr
    again = run_cli("retrain", *epochs(2), "--force", "--wait", "-q")
    assert (again.exit_code, again.stdout) == (0, "digits/2\n"), again.stderr
    assert "epoch 2/2" in run_cli("jobs", "logs", document["job_id"]).stdout


def test_a_worker_without_its_database_says_so(mindtrace: Mindtrace, root: Path) -> None:
    away = mindtrace("worker", env={"JOBS__DATABASE_URL": "postgresql://u:secret@127.0.0.1:9/x"})
    assert away.returncode == 1
    assert "jobs database" in away.stderr
    assert "secret" not in away.stderr
    assert "Traceback" not in away.stderr
