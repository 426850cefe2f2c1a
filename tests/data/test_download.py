from __future__ import annotations

import gzip
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import astuple
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from mindtrace.data.download import Patience, RemoteFile, fetch, stored
from mindtrace.errors import DownloadError

CONTENT = bytes(range(256)) * 400
FILE = RemoteFile("set-ubyte", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
PACKED = gzip.compress(CONTENT)


class Waits(list[float]):
    """A patience that does not wait, and for how long it would have."""

    def patience(self, **changes: Any) -> Patience:
        return Patience(sleep=self.append, **changes)


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def served(mirror: Any) -> Any:
    mirror.files["set-ubyte.gz"] = PACKED
    return mirror


def everything_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def status(code: int) -> Any:
    return lambda request, body: request.send_error(code)


def broken_off(request: BaseHTTPRequestHandler, body: bytes) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body[: len(body) // 2])


def reset(request: BaseHTTPRequestHandler, body: bytes) -> None:
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    request.connection.close()


def test_a_download_leaves_the_whole_file_and_nothing_else(
    served: Any, tmp_path: Path, waits: Waits
) -> None:
    folder = tmp_path / "a" / "raw"
    assert fetch(FILE, folder, [served.url + "/"], waits.patience()) == CONTENT
    assert everything_in(folder) == ["set-ubyte"]
    assert (folder / "set-ubyte").read_bytes() == CONTENT
    assert stored(FILE, folder) == (CONTENT, None)
    assert waits == []


@pytest.mark.parametrize("failure", [status(500), status(503), status(429), broken_off, reset])
def test_what_may_pass_is_tried_again(
    served: Any, tmp_path: Path, waits: Waits, failure: Any
) -> None:
    served.answers = [failure, failure]
    assert fetch(FILE, tmp_path, [served.url], waits.patience()) == CONTENT
    assert waits == [0.5, 1.0]


def test_a_connection_that_always_breaks_is_given_up(
    served: Any, tmp_path: Path, waits: Waits
) -> None:
    served.answers = [broken_off] * 3
    with pytest.raises(DownloadError, match=r"broke off after \d+ of \d+ bytes"):
        fetch(FILE, tmp_path, [served.url], waits.patience())
    assert len(served.asked) == 3
    assert everything_in(tmp_path) == []


def test_a_body_without_length_that_ends_early_is_not_taken(
    served: Any, tmp_path: Path, waits: Waits
) -> None:
    def early(request: BaseHTTPRequestHandler, body: bytes) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(body[:-5])

    served.answers = [early] * 3
    with pytest.raises(DownloadError, match="incomplete or damaged"):
        fetch(FILE, tmp_path, [served.url], waits.patience())
    assert everything_in(tmp_path) == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (gzip.compress(CONTENT[:-1] + b"!"), "checksum differs"),
        (gzip.compress(CONTENT + b"!"), "expected 102,400"),
        (gzip.compress(bytes(10**7)), "expected 102,400"),
        (os.urandom(200_000), "more than the 112,896 bytes it can have"),
        (b"<html>sign in first</html>", "26 bytes, expected 102,400"),
    ],
    ids=["changed", "longer", "bomb", "endless", "portal"],
)
def test_another_content_is_refused_at_once(
    served: Any, tmp_path: Path, waits: Waits, body: bytes, says: str
) -> None:
    served.files["set-ubyte.gz"] = body
    with pytest.raises(DownloadError, match=says):
        fetch(FILE, tmp_path, [served.url], waits.patience())
    assert len(served.asked) == 1
    assert everything_in(tmp_path) == []


def test_the_next_mirror_is_asked(served: Any, tmp_path: Path, waits: Waits) -> None:
    mirrors = ["http://127.0.0.1:1/closed", "ftp://old", "http://[bad", served.url]
    assert fetch(FILE, tmp_path, mirrors, waits.patience()) == CONTENT


def test_a_recompressed_or_plain_copy_is_as_good(served: Any, tmp_path: Path) -> None:
    for body in (gzip.compress(CONTENT, 1), CONTENT):
        served.files["set-ubyte.gz"] = body
        assert fetch(FILE, tmp_path, [served.url]) == CONTENT


def test_without_a_file_or_a_server_the_error_says_what_to_do(
    mirror: Any, tmp_path: Path, waits: Waits
) -> None:
    mirrors = [mirror.url, "http://127.0.0.1:1"]
    with pytest.raises(DownloadError) as caught:
        fetch(FILE, tmp_path, mirrors, waits.patience(attempts=2))
    message, hint = caught.value.message, str(caught.value.hint)
    assert "cannot download set-ubyte" in message
    assert f"{mirror.url}/set-ubyte.gz: HTTP 404 Not Found" in message
    assert "http://127.0.0.1:1/set-ubyte.gz: " in message
    assert "\n" not in message + hint
    assert "[data] mirror" in hint and str(tmp_path) in hint and "source = digits" in hint


