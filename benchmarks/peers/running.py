"""One server at a time: started, asked, loaded by wrk, weighed, stopped.

In: a `Peer`, the Python that it lives in, the folder with bodies. Out: seconds, answers,
requests a second and milliseconds, megabytes.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from peers.commands import FORMS, Peer, environment

PATIENCE = 120  # seconds for a server to answer at all
LUA = """
local bodies = {{
{bodies}
}}
local turn = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
function request()
  turn = turn % #bodies + 1
  return wrk.format(nil, nil, nil, bodies[turn])
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    'FOUND {{"rate": %f, "p50": %f, "p99": %f, "bad": %d}}\\n',
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def write_bodies(folder: Path, images: Sequence[bytes]) -> None:
    """A script of wrk for each form of body, over 250 images."""
    texts = [base64.b64encode(image).decode() for image in images[:: max(1, len(images) // 250)]]
    for name, form in FORMS.items():
        bodies = [form % text for text in texts[:250]]
        lines = ",\n".join(f"'{body}'" for body in bodies)
        (folder / f"{name}.lua").write_text(LUA.format(bodies=lines))
        (folder / f"{name}.bodies").write_text("\n".join(bodies))


def free_port() -> int:
    """Three free ports in a row; the first."""
    while True:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, OverflowError):
            first = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            for port in (first + 1, first + 2):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return int(first)


class CannotStart(Exception):  # noqa: N818 - it reads as what it is
    """A server gave no answer; the end of its log says why."""


@contextlib.contextmanager
def started(peer: Peer, python: str, folder: Path) -> Iterator[tuple[str, float, psutil.Popen]]:
    """A running server: its URL, seconds to its first answer, its process."""
    port = free_port()
    command = peer.command(python, port, folder)
    body = (folder / f"{peer.form}.bodies").read_text().splitlines()[0].encode()
    with (folder / "server.log").open("w") as log:
        began = time.perf_counter()
        process = psutil.Popen(
            command,
            cwd=folder,
            env=environment(folder, python),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        while not _answers(port, peer.path, body):
            if process.poll() is not None or time.perf_counter() - began > PATIENCE:
                raise CannotStart((folder / "server.log").read_text()[-2000:])
            time.sleep(0.005)
        yield f"http://127.0.0.1:{port}{peer.path}", time.perf_counter() - began, process
    finally:
        family = [process]
        with contextlib.suppress(psutil.NoSuchProcess):
            family += process.children(recursive=True)
        for one in family:
            with contextlib.suppress(psutil.Error):
                one.terminate()
        for one in psutil.wait_procs(family, 15)[1]:
            one.kill()


def _answers(port: int, path: str, body: bytes) -> bool:
    try:
        return ask(port, path, body)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def ask(port: int, path: str, body: bytes) -> tuple[int, bytes]:
    """Status and body of one answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def answers(peer: Peer, url: str, folder: Path) -> Any:
    """Probabilities of twenty images: (20, 10)."""
    port = int(url.split(":")[2].split("/")[0])
    bodies = (folder / f"{peer.form}.bodies").read_text().splitlines()[:20]
    return np.array(
        [peer.probabilities(ask(port, peer.path, body.encode())[1]) for body in bodies]
    ).reshape(20, 10)


def wrk(url: str, script: Path, connections: int, seconds: int) -> dict[str, float]:
    """One run of wrk with one thread."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s"]
    done = subprocess.run([*command, "-s", script, url], capture_output=True, text=True, check=True)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("FOUND "))
    found: dict[str, float] = json.loads(line.removeprefix("FOUND "))
    if found["bad"]:
        raise SystemExit(f"{url}: {found['bad']:.0f} requests failed\n{done.stdout}")
    return found


def pss(process: psutil.Process) -> float:
    """MB of a process and its descendants, what they share counted once."""
    total = 0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            found = one.memory_full_info()
            total += getattr(found, "pss", found.uss)
    return total / 1e6
