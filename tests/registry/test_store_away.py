"""A store goes away during a training, or is away when a server starts: real servers, killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tests.application.conftest import PNG, png
from tests.application.registered import NAME, Registered
from tests.application.servers import PATIENCE, end, serve, url_of
from tests.registry.servers import free_port, mlflow_server, postgres_programs, postgres_server

pytestmark = [pytest.mark.slow, pytest.mark.proof]


@pytest.mark.parametrize(
    "signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda signum: signum.name
)
def test_a_training_outlives_its_mlflow_server(
    root: Path, tmp_path: Path, signum: signal.Signals
) -> None:
    """It says so at once, ends by a signal, and goes on when the server is back."""
    port = free_port()
    words = ["train", "--source", "digits", "--json", "--set", "compute.threads=1"]
    words += ["--set", f"registry.tracking_uri=http://127.0.0.1:{port}"]
    command = [sys.executable, "-m", "mindtrace", *words]
    with mlflow_server(tmp_path, port):
        process = subprocess.Popen(
            [*command, "--max-epochs", "1000"],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ},
        )
        assert process.stderr is not None
        while '"event": "epoch"' not in (line := process.stderr.readline()):
            assert line, "the training ended before its first epoch"
    while "metrics are kept until it answers" not in (line := process.stderr.readline()):
        assert line, "the training said nothing of its store"
    process.send_signal(signum)
    start = time.monotonic()
    _, err = process.communicate(timeout=PATIENCE)
    error = json.loads(err.splitlines()[-1])["error"]
    assert (process.returncode, "Traceback" in err) == (128 + signum, False), err
    assert time.monotonic() - start < 30
    run_id = re.search(r"--resume (\w+)", error["hint"])
    assert run_id is not None
    with mlflow_server(tmp_path, port):
        again = [*command, "--max-epochs", "1000", "--resume", run_id[1]]
        process = subprocess.Popen(again, stderr=subprocess.PIPE, text=True, env={**os.environ})
        assert process.stderr is not None
        while '"event": "epoch"' not in (line := process.stderr.readline()):
            assert line, "it does not go on"
        assert json.loads(line)["epoch"] > 1
        process.send_signal(signum)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 128 + signum


def _stop(url: str) -> tuple[list[str], str | None]:
    """End the PostgreSQL server of a URL; its command line and user, to start it again."""
    port = url.rpartition(":")[2]
    (server,) = [
        process
        for process in psutil.process_iter(["cmdline"])
        if (process.info["cmdline"] or [""])[0].endswith("postgres")
        and port in process.info["cmdline"]
    ]
    words, user = server.info["cmdline"], server.username()
    server.send_signal(signal.SIGINT)
    server.wait(60)
    return words, user if os.geteuid() == 0 else None


def _ready(url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{url}/healthz/ready", trust_env=False).json()
    return found


def _until(url: str, registry: str | None) -> None:
    deadline = time.monotonic() + PATIENCE
    while _ready(url).get("registry") != registry:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.postgres
@pytest.mark.parametrize("ref", [None, NAME, f"{NAME}/1"])
def test_a_server_starts_without_its_store_and_takes_it_when_it_comes(
    root: Path, ref: str | None
) -> None:
    named = [] if ref is None else ["--model", ref]
    with postgres_server(postgres_programs()) as url:
        database = f"{url}/postgres"
        registered = Registered(root, database)
        registered.add(1.0)
        words = ["--no-worker", *named, "--set", f"registry.tracking_uri={database}"]
        with serve(*words) as process:
            assert _ready(url_of(process))["version"] == 1
            assert end(process)[0] == 0
        wrong = database.replace(":geheim@", ":falsch@")
        with serve("--no-worker", *named, "--set", f"registry.tracking_uri={wrong}") as process:
            found = _ready(url_of(process))
            assert (found["version"], found["registry"]) == (1, "away")
            code, err = end(process)
            assert (code, "falsch" in err, err.count("\n")) == (0, False, 1), err
        postgres, user = _stop(url)
        with serve(*words) as process:
            place = url_of(process)
            assert _ready(place)["registry"] == "away"
            answer = httpx.post(f"{place}/inference", content=png(200), headers=PNG)
            assert answer.json()["version"] == 1
            refused = httpx.get(f"{place}/models").json()
            assert "under this request_id" in refused["detail"]
            again = subprocess.Popen(postgres, user=user, cwd="/")
            try:
                _until(place, None)
                assert httpx.get(f"{place}/models").status_code == 200
                code, err = end(process, signal.SIGHUP)
                away, asked, back = err.splitlines()
                assert (code, "Traceback" in err) == (0, False)
                assert ("until it answers" in away, "looked up again" in back) == (True, True)
                assert asked.endswith(f" request_id={refused['request_id']}")
            finally:
                again.send_signal(signal.SIGINT)
                again.wait(60)
