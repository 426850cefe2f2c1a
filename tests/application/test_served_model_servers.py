"""Real servers follow what is promoted by others, in stores of any kind."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.application.conftest import PNG, png
from tests.application.registered import Registered
from tests.application.servers import PATIENCE, end, serve, url_of
from tests.registry.servers import execute, mlflow_server, postgres_programs, postgres_server
from tests.waiting import until

from mindtrace.application.served_model import POLL_EVERY

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def following(*args: str) -> Iterator[str]:
    """The URL of a server, which must end in peace."""
    with serve("--no-worker", *args) as process:
        yield url_of(process)
        code, err = end(process)
        assert code == 0, err
        assert "Traceback" not in err, err


def versions_of(url: str, count: int = 24) -> set[int]:
    """What so many new connections are answered by, one after the other."""
    found = set()
    for _ in range(count):
        with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
            answer = client.post(f"{url}/inference", content=png(200), headers=PNG)
        assert answer.status_code == 200, answer.text
        found.add(answer.json()["version"])
    return found


def wait_for(url: str, version: int) -> None:
    """Until all workers answer with a version; `endurance/test_swap.py` measures how long."""
    until(lambda: versions_of(url) == {version})


@contextlib.contextmanager
def swapped(root: Path, uri: str) -> Iterator[str]:
    """The URL of a server that went from version 1 to 2, as its registry did."""
    registry = Registered(root, uri)
    registry.add(1.0)
    registry.add(2.0)
    with following("--set", f"registry.tracking_uri={uri}") as url:
        assert versions_of(url, 4) == {1}
        registry.point(2)
        wait_for(url, 2)
        yield url


@pytest.mark.proof
def test_a_registry_on_another_machine(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read through a child process; when it goes away, what is served goes on."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "server"
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        uri = stack.enter_context(mlflow_server(folder))
        with swapped(root, uri) as url:
            stack.close()
            time.sleep(3 * POLL_EVERY)
            assert versions_of(url, 4) == {2}


@pytest.mark.proof
@pytest.mark.postgres
def test_a_registry_in_postgresql(root: Path) -> None:
    with postgres_server(postgres_programs()) as server:
        execute(f"{server}/postgres", "create database followed")
        uri = f"{server}/followed"
        with swapped(root, uri):
            pass
