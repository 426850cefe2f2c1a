"""`predict --url`: a real server, and servers that misbehave on purpose."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.application.conftest import Serve, png
from tests.service.conftest import no_stdin

from mindtrace.config.settings import Settings, load_settings
from mindtrace.errors import ConflictError, ImageError, MindtraceError, UsageError
from mindtrace.preprocess import encode_png
from mindtrace.service import remote
from mindtrace.service.predict import (
    Document,
    until_failure,
)
from mindtrace.service.remote import Link, predict_remote

Say = tuple[int, dict[str, str], bytes]


@pytest.fixture(scope="module")
def url(module_settings: Settings, bundle: Path, serve: Serve) -> Iterator[str]:
    """Where a real server answers with the small model."""
    with serve(module_settings, str(bundle)) as client:
        yield str(client.base_url)


@pytest.fixture
def odd() -> Iterator[Callable[..., str]]:
    """`odd(say)`: the URL of a server that answers each body with what `say` returns."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(say: Callable[[int, bytes], Say | None]) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                server.asked += 1
                told = say(server.asked, body)
                if told is None:
                    self.close_connection = True
                    return
                status, headers, content = told
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.asked = 0
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


_BEST = {"label": 1, "class_name": "1", "confidence": 1.0}
_FIELDS = {"probabilities": [0.0, 1.0], "top_k": [_BEST], "model_name": "m", "version": 2}
ROW: Say = 200, {}, json.dumps({**_BEST, **_FIELDS}).encode()


def _problem(status: int, detail: str, **headers: str) -> Say:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, named, json.dumps({"detail": detail, "status": status}).encode()


def _ask(url: str, files: list[str], top_k: int = 1) -> list[Document]:
    return list(predict_remote(Link(url), files, top_k=top_k, stdin=no_stdin))


def test_bad_files_hurt_themselves_alone(url: str, files: list[str], tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    names = ["text.png", "missing.png", "empty.png"]
    mixed = [files[0], *[str(tmp_path / name) for name in names], files[200]]
    found = _ask(url, mixed)
    assert [one["path"] for one in found] == mixed
    assert ["label" in one for one in found] == [True, False, False, False, True]
    with pytest.raises(ImageError, match=r"text\.png: not an image"):
        list(until_failure(_ask(url, mixed)))


def test_large_images(url: str, files: list[str], tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1200), np.uint8)
    large, too_large = tmp_path / "large.png", tmp_path / "too_large.png"
    large.write_bytes(encode_png(noise))
    too_large.write_bytes(png(200) + bytes(17 * 2**20))
    found = _ask(url, [files[0], str(large), files[1], str(too_large), files[2]])
    assert ["label" in one for one in found] == [True, True, True, False, True]
    assert "longer than" in found[3]["error"]["message"]


def test_one_image_from_standard_input(url: str) -> None:
    (one,) = predict_remote(Link(url), ["-"], stdin=lambda: png(255))
    assert (one["path"], one["class_name"]) == ("-", "bright")


def test_a_token_is_sent(tmp_path: Path, bundle: Path, serve: Serve, files: list[str]) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    sets = [f"DIR_PATHS.ROOT={tmp_path}", f"serve.token_file={tmp_path / 'token'}"]
    with serve(load_settings(sets=sets, environ={}), str(bundle)) as client:
        there = str(client.base_url)
        (found,) = predict_remote(Link(there, b"s3cret"), files[:1], stdin=no_stdin)
        assert "label" in found
        with pytest.raises(UsageError, match="the token is wrong") as caught:
            list(predict_remote(Link(there, b"other"), files[:1], stdin=no_stdin))
        assert str(caught.value.hint).startswith("--token-file FILE")


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were waited for a busy server."""
    seconds: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", seconds.append)
    return seconds


def test_a_busy_server_is_asked_again(odd: Any, files: list[str], waited: list[float]) -> None:
    busy = _problem(503, "busy", Retry_After="1")
    url = odd(lambda asked, _: ROW if asked > 2 else busy)
    assert len(_ask(url, files[:3])) == 3
    assert waited == [1.0, 1.0]


def test_a_server_that_stays_busy(odd: Any, files: list[str], waited: list[float]) -> None:
    url = odd(lambda *_: _problem(503, "the queue is full", Retry_After="3600"))
    with pytest.raises(ConflictError, match="the queue is full"):
        _ask(url, files[:3])
    assert waited == [remote.LONGEST_WAIT] * (remote.TRIES - 1)


def test_a_connection_that_was_closed_is_opened_again(odd: Any, files: list[str]) -> None:
    url = odd(lambda asked, _: None if asked == 2 else ROW)
    assert len(_ask(url, files[:4])) == 4


def test_a_server_that_closes_every_connection(odd: Any, files: list[str]) -> None:
    with pytest.raises(MindtraceError, match=r"no answer from http://127\.0\.0\.1"):
        _ask(odd(lambda *_: None), files[:3])


@pytest.mark.parametrize(
    ("told", "kind", "message"),
    [
        (_problem(401, "a token is needed"), UsageError, "a token is needed"),
        (_problem(403, "not from there"), UsageError, "not from there"),
        (_problem(421, "not this name"), UsageError, "not this name"),
        (_problem(503, "no version yet"), ConflictError, "no version yet"),
        (_problem(415, "not this type"), MindtraceError, "answers 415"),
        (_problem(404, "nothing there"), MindtraceError, "answers 404"),
        (_problem(500, "the server failed"), MindtraceError, "the server failed"),
        ((200, {}, b"<html>"), MindtraceError, "no JSON object"),
        ((200, {}, b'{"label": 1}'), MindtraceError, "otherwise than a mindtrace server"),
        ((302, {"Location": "/x"}, b"{}"), MindtraceError, "answers 302"),
    ],
)
def test_a_refusal_becomes_one_error(
    odd: Any, files: list[str], told: Say, kind: type[MindtraceError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        _ask(odd(lambda *_: told), files[:1])
    assert type(caught.value) is kind
    assert caught.value.hint or told[0] in (403, 421, 500)  # theirs is the hint, if any


@pytest.mark.parametrize(
    "url",
    [
        *("127.0.0.1:8000", "ftp://host", "http://", "http://host:0", "http://host:99999"),
        *("http://host:x", "http://me:secret@host", "http://host?token=secret", "http://ho st"),
        *("http://host/\r\nX: y", "http://[::1", "http://höst"),
    ],
)
def test_what_is_no_url_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        Link(url)
    assert "secret" not in caught.value.message
    assert caught.value.hint
