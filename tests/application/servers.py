"""`mindtrace serve` as a process, and a client that asks it."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

import httpx
from tests.application.conftest import png

IMAGE = {"content-type": "image/png"}
PATIENCE = 60.0  # seconds: until a server that does not answer fails its test


@contextlib.contextmanager
def started(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def serve(*args: str) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    return started(["-m", "mindtrace", "serve", "--port", "0", "--json", *args])


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()
    return str(json.loads(line)["url"])


def ask(url: str, **headers: str) -> httpx.Response:
    with httpx.Client(trust_env=False, timeout=60) as client:
        return client.post(f"{url}/inference", content=png(200), headers={**IMAGE, **headers})


def end(process: subprocess.Popen[str], signum: int = signal.SIGTERM) -> tuple[int, str]:
    process.send_signal(signum)
    _, err = process.communicate(timeout=60)
    return process.returncode, err
