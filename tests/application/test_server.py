"""`mindtrace serve` as real processes: one worker and more, good ends and bad ones."""

from __future__ import annotations

import base64
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from tests.application.conftest import png, write_bundle
from tests.application.servers import PATIENCE, ask, end, serve, started, url_of
from tests.waiting import until

pytestmark = pytest.mark.slow

HEAVY = (
    *("torch", "pytorch_lightning", "torchmetrics", "mlflow", "onnx", "sklearn", "pandas", "dbos"),
)
IMAGE = base64.b64encode(png(3)).decode()


@contextlib.contextmanager
def served(
    bundle: Path, workers: str = "1", *options: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and the URL of a server of a bundle; it must leave no traceback."""
    with serve("--workers", workers, "--model", str(bundle), *options) as process:
        yield process, url_of(process)


def ended(process: subprocess.Popen[str], signum: int = signal.SIGTERM, code: int = 0) -> str:
    """What it says on stderr when a signal ends it with this code."""
    found, err = end(process, signum)
    assert (found, "Traceback" in err) == (code, False), err
    return err


WORKERS = pytest.mark.parametrize("workers", ["1", "2"])


def test_two_workers_take_a_job(root: Path, bundle: Path) -> None:
    """They know what was set, and by whom, as one process does."""
    with served(bundle, "2", "--no-worker", "--set", "train.seed=3") as (process, url):
        body = {"data": {"source": "digits"}, "train": {"max_epochs": 1}}
        answer = httpx.post(f"{url}/retrain", json=body, trust_env=False, timeout=PATIENCE)
        assert (answer.status_code, answer.json()["state"]) == (202, "queued"), answer.text
        ended(process)


@pytest.mark.proof
@WORKERS
def test_under_nohup_a_hangup_means_nothing(root: Path, bundle: Path, workers: str) -> None:
    code = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN);"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    words = ("-m", "mindtrace", "serve", "--port", "0", "--json", "--model", str(bundle))
    with started(["-c", code, *words, "--workers", workers]) as process:
        url = url_of(process)
        process.send_signal(signal.SIGHUP)
        assert ask(url).json()["class_name"] == "bright"
        ended(process)


def test_two_workers_with_a_token_and_limits(root: Path, bundle: Path, token_file: Path) -> None:
    limits = ("--set", "serve.max_header=1 KiB", "--set", "serve.header_timeout=0.3")
    with served(bundle, "2", "--token-file", str(token_file), *limits) as (_, url):
        assert ask(url).status_code == 401
        assert ask(url, authorization="Bearer s3cret").status_code == 200
        assert ask(url, x="y" * 2000).status_code == 431
        with connected(url) as silent:
            assert silent.recv(1) == b""


@pytest.mark.parametrize(
    ("workers", "signum"), [("1", signal.SIGHUP), ("2", signal.SIGINT), ("2", signal.SIGTERM)]
)
def test_it_takes_its_leave_first(
    root: Path, bundle: Path, workers: str, signum: signal.Signals
) -> None:
    """Not ready while it still accepts; then what is open is answered; then it is gone."""
    with served(bundle, workers) as (process, url):
        assert ask(url).json()["class_name"] == "bright"
        head, body = half_of_a_request(url)
        with connected(url) as slow:
            slow.sendall(head)
            time.sleep(0.2)  # until it is read
            process.send_signal(signum)
            seen = []
            with contextlib.suppress(httpx.TransportError):
                while True:
                    ready = httpx.get(f"{url}/healthz/ready", trust_env=False, timeout=PATIENCE)
                    seen.append((ready.status_code, ask(url).status_code))
                    assert "stopping" in ready.text or ready.status_code == 200
            assert (503, 200) in seen
            assert seen == sorted(seen)
            slow.sendall(body)
            answered = slow.makefile("rb").read()
        assert answered.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answered
        _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, "Traceback" in err) == (0, False)


@pytest.mark.proof
@WORKERS
def test_it_does_not_wait_for_ever(root: Path, bundle: Path, workers: str) -> None:
    options = ("--set", "serve.drain_timeout=2")
    with served(bundle, workers, *options) as (process, url), connected(url) as slow:
        slow.sendall(half_of_a_request(url)[0])
        time.sleep(0.2)
        start = time.monotonic()
        ended(process)
        assert time.monotonic() - start > 1


@pytest.mark.parametrize(("workers", "second"), [("1", signal.SIGINT), ("2", signal.SIGTERM)])
def test_a_second_signal_cuts_short(
    root: Path, bundle: Path, workers: str, second: signal.Signals
) -> None:
    with served(bundle, workers) as (process, url), connected(url) as slow:
        slow.sendall(half_of_a_request(url)[0])
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)  # the same signal twice, as wrappers send it
        time.sleep(1.0)
        assert process.poll() is None
        ended(process, second, 128 + second)  # 0 if it had waited


@pytest.mark.proof
@WORKERS
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

    with served(bundle, workers) as (process, url), ThreadPoolExecutor(8) as clients:
        head, body = half_of_a_request(url)
        request = head.replace(b"Host:", b"Connection: close\r\nHost:") + body
        ends = [clients.submit(knock, url, request) for _ in range(8)]
        time.sleep(1.0)
        assert ended(process) == ""
        answers = [one.result() for one in ends]
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
    parent = psutil.Process(process.pid)
    until(lambda: len(parent.children()) == count)
    return {child.pid for child in parent.children()}


@pytest.mark.proof
def test_workers_end_with_a_parent_that_was_killed(
    root: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with served(bundle, "2") as (process, url):
        assert ask(url).status_code == 200
        children = workers_of(process, 2)
        assert list(tmp_path.glob("mindtrace-*"))
        process.kill()
        process.wait()
        until(lambda: not any(map(psutil.pid_exists, children)))
    assert not list(tmp_path.glob("mindtrace-*"))


@pytest.mark.parametrize(
    ("workers", "ref", "code", "kind", "says"),
    [
        ("1", "nothing/3", 4, "NotFoundError", "no registry"),
        ("2", "broken", 1, "BundleError", "golden images"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    root: Path, tmp_path: Path, workers: str, ref: str, code: int, kind: str, says: str
) -> None:
    broken = write_bundle(tmp_path / "broken", golden_shift=0.1)
    model = str(broken) if ref == "broken" else ref
    with serve("--workers", workers, "--model", model) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    error = json.loads(err.splitlines()[-1])["error"]
    assert (error["type"], says in error["message"]) == (kind, True)
    assert "Traceback" not in err


def test_nothing_heavy_is_imported(root: Path, bundle: Path) -> None:
    program = f"""
import json, os, signal, sys, threading, urllib.request
from mindtrace.config.settings import load_settings
from mindtrace.service.serve import serve

def ask(url):
    body = json.dumps({{"image": {IMAGE!r}}}).encode()
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
    with started(command) as process, httpx.Client(trust_env=False, timeout=PATIENCE) as client:

        def live() -> httpx.Response | None:
            with contextlib.suppress(httpx.TransportError):
                return client.get(f"http://127.0.0.1:{port}/healthz/live")
            return None

        assert until(live).json() == {"status": "live"}
        assert client.get(f"http://127.0.0.1:{port}/healthz/ready").status_code == 503
        process.terminate()
        process.communicate(timeout=60)


def test_the_example_client(root: Path, bundle: Path, tmp_path: Path) -> None:
    image = tmp_path / "bright.png"
    image.write_bytes(png(200))
    example = Path(__file__).parents[2] / "examples" / "client.py"
    with served(bundle) as (_, url):
        command = [sys.executable, str(example), "--url", url, str(image)]
        good = subprocess.run(command, capture_output=True, text=True, check=True)
        image.write_bytes(b"no image")
        bad = subprocess.run(command, capture_output=True, text=True, check=False)
    assert good.stdout.split("\t")[:2] == [str(image), "bright"]
    assert bad.returncode == 1
    assert bad.stderr.startswith("error: not an image")
