"""`mindtrace serve`: its options, and what keeps it from starting; `test_jobs` has it running."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import RunCli


def test_a_port_in_use(run_cli: RunCli, root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run_cli("serve", "--port", str(port))
    assert result.exit_code == 5
    assert result.stderr.splitlines() == [
        f"error: cannot listen on 127.0.0.1:{port}: the port is in use",
        f"hint: mindtrace serve --port {port + 1}",
    ]


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [("--host", "0.0.0.0", "token"), ("--port", "many", "--port"), ("--workers", "0", "--workers")],
)
def test_wrong_usage(run_cli: RunCli, root: Path, option: str, value: str, word: str) -> None:
    result = run_cli("serve", option, value)
    assert (result.exit_code, word in result.stderr.splitlines()[0]) == (2, True)


@pytest.mark.parametrize(
    ("options", "worker", "labels"),
    [((), True, False), (("--no-worker", "--allow-label-change"), False, True)],
)
def test_options_reach_the_server(
    run_cli: RunCli,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    worker: bool,
    labels: bool,
) -> None:
    heard: list[Any] = []

    def run(settings: Any, model_ref: str | None, *_: Any, **more: Any) -> None:
        heard.append((settings.serve.workers, model_ref, more))

    monkeypatch.setattr("mindtrace.application.serve.run", run)
    result = run_cli("serve", "--port", "0", "--workers", "3", "--model", "digits/2", *options)
    assert result.exit_code == 0, result.stderr
    assert heard == [(3, "digits/2", {"worker": worker, "allow_label_change": labels})]
