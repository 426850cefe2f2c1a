"""`mindtrace serve` as real processes: one worker and more, good ends and bad ones."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from tests.application.conftest import png, write_bundle

pytestmark = pytest.mark.slow

IMAGE = {"content-type": "image/png"}
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


def test_workers_end_with_a_parent_that_was_killed(root: Path, bundle: Path) -> None:
    with serve("--workers", "2", "--model", str(bundle)) as process:
        url = url_of(process)
        assert ask(url).status_code == 200
        process.kill()
        process.wait()
        deadline = time.monotonic() + 60
        while True:
            try:
                ask(url)
            except httpx.TransportError:
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)


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
from mindtrace.core.settings import load_settings
from mindtrace.errors import MindtraceError
from mindtrace.service.serving import serve
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


def test_a_version_that_does_not_exist(root: Path) -> None:
    with serve("--model", "nothing/3") as process:
        process.communicate(timeout=60)
    assert process.returncode == 4


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
from mindtrace.core.settings import load_settings
from mindtrace.service.serving import serve

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
