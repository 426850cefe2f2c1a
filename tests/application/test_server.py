"""`mindtrace serve` as real processes: one worker and more, good ends and bad ones."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from tests.application.conftest import png, write_bundle
from tests.application.servers import PATIENCE, ask, end, serve, started, url_of

pytestmark = pytest.mark.slow

HEAVY = (
    "torch",
    "pytorch_lightning",
    "torchmetrics",
    "mlflow",
    "onnx",
    "sklearn",
    "pandas",
    "dbos",
)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_and_ends_in_peace(
    root: Path, bundle: Path, workers: str, signum: signal.Signals
) -> None:
    with serve("--workers", workers, "--model", str(bundle)) as process:
        answer = ask(url_of(process))
        assert answer.json()["class_name"] == "bright"
        code, err = end(process, signum)
    assert code == 0
    assert "Traceback" not in err


def test_two_workers_with_a_token(root: Path, bundle: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret")
    options = ("--workers", "2", "--model", str(bundle), "--token-file", str(token))
    with serve(*options) as process:
        url = url_of(process)
        assert ask(url).status_code == 401
        assert ask(url, authorization="Bearer s3cret").status_code == 200


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_takes_its_leave_first(root: Path, bundle: Path, workers: str) -> None:
    """Not ready while it still accepts; then what is open is answered; then it is gone."""
    with serve("--workers", workers, "--model", str(bundle)) as process:
        url = url_of(process)
        assert ask(url).status_code == 200
        head, body = half_of_a_request(url)
        with connected(url) as slow:
            slow.sendall(head)
            time.sleep(0.2)  # until it is read
            process.send_signal(signal.SIGTERM)
            seen = []
            with contextlib.suppress(httpx.TransportError):
                while True:
                    ready = httpx.get(f"{url}/healthz/ready", trust_env=False, timeout=PATIENCE)
                    answer = ask(url)
                    seen.append((ready.status_code, answer.status_code))
                    assert "stopping" in ready.text or ready.status_code == 200
            assert (503, 200) in seen
            assert seen == sorted(seen)
            slow.sendall(body)
            answered = slow.makefile("rb").read()
        assert answered.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answered
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "Traceback" not in err


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_does_not_wait_for_ever(root: Path, bundle: Path, workers: str) -> None:
    options = ("--workers", workers, "--model", str(bundle), "--set", "serve.drain_timeout=2")
    with serve(*options) as process:
        url = url_of(process)
        with connected(url) as slow:
            slow.sendall(half_of_a_request(url)[0])
            time.sleep(0.2)
            start = time.monotonic()
            code, err = end(process)
            seconds = time.monotonic() - start
    assert code == 0
    assert 1 < seconds < 10
    assert "Traceback" not in err


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_cuts_short(
    root: Path, bundle: Path, workers: str, second: signal.Signals
) -> None:
    with serve("--workers", workers, "--model", str(bundle)) as process:
        url = url_of(process)
        with connected(url) as slow:
            slow.sendall(half_of_a_request(url)[0])
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGTERM)  # the same signal twice, as wrappers send it
            time.sleep(1.0)
            assert process.poll() is None
            start = time.monotonic()
            code, err = end(process, second)
            seconds = time.monotonic() - start
    assert code == 128 + second
    assert seconds < 10
    assert "Traceback" not in err


def test_a_worker_that_was_killed_is_replaced(root: Path, bundle: Path) -> None:
    with serve("--workers", "2", "--model", str(bundle)) as process:
        url = url_of(process)
        before = workers_of(process, 2)
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        for _ in range(50):
            assert ask(url).status_code == 200
        deadline = time.monotonic() + PATIENCE
        while victim in (now := workers_of(process, 2)):
            assert time.monotonic() < deadline
        assert len(now - before) == 1
        code, err = end(process)
    assert code == 0
    assert f"worker {victim} was killed by SIGKILL; another one takes its place" in err


def test_nobody_waits_while_workers_start(root: Path, bundle: Path) -> None:
    """They share one socket: what a new one does to it must not stop the others."""
    with (
        serve("--workers", "3", "--model", str(bundle)) as process,
        ThreadPoolExecutor(4) as clients,
    ):
        url = url_of(process)
        answers = clients.map(lambda _: ask(url).status_code, range(200))
        assert set(answers) == {200}
        _, err = end(process)
    assert err == ""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_nobody_is_cut_off_when_it_stops(root: Path, bundle: Path, workers: str) -> None:
    """Whoever is let in is answered; whoever comes later is sent away before a word."""

    def knock(url: str, request: bytes) -> list[bytes]:
        answers = []
        with contextlib.suppress(ConnectionRefusedError, ConnectionResetError):
            while True:
                with connected(url) as wire:
                    wire.sendall(request)
                    answers.append(b"")
                    while piece := wire.recv(1 << 16):
                        answers[-1] += piece
        return answers

    options = ("--workers", workers, "--model", str(bundle))
    with serve(*options) as process, ThreadPoolExecutor(8) as clients:
        url = url_of(process)
        head, body = half_of_a_request(url)
        request = head.replace(b"Host:", b"Connection: close\r\nHost:") + body
        ends = [clients.submit(knock, url, request) for _ in range(8)]
        time.sleep(1.0)
        code, err = end(process)
        answers = [one.result() for one in ends]
    assert (code, err) == (0, "")
    assert all(each[0].endswith(b"}") for each in answers)
    # The kernel lets in one more while the socket is being closed.
    torn = [answer for each in answers for answer in each if not answer.endswith(b"}")]
    assert len(torn) <= int(workers)
    assert not any(torn)


def test_it_may_have_as_many_connections_as_it_promises(root: Path, bundle: Path) -> None:
    """Many systems allow a process 1,024 files until it asks for more."""
    command = f"ulimit -Sn 256; exec {sys.executable} -m mindtrace serve --port 0 --json"
    with subprocess.Popen(
        ["sh", "-c", f"{command} --model {bundle}"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert ask(url_of(process)).status_code == 200
        soft, hard = psutil.Process(process.pid).rlimit(psutil.RLIMIT_NOFILE)
        assert soft > min(1024, hard - 1)
        assert end(process)[0] == 0


def test_every_worker_has_request_ids_of_its_own(root: Path, bundle: Path) -> None:
    with serve("--workers", "3", "--model", str(bundle)) as process:
        url = url_of(process)
        workers_of(process, 3)
        ids = [ask(url).headers["x-request-id"] for _ in range(60)]
    assert len(set(ids)) == 60


def test_limits_reach_the_workers(root: Path, bundle: Path) -> None:
    options = ("--set", "serve.max_header=1 KiB", "--set", "serve.header_timeout=0.3")
    with serve("--workers", "2", "--model", str(bundle), *options) as process:
        url = url_of(process)
        assert ask(url, x="y" * 2000).status_code == 431
        with connected(url) as silent:
            assert silent.recv(1) == b""


def half_of_a_request(url: str) -> tuple[bytes, bytes]:
    """The head with half of the body, and the other half."""
    content = png(200)
    head = f"POST /inference HTTP/1.1\r\nHost: {url.removeprefix('http://')}\r\n"
    head += f"Content-Type: image/png\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content[:20], content[20:]


def connected(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE)


def workers_of(process: subprocess.Popen[str], count: int) -> set[int]:
    """The ids of the workers, once there are so many."""
    deadline = time.monotonic() + PATIENCE
    while True:
        children = {child.pid for child in psutil.Process(process.pid).children()}
        if len(children) == count:
            return children
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_workers_end_with_a_parent_that_was_killed(
    root: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with serve("--workers", "2", "--model", str(bundle)) as process:
        url = url_of(process)
        assert ask(url).status_code == 200
        children = workers_of(process, 2)
        assert list(tmp_path.glob("mindtrace-*"))
        process.kill()
        process.wait()
        deadline = time.monotonic() + PATIENCE
        while any(psutil.pid_exists(child) for child in children):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert not list(tmp_path.glob("mindtrace-*"))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_broken_version_is_one_line(root: Path, tmp_path: Path, workers: str) -> None:
    broken = write_bundle(tmp_path / "broken", golden_shift=0.1)
    with serve("--workers", workers, "--model", str(broken)) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "golden images" in json.loads(err.splitlines()[-1])["error"]["message"]
    assert "Traceback" not in err


def test_workers_that_cannot_start_end_the_server(root: Path, bundle: Path, tmp_path: Path) -> None:
    """The parent has checked; then the bundle breaks before a worker loads it."""
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    program = f"""
import shutil, sys
from mindtrace.config.settings import load_settings
from mindtrace.errors import MindtraceError
from mindtrace.service.serve import serve
if __name__ == "__main__":
    settings = load_settings(sets=["serve.port=0", "serve.workers=2"])
    try:
        serve(settings, {str(copy)!r}, ready=lambda _: shutil.rmtree({str(copy)!r}))
    except MindtraceError as error:
        sys.exit(str(error))
