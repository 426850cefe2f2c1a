"""A store goes away during a training, or is away when a server starts: real servers, killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.application.conftest import PNG, png
from tests.application.registered import NAME, Registered
from tests.application.servers import PATIENCE, end, serve, url_of
from tests.conftest import Mindtrace
from tests.moments import command as at
from tests.registry.servers import (
    free_port,
    mlflow_server,
    postgres_folder,
    postgres_programs,
    running_postgres,
)

from mindtrace.registry.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.proof]

Running = Callable[[], AbstractContextManager[str]]
TRAIN = ["train", "--source", "digits", "--json", "--set", "compute.threads=1"]


@contextmanager
def _postgres() -> Iterator[Running]:
    """`running()`: one PostgreSQL server, which may end and begin again."""
    programs, port = postgres_programs(), free_port()
    with postgres_folder(programs) as folder:
        yield partial(running_postgres, programs, folder, port)


@pytest.fixture
def running(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Running]:
    """The store that the settings name, as a server that may end and begin again."""
    if request.param == "postgres":
        with _postgres() as opened:
            with opened() as url:
                monkeypatch.setenv("REGISTRY__TRACKING_URI", f"{url}/postgres")
            yield opened
    else:
        port = free_port()
        monkeypatch.setenv("REGISTRY__TRACKING_URI", f"http://127.0.0.1:{port}")
        yield partial(mlflow_server, tmp_path, port)


def _begin(*words: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
        cwd=cwd,
    )


def _until_said(process: subprocess.Popen[str], words: str) -> str:
    """The line of stderr that has these words."""
    assert process.stderr is not None
    while words not in (line := process.stderr.readline()):
        assert line, f"it ended without {words}"
    return line


def _run_id(err: str) -> str:
    """Of the training that may go on, from its one line."""
    assert "Traceback" not in err and "geheim" not in err, err
    found = re.search(r"--resume (\w+)", json.loads(err.splitlines()[-1])["error"]["hint"])
    assert found is not None, err
    return found[1]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("running", "signum"),
    [
        ("mlflow", signal.SIGTERM),
        ("mlflow", signal.SIGINT),
        pytest.param("postgres", signal.SIGTERM, marks=pytest.mark.postgres),
        ("mlflow", signal.SIGHUP),
    ],
    indirect=["running"],
)
def test_a_training_outlives_its_store(
    root: Path, running: Running, signum: signal.Signals
) -> None:
    """It says so at once, ends by a signal, and goes on when the server is back."""
    command = [sys.executable, "-m", "mindtrace", *TRAIN, "--max-epochs", "1000"]
    with running():
        process = _begin(*command)
        _until_said(process, '"event": "epoch"')
    _until_said(process, "metrics are kept until it answers")
    process.send_signal(signum)
    start = time.monotonic()
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signum, err
    assert time.monotonic() - start < 30
    with running():
        process = _begin(*command, "--resume", _run_id(err))
        assert json.loads(_until_said(process, '"event": "epoch"'))["epoch"] > 1
        process.send_signal(signum)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 128 + signum


def test_a_training_outlives_its_working_directory(root: Path, tmp_path: Path) -> None:
    """MLflow asks for it when it keeps files."""
    here, words = tmp_path / "here", [*TRAIN, "--max-epochs", "1"]
    here.mkdir()
    process = _begin(*at("wait", "mindtrace.service.train:_log_report", *words), cwd=here)
    assert process.stdout is not None and process.stdout.readline() == "now\n"
    here.rmdir()
    _, err = process.communicate("\n", timeout=PATIENCE)
    message = json.loads(err.splitlines()[-1])["error"]["message"]
    assert process.returncode == 1 and message.endswith("the working directory was deleted")
    process = _begin(sys.executable, "-m", "mindtrace", *words, "--resume", _run_id(err))
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert json.loads(out)["version"] == 1


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("running", "moment"),
    [
        (kind, moment)
        for kind in ("postgres", "mlflow")
        for moment in (
            "mindtrace.registry.callbacks:RunCallback.on_train_epoch_end",
            "mindtrace.service.train:_log_report",
            "mindtrace.registry.publish:publish",
            "mindtrace.registry.publish:_upload",
            "mindtrace.registry.publish:ensure_model",
            "mindtrace.registry.publish:promote_first_version",
            "mindtrace.registry.store:Run.end",
        )
    ],
    indirect=["running"],
)
@pytest.mark.postgres
def test_a_store_that_stays_away_ends_a_training_which_goes_on_later(
    root: Path, running: Running, mindtrace: Mindtrace, moment: str
) -> None:
    """One line and exit 1, the checkpoint stays, and there is one whole version in the end."""
    words = [*TRAIN, "--max-epochs", "3"]
    with running():
        process = _begin(*at("wait", moment, *words))
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "now\n", process.communicate()
    out, err = process.communicate("go on\n", timeout=PATIENCE * 3)
    assert (process.returncode, out) == (1, ""), err
    assert [path.parent.name for path in root.glob("checkpoints/*/last.ckpt")] == [_run_id(err)]
    assert list(root.glob("staging/*")) == []

    with running():
        done = mindtrace(*words, "--resume", _run_id(err))
        assert (done.returncode, json.loads(done.stdout)["version"]) == (0, 1), done.stderr
        verified = mindtrace("registry", "verify", "--all")
        assert verified.returncode == 0, verified.stdout
        store = Store(os.environ["REGISTRY__TRACKING_URI"], root)
        assert store.client.get_run(_run_id(err)).info.status == "FINISHED"
        model = store.client.get_registered_model("digits")
        assert {name: int(version) for name, version in model.aliases.items()} == {"champion": 1}
    assert list(root.glob("checkpoints/*")) == []


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
    with _postgres() as running:
        with running() as url:
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
        with serve(*words) as process:
            place = url_of(process)
            assert _ready(place)["registry"] == "away"
            answer = httpx.post(f"{place}/inference", content=png(200), headers=PNG)
            assert answer.json()["version"] == 1
            refused = httpx.get(f"{place}/models").json()
            assert "under this request_id" in refused["detail"]
            with running():
                _until(place, None)
                assert httpx.get(f"{place}/models").status_code == 200
                code, err = end(process, signal.SIGHUP)
                away, asked, back = err.splitlines()
                assert (code, "Traceback" in err) == (0, False)
                assert ("until it answers" in away, "looked up again" in back) == (True, True)
                assert asked.endswith(f" request_id={refused['request_id']}")
