"""`mindtrace serve` as a process, and clients that ask it: whole requests, or byte by byte."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from tests.application.conftest import PATIENCE, PNG, png


@contextlib.contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Python with this command, until the end of the block; its outputs are pipes."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    process = subprocess.Popen([sys.executable, *command], text=True, **options)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def serve(*args: str, **options: Any) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    return started(["-m", "mindtrace", "serve", "--port", "0", "--json", *args], **options)


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()
    return str(json.loads(line)["url"])


def ask(url: str, **headers: str) -> httpx.Response:
    with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
        return client.post(f"{url}/inference", content=png(200), headers={**PNG, **headers})


def end(process: subprocess.Popen[str], signum: int = signal.SIGTERM) -> tuple[int, str]:
    process.send_signal(signum)
    _, err = process.communicate(timeout=PATIENCE)
    return process.returncode, err


@dataclass
class Answer:
    """One answer, taken apart."""

    status: int
    headers: dict[str, str]
    body: bytes

    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json"
        document: dict[str, Any] = json.loads(self.body)
        assert document["status"] == self.status
        assert document["request_id"] == self.headers["x-request-id"]
        return document


class Wire:
    """A connection, byte by byte."""

    def __init__(self, client: httpx.Client) -> None:
        address = client.base_url.host, client.base_url.port or 80
        self.host = b"%s:%d" % (address[0].encode(), address[1])
        self.socket = socket.create_connection(address, timeout=PATIENCE)
        self.file = self.socket.makefile("rb")

    def send(self, data: bytes) -> Wire:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)
        return self

    def request(self, line: str, *headers: str, body: bytes = b"") -> Wire:
        return self.send(self.text(line, *headers) + body)

    def text(self, line: str, *headers: str, version: str = "1.1") -> bytes:
        lines = "".join(f"{header}\r\n" for header in headers).encode("latin-1")
        first = f"{line} HTTP/{version}".encode("latin-1")
        return b"%s\r\nHost: %s\r\n%s\r\n" % (first, self.host, lines)

    def answer(self) -> Answer:
        first = self.file.readline()
        assert first.startswith(b"HTTP/1.1 "), first
        headers: dict[str, str] = {}
        while (line := self.file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        body = self.file.read(int(headers.get("content-length", "0")))
        return Answer(int(first.split()[1]), headers, body)

    def refusal(self, status: int) -> dict[str, Any]:
        """The last answer: a problem document, after which nothing comes."""
        answer = self.answer()
        assert answer.status == status
        assert answer.headers["connection"] == "close"
        self.ends()
        return answer.problem()

    def ends(self) -> None:
        with contextlib.suppress(ConnectionResetError):
            assert self.file.read() == b""

    def close(self) -> None:
        self.file.close()
        self.socket.close()