"""
    script = tmp_path / "script.py"
    script.write_text(program)
    with started([str(script)]) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the workers could not start" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_version_that_does_not_exist(root: Path, workers: str) -> None:
    with serve("--workers", workers, "--model", "nothing/3") as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 4
    assert json.loads(err.splitlines()[-1])["error"]["type"] == "NotFoundError"


def test_a_port_in_use(root: Path, bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = ["-m", "mindtrace", "serve", "--port", port, "--model", str(bundle)]
        with started(command) as process:
            _, err = process.communicate(timeout=60)
    assert process.returncode == 5
    assert err.startswith(f"error: cannot listen on 127.0.0.1:{port}")


def test_nothing_heavy_is_imported(root: Path, bundle: Path) -> None:
    program = f"""
import json, os, signal, sys, threading, urllib.request
from mindtrace.config.settings import load_settings
from mindtrace.service.serve import serve

def ask(url):
    body = json.dumps({{"image": {_base64_png()!r}}}).encode()
    headers = {{"content-type": "application/json"}}
    for path in ("/models", "/jobs", "/openapi.json", "/healthz/ready"):
        urllib.request.urlopen(url + path).read()
    urllib.request.urlopen(urllib.request.Request(url + "/inference", body, headers)).read()
    print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

serve(
    load_settings(sets=["serve.port=0"]),
    {str(bundle)!r},
    ready=lambda url: threading.Thread(target=ask, args=(url,), daemon=True).start(),
)
"""
    with started(["-c", program]) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out) == []


def test_uvicorn_by_import_string(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = ["-m", "uvicorn", "mindtrace.application.api:app", "--port", str(port)]
    with started(command) as process, httpx.Client(trust_env=False) as client:
        deadline = time.monotonic() + 60
        while True:
            assert time.monotonic() < deadline
            with contextlib.suppress(httpx.TransportError):
                answer = client.get(f"http://127.0.0.1:{port}/healthz/live")
                break
            time.sleep(0.05)
        assert answer.json() == {"status": "live"}
        assert client.get(f"http://127.0.0.1:{port}/healthz/ready").status_code == 503
        process.terminate()
        process.communicate(timeout=60)


def test_the_example_client(root: Path, bundle: Path, tmp_path: Path) -> None:
    image = tmp_path / "bright.png"
    image.write_bytes(png(200))
    example = Path(__file__).parents[2] / "examples" / "client.py"
    with serve("--model", str(bundle)) as process:
        url = url_of(process)
        command = [sys.executable, str(example), "--url", url, str(image)]
        good = subprocess.run(command, capture_output=True, text=True, check=True)
        image.write_bytes(b"no image")
        bad = subprocess.run(command, capture_output=True, text=True, check=False)
    assert good.stdout.split("\t")[:2] == [str(image), "bright"]
    assert bad.returncode == 1
    assert bad.stderr.startswith("error: not an image")


def _base64_png() -> str:
    import base64

    return base64.b64encode(png(3)).decode()
