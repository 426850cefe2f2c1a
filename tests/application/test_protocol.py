"""Clients that are slow, long, many or make no sense, on raw sockets against real uvicorn."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from tests.application.conftest import Serve, png
from tests.application.servers import Wire

from mindtrace.application.protocol import MAX_PIPELINED
from mindtrace.config.settings import load_settings

PATIENCE = 30.0  # seconds: until a server that does not answer fails its test
BIG = 32 * 1024 * 1024  # more than the kernel keeps for a client that does not read
CHUNK = b"400\r\n" + b"x" * 1024 + b"\r\n"
LIMITS = (
    *("serve.max_header=2 KiB", "serve.max_body=64 KiB", "serve.max_retrain_body=4 KiB"),
    *("serve.header_timeout=0.6", "serve.body_timeout=0.8"),
)
TYPE = "Content-Type: x/y"
CHUNKED = "Transfer-Encoding: chunked"


def drip(wire: Wire, data: bytes, every: float = 0.1) -> None:
    """A byte at a time, for as long as somebody takes it, but not for ever."""
    deadline = time.monotonic() + PATIENCE
    wire.socket.settimeout(0.001)
    while time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError):
            wire.socket.recv(1, socket.MSG_PEEK)
            break  # an answer or the end is there
        try:
            wire.socket.send(data)
        except (BrokenPipeError, ConnectionResetError):
            break
        time.sleep(every)
    else:
        raise AssertionError("it may drip for ever")
    wire.socket.settimeout(PATIENCE)


class Lines(contextlib.ExitStack):
    """Opens connections, and closes them at the end of a test."""

    def __init__(self, client: httpx.Client) -> None:
        super().__init__()
        self.client = client

    def open(self) -> Wire:
        wire = Wire(self.client)
        self.callback(wire.close)
        return wire


# What the streams of a test have seen.
ENDED = threading.Event()


def add_routes(application: Any) -> None:
    """Answers that take their time, or are long."""

    async def echo(request: Any) -> Response:
        body = await request.body()
        return PlainTextResponse(f"{request.url.path} {len(body)} {dict(request.headers)}")

    async def early(request: Any) -> Response:
        return PlainTextResponse("not read")

    async def slow(request: Any) -> Response:
        await asyncio.sleep(1.3)
        return PlainTextResponse("slow")

    async def big(request: Any) -> Response:
        return Response(b"x" * BIG)

    async def quiet(request: Any) -> Response:
        async def events() -> AsyncIterator[str]:
            try:
                yield "data: 1\n\n"
                await asyncio.sleep(1.3)
                yield "data: 2\n\n"
                await asyncio.sleep(PATIENCE)
            finally:
                ENDED.set()

        return StreamingResponse(events(), media_type="text/event-stream")

    for route in (slow, big, quiet):
        application.router.add_route(f"/{route.__name__}", route, methods=["GET"])
    for route in (echo, early):
        application.router.add_route(f"/{route.__name__}", route, methods=["GET", "POST"])
    application.router.add_route("/echo/{rest}", echo, methods=["GET", "POST"])


@pytest.fixture(scope="module")
def client(
    serve: Serve, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    root = f"DIR_PATHS.ROOT={tmp_path_factory.mktemp('root')}"
    settings = load_settings(sets=[root, *LIMITS], environ={})
    with serve(settings, str(bundle), change=add_routes) as client:
        yield client


@pytest.fixture
def lines(client: httpx.Client) -> Iterator[Lines]:
    with Lines(client) as opened:
        yield opened


@pytest.fixture
def wire(lines: Lines) -> Wire:
    return lines.open()


# Slow.


def test_who_says_nothing_is_left(wire: Wire) -> None:
    start = time.monotonic()
    wire.ends()
    assert 0.5 < time.monotonic() - start < PATIENCE


@pytest.mark.parametrize(
    ("first", "drop"),
    [
        ("GET /echo", None),
        (b"GET /echo HTTP/1.1\r\nX: ", b"a"),
        (b"GET /", b"a"),
        (b"", b"\r\n"),
        (b"", b"\n"),
    ],
)
def test_a_head_that_stops_or_drips(wire: Wire, first: str | bytes, drop: bytes | None) -> None:
    wire.send(first if isinstance(first, bytes) else wire.text(first)[:-2])
    if drop is not None:
        drip(wire, drop)
    assert "head" in wire.refusal(408)["detail"]


def test_empty_lines_that_drip_between_requests(wire: Wire) -> None:
    for _ in range(2):
        assert wire.request("GET /echo").answer().status == 200
    drip(wire, b"\r\n")
    wire.refusal(408)


@pytest.mark.parametrize(
    ("header", "first", "drop"),
    [
        ("Content-Length: 10", b"12345", None),
        ("Content-Length: 60000", b"", b"x"),
        (CHUNKED, b"", b"1\r\nx\r\n"),
    ],
)
def test_a_body_that_stops_or_drips(
    wire: Wire, header: str, first: bytes, drop: bytes | None
) -> None:
    wire.request("POST /echo", TYPE, header, body=first)
    if drop is not None:
        drip(wire, drop)
    assert "body" in wire.refusal(408)["detail"]


def test_a_body_that_drips_after_its_answer(wire: Wire) -> None:
    wire.request("POST /early", TYPE, "Content-Length: 60000")
    assert wire.answer().body == b"not read"
    drip(wire, b"x")
    wire.ends()


def test_an_answer_may_take_longer_than_a_question(wire: Wire) -> None:
    assert wire.request("GET /slow").answer().body == b"slow"
    assert wire.request("GET /echo").answer().status == 200


def test_a_stream_may_be_quiet(wire: Wire) -> None:
    wire.request("GET /quiet")
    assert wire.answer().headers["content-type"].startswith("text/event-stream")
    assert [wire.file.readline() for _ in range(4)][1] == b"data: 1\n"
    assert [wire.file.readline() for _ in range(4)][1] == b"data: 2\n"


def test_who_does_not_take_his_answer_is_left(wire: Wire) -> None:
    wire.request("GET /big")
    time.sleep(1.8)  # longer than the deadline, at which there is nothing to be seen
    seen = 0
    with contextlib.suppress(ConnectionResetError):
        while piece := wire.file.read(1 << 16):
            seen += len(piece)
    assert seen < BIG


def test_a_long_answer_that_is_read_in_time(wire: Wire) -> None:
    assert len(wire.request("GET /big").answer().body) == BIG
    assert wire.request("GET /echo").answer().status == 200


# Long.


@pytest.mark.parametrize("headers", [1, 400])
@pytest.mark.parametrize("pieces", [1, 3])
def test_a_long_head(wire: Wire, headers: int, pieces: int) -> None:
    length = 4000 // headers
    text = wire.text("GET /echo", *(f"X-{i}: {'x' * length}" for i in range(headers)))
    size = -(-len(text) // pieces)
    for start in range(0, len(text), size):
        wire.send(text[start : start + size])
        time.sleep(0.01)
    assert "2,048" in wire.refusal(431)["detail"]


def test_a_head_that_does_not_end(wire: Wire) -> None:
    wire.send(b"GET /echo HTTP/1.1\r\nX: " + b"x" * 65_536)
    wire.refusal(431)


def test_a_long_path(wire: Wire) -> None:
    wire.request(f"GET /{'x' * 3000}").refusal(431)


def test_a_head_of_just_the_right_length(wire: Wire) -> None:
    body = b"x" * 60_000  # in the same piece, and not counted
    line = ("POST /echo", TYPE, "Content-Length: 60000")
    long = 2048 - len(wire.text(*line)) - len("X: ")
    for _ in range(2):
        answer = wire.request(*line, f"X: {'x' * long}", body=body).answer()
        assert answer.body.startswith(b"/echo 60000 ")
    wire.request(*line, f"X: {'x' * (long + 60)}", body=body)
    wire.refusal(431)


def test_a_long_head_behind_another_request(wire: Wire) -> None:
    wire.send(wire.text("GET /echo") + wire.text("GET /echo", f"X: {'x' * 3000}"))
    assert wire.answer().status == 200
    wire.refusal(431)


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        ("/echo", 64 * 1024, 200),
        ("/echo", 64 * 1024 + 1, 413),
        ("/echo", 10**15, 413),
        ("/echo", 18446744073709551615, 413),
        ("/retrain", 4 * 1024 + 1, 413),
    ],
)
def test_a_long_body_that_says_so(wire: Wire, path: str, size: int, status: int) -> None:
    wire.request(
        f"POST {path}",
        "Content-Type: application/json",
        f"Content-Length: {size}",
        body=b"x" * min(size, 70_000),
    )
    answer = wire.answer()
    assert answer.status == status
    if status == 413:
        assert answer.headers["connection"] == "close"
        assert "longer than" in answer.problem()["detail"]


@pytest.mark.parametrize(("path", "size"), [("/echo", 65), ("/retrain", 5)])
def test_a_long_body_in_chunks(wire: Wire, path: str, size: int) -> None:
    wire.request(f"POST {path}", "Content-Type: application/json", CHUNKED)
    wire.send(CHUNK * size)
    answer = wire.answer()
    assert answer.status == 413
    assert "longer than" in answer.problem()["detail"]


def test_a_long_body_after_its_answer(wire: Wire) -> None:
    wire.request("POST /early", TYPE, CHUNKED)
    assert wire.answer().body == b"not read"
    wire.send(CHUNK * 700)
    wire.ends()


@pytest.mark.parametrize("padding", [b"1;" + b"x" * 9000, b"1\r\nx\r\n0\r\nX: " + b"x" * 9000])
def test_padding_between_chunks_and_after_them(wire: Wire, padding: bytes) -> None:
    wire.request("POST /echo", TYPE, CHUNKED)
    for start in range(0, len(padding), 500):
        wire.send(padding[start : start + 500])
        time.sleep(0.002)
    wire.refusal(431)


def test_trailers_are_no_headers(wire: Wire) -> None:
    wire.request(
        "POST /echo",
        TYPE,
        CHUNKED,
        body=b"1\r\nx\r\n0\r\nX-Request-ID: evil\r\nContent-Type: text/plain\r\n\r\n",
    )
    answer = wire.answer()
    assert answer.status == 200
    assert b"evil" not in answer.body
    assert answer.headers["x-request-id"] != "evil"
    assert wire.request("GET /echo").answer().status == 200


# Many.


def test_too_many_connections(start: Serve) -> None:
    limits = (*LIMITS, "serve.max_connections=3", "serve.header_timeout=10")
    with start(*limits, change=add_routes) as client, Lines(client) as lines:
        kept = [lines.open() for _ in range(3)]
        for wire in kept:
            assert wire.request("GET /echo").answer().status == 200
        for _ in range(5):
            answer = lines.open().answer()
            assert answer.status == 503
            assert answer.headers["retry-after"] == "1"
            assert answer.problem()["type"].endswith("too-many-connections")
        asked = lines.open().request("GET /echo")  # who asks at once hears it too
        assert asked.answer().status == 503
        kept[0].close()
        deadline = time.monotonic() + PATIENCE
        while lines.open().request("GET /echo").answer().status != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert kept[1].request("GET /echo").answer().status == 200


# Without sense.

MALFORMED = {
    "no method": b"HELLO\r\n\r\n",
    "small letters": b"get / HTTP/1.1\r\n\r\n",
    "another version": b"GET / HTTP/9.9\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "NUL in a path": b"GET /\0 HTTP/1.1\r\n\r\n",
    "high bytes in a path": b"GET /\xff HTTP/1.1\r\n\r\n",
    "no path": b"GET ?x HTTP/1.1\r\n\r\n",
    "CONNECT": b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    "lines without CR": b"GET / HTTP/1.1\nHost: a\n\n",
    "NUL in a header": b"GET / HTTP/1.1\r\nX: a\0b\r\n\r\n",
    "NUL in a name": b"GET / HTTP/1.1\r\nX\0: a\r\n\r\n",
    "CR in a header": b"GET / HTTP/1.1\r\nX: a\rb\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n",
    "space before a colon": b"GET / HTTP/1.1\r\nX : a\r\n\r\n",
    "length and chunks": b"POST / HTTP/1.1\r\nContent-Length: 3\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "a negative length": b"POST / HTTP/1.1\r\nContent-Length: -3\r\n\r\n",
    "a signed length": b"POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc",
    "a huge length": b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    "no length": b"POST / HTTP/1.1\r\nContent-Length: \r\n\r\n",
    "an unknown coding": b"POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked, then gzip": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "a chunk of letters": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a negative chunk": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
    "a huge chunk": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    "a chunk too long": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_malformed(lines: Lines, data: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    lines.open().send(data).refusal(400)
    behind = lines.open()
    behind.send(behind.text("GET /echo/first") + data)
    assert behind.answer().body.startswith(b"/echo/first ")
    behind.refusal(400)
    assert capfd.readouterr().err == ""


def test_a_client_that_goes_away(start: Serve, capfd: pytest.CaptureFixture[str]) -> None:
    content = json.dumps({"image": base64.b64encode(png(200)).decode()}).encode()
    with start(*LIMITS, change=add_routes) as client, Lines(client) as lines:
        for cut in range(1, 400, 37):
            wire = lines.open()
            head = ("Content-Type: application/json", f"Content-Length: {len(content)}")
            wire.send((wire.text("POST /inference", *head) + content)[:cut]).close()
        assert lines.open().request("GET /echo").answer().status == 200
    assert capfd.readouterr().err == ""


# In a row.


def test_pipelining(wire: Wire) -> None:
    texts = [wire.text(f"GET /echo/{i}") for i in range(5)]
    chunks = wire.text("POST /echo/5", TYPE, CHUNKED)
    texts.append(chunks + b"3\r\nabc\r\n0\r\n\r\n")
    texts.append(wire.text("POST /echo/6", TYPE, "Content-Length: 2") + b"ab")
    everything = b"".join(texts)
    for size in (len(everything), 7):
        for start in range(0, len(everything), size):
            wire.send(everything[start : start + size])
        for i, length in enumerate([0, 0, 0, 0, 0, 3, 2]):
            assert wire.answer().body.startswith(b"/echo/%d %d " % (i, length))


def test_answers_keep_their_order(wire: Wire) -> None:
    wire.send(wire.text("GET /slow") + wire.text("GET /echo/2") + b"nonsense\r\n\r\n")
    assert wire.answer().body == b"slow"
    assert wire.answer().body.startswith(b"/echo/2 ")
    wire.refusal(400)


def test_too_many_requests_in_a_row(wire: Wire) -> None:
    wire.send(wire.text("GET /echo") * (10 * MAX_PIPELINED))
    for _ in range(MAX_PIPELINED + 1):
        assert wire.answer().status == 200
    wire.refusal(400)


def test_nobody_waits_for_a_stream_that_stood_before_others(lines: Lines) -> None:
    ENDED.clear()
    wire = lines.open()
    wire.send(wire.text("GET /quiet") + wire.text("GET /echo") * 3)
    assert wire.answer().status == 200
    wire.close()
    assert ENDED.wait(PATIENCE)


def test_a_server_that_stops_waits_for_answers(start: Serve) -> None:
    with contextlib.ExitStack() as opened:
        with start(*LIMITS, change=add_routes) as client:
            slow, idle = (Wire(client) for _ in range(2))
            for wire in (slow, idle):
                opened.callback(wire.close)
            slow.request("GET /slow")
            assert idle.request("GET /echo").answer().status == 200
            begun = time.monotonic()
        assert time.monotonic() - begun < PATIENCE / 2
        answer = slow.answer()
        assert (answer.body, answer.headers["connection"]) == (b"slow", "close")
        idle.ends()


# Other wishes.


def test_websockets_are_refused(wire: Wire, capfd: pytest.CaptureFixture[str]) -> None:
    wire.request(
        "GET /",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )
    assert "WebSocket" in wire.refusal(400)["detail"]
    assert capfd.readouterr().err == ""


def test_who_asks_for_http2_is_answered_in_ours(wire: Wire) -> None:
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEA")
    for line, body, size in (
        (("GET /echo",), b"", 0),
        (("POST /echo", TYPE, "Content-Length: 3"), b"abc", 3),
        (("POST /echo", TYPE, CHUNKED), b"2\r\nab\r\n0\r\n\r\n", 2),
    ):
        answer = wire.request(*line, *upgrade, body=body).answer()
        assert answer.body.startswith(b"/echo %d " % size)
        assert b"h2c" not in answer.body
        assert "connection" not in answer.headers
    wire.request("CONNECT a:1").refusal(400)


def test_a_client_that_asks_before_it_sends(wire: Wire) -> None:
    line = (TYPE, "Content-Length: 3", "Expect: 100-continue")
    wire.request("POST /echo", *line)
    assert wire.answer().status == 100
    assert wire.send(b"abc").answer().body.startswith(b"/echo 3 ")
    wire.request("POST /early", *line)
    assert wire.answer().body == b"not read"
    wire.ends()