def test_a_silent_server_is_left(served: Any, tmp_path: Path, waits: Waits) -> None:
    released = threading.Event()
    served.answers = [lambda request, body: released.wait(30)]
    try:
        with pytest.raises(DownloadError, match="timed out"):
            fetch(FILE, tmp_path, [served.url], waits.patience(attempts=1, timeout=0.1))
    finally:
        released.set()


def test_a_dripping_server_meets_the_deadline(served: Any, tmp_path: Path, waits: Waits) -> None:
    seconds = iter(range(0, 10_000, 400))
    patience = waits.patience(attempts=1, clock=lambda: float(next(seconds)))
    served.files["set-ubyte.gz"] = gzip.compress(os.urandom(100_000))

    def drip(request: BaseHTTPRequestHandler, body: bytes) -> None:
        request.send_response(200)
        request.end_headers()
        for start in range(0, len(body), 20_000):
            request.wfile.write(body[start : start + 20_000])

    served.answers = [drip]
    with pytest.raises(DownloadError, match="not done after 600 s"):
        fetch(FILE, tmp_path, [served.url], patience)


def test_a_login_is_sent_and_not_shown(served: Any, tmp_path: Path, waits: Waits) -> None:
    url = served.url.replace("://", "://ann:s%40crt@")
    fetch(FILE, tmp_path, [url], waits.patience())
    assert served.headers[0]["Authorization"] == "Basic YW5uOnNAY3J0"
    served.files.clear()
    with pytest.raises(DownloadError) as caught:
        fetch(FILE, tmp_path, [url], waits.patience())
    assert "s%40crt" not in str(caught.value) and "s@crt" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_named(served: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match=f"cannot write into {tmp_path}/file/raw"):
        fetch(FILE, tmp_path / "file" / "raw", [served.url])
    assert served.asked == []


@pytest.mark.parametrize(
    ("name", "data"), [("set-ubyte", CONTENT), ("set-ubyte.gz", PACKED), ("set-ubyte", PACKED)]
)
def test_a_file_put_by_hand_is_taken(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    assert stored(FILE, tmp_path) == (CONTENT, None)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("set-ubyte", CONTENT[:-1]),
        ("set-ubyte", CONTENT[:-1] + b"!"),
        ("set-ubyte.gz", PACKED[: len(PACKED) // 2]),
        ("set-ubyte.gz", b""),
    ],
)
def test_a_part_is_never_taken_for_the_whole(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    content, reason = stored(FILE, tmp_path)
    assert content is None
    assert reason is not None and reason.startswith(str(tmp_path / name))


def test_the_good_one_of_two_files_is_taken(tmp_path: Path) -> None:
    (tmp_path / "set-ubyte").write_bytes(b"half")
    (tmp_path / "set-ubyte.gz").write_bytes(PACKED)
    assert stored(FILE, tmp_path) == (CONTENT, None)


def test_parts_of_killed_processes_are_swept_when_they_are_old(served: Any, tmp_path: Path) -> None:
    old, new = tmp_path / ".set-ubyte.1.aa.part", tmp_path / ".set-ubyte.2.bb.part"
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    fetch(FILE, tmp_path, [served.url])
    assert everything_in(tmp_path) == [new.name, "set-ubyte"]


CHILD = """
import sys
from pathlib import Path
from mindtrace.data.download import RemoteFile, fetch
name, size, sha256, folder, url = sys.argv[1:]
fetch(RemoteFile(name, int(size), sha256), Path(folder), [url])
assert "torch" not in sys.modules
"""


def child(folder: Path, url: str, file: RemoteFile = FILE) -> subprocess.Popen[bytes]:
    words = [str(word) for word in (*astuple(file), folder, url)]
    return subprocess.Popen([sys.executable, "-c", CHILD, *words])


def test_processes_that_fetch_at_once_do_not_hurt_each_other(served: Any, tmp_path: Path) -> None:
    together = threading.Barrier(4)

    def halves(request: BaseHTTPRequestHandler, body: bytes) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(body[:100])
        request.wfile.flush()
        together.wait(30)
        request.wfile.write(body[100:])

    served.answers = [halves] * 4
    children = [child(tmp_path, served.url) for _ in range(4)]
    assert [process.wait(60) for process in children] == [0, 0, 0, 0]
    assert everything_in(tmp_path) == ["set-ubyte"]
    assert stored(FILE, tmp_path) == (CONTENT, None)


def test_a_killed_download_leaves_nothing_that_looks_whole(served: Any, tmp_path: Path) -> None:
    half_sent, released = threading.Event(), threading.Event()

    def stuck(request: BaseHTTPRequestHandler, body: bytes) -> None:
        broken_off(request, body)
        request.wfile.flush()
        half_sent.set()
        released.wait(30)

    served.answers = [stuck]
    process = child(tmp_path, served.url)
    try:
        assert half_sent.wait(30)
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
    finally:
        released.set()
    assert stored(FILE, tmp_path) == (None, None)
    assert fetch(FILE, tmp_path, [served.url]) == CONTENT
