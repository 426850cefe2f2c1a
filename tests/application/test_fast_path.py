"""The fast path answers as the full one does, to the field, and only what it may."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import io
import itertools
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from tests.application.conftest import CLASSES, Serve, png

from mindtrace.application import inference
from mindtrace.config.settings import Settings, load_settings
from mindtrace.errors import ImageError

JSON = {"content-type": "application/json"}
# A header that the fast path does not know: whoever sends it takes the full path.
LONG = {**JSON, "x-unknown": "1"}


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def saved(mode: str, size: int, kind: str) -> bytes:
    buffer = io.BytesIO()
    draw = np.random.default_rng(len(mode) * size)
    pixels = draw.integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


class Ways:
    """A server, and by which way its last request to /inference went."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.short: bool | None = None

    def ask(self, body: bytes, headers: dict[str, str]) -> httpx.Response:
        self.short = None
        return self.client.post("/inference", content=body, headers=headers)

    def both(self, body: bytes) -> tuple[httpx.Response, httpx.Response, bool | None]:
        """The answers of the fast path, if it takes the body, and of the full one."""
        given = {"x-request-id": "the-same"}
        first = self.ask(body, {**JSON, **given})
        short = self.short
        second = self.ask(body, {**LONG, **given})
        assert not self.short
        return first, second, short


@contextlib.contextmanager
def watched(
    serve: Serve, settings: Settings, bundle: Path, change: Callable[[Any], None] = lambda _: None
) -> Iterator[Ways]:
    ways: list[Ways] = []

    def watch(application: Any) -> None:
        change(application)
        inner = application.fast_path

        async def noting(*args: Any) -> Any:
            further = await inner(*args)
            ways[0].short = further is None
            return further

        application.fast_path = noting

    with serve(settings, str(bundle), change=watch) as client:
        ways.append(Ways(client))
        yield ways[0]


@pytest.fixture(scope="module")
def ways(module_settings: Settings, bundle: Path, serve: Serve) -> Iterator[Ways]:
    with watched(serve, module_settings, bundle) as found:
        yield found


IMAGES = {
    **{f"grey {level}": png(level) for level in (0, 1, 127, 128, 255)},
    **{f"{m} {k}": saved(m, 8, k) for m, k in itertools.product(("L", "RGB"), ("PNG", "JPEG"))},
    "webp": saved("RGB", 8, "WEBP"),
    "alpha": saved("RGBA", 8, "PNG"),
    "larger": saved("L", 30, "PNG"),
    "palette": saved("P", 8, "PNG"),
}
BODIES = {
    "plain": '{"image":"%s"}',
    "spaced": '{ "image" : "%s" }\n',
    "one": '{"image": "%s", "top_k": 1}',
    "three": '{"image": "%s","top_k":3}',
    "many": '\t{"image": "%s", "top_k": 999999999}\r\n',
}


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("form", BODIES)
def test_both_paths_answer_the_same(ways: Ways, image: str, form: str) -> None:
    first, second, short = ways.both((BODIES[form] % encoded(IMAGES[image])).encode())

    assert short
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()
    assert list(first.json()) == list(second.json())
    assert first.content == second.content
    names = set(first.headers) - {"date"}
    assert names == set(second.headers) - {"date"}
    assert all(first.headers[name] == second.headers[name] for name in names)


def test_both_paths_answer_the_same_to_every_level(ways: Ways) -> None:
    draw = np.random.default_rng(0)
    for _ in range(200):
        buffer = io.BytesIO()
        Image.fromarray(draw.integers(0, 256, (8, 8), np.uint8)).save(buffer, "PNG")
        first, second, short = ways.both(json.dumps({"image": encoded(buffer.getvalue())}).encode())
        assert short
        assert first.content == second.content


GOOD = encoded(png(200))
ODD = {
    "top_k first": f'{{"top_k": 2, "image": "{GOOD}"}}',
    "top_k null": f'{{"image": "{GOOD}", "top_k": null}}',
    "top_k zero": f'{{"image": "{GOOD}", "top_k": 0}}',
    "top_k leading zero": f'{{"image": "{GOOD}", "top_k": 01}}',
    "top_k float": f'{{"image": "{GOOD}", "top_k": 1.0}}',
    "top_k huge": f'{{"image": "{GOOD}", "top_k": 12345678901234567890}}',
    "top_k true": f'{{"image": "{GOOD}", "top_k": true}}',
    "top_k twice": f'{{"image": "{GOOD}", "top_k": 1, "top_k": 2}}',
    "image twice": f'{{"image": "{GOOD}", "image": "{GOOD}"}}',
    "more": f'{{"image": "{GOOD}", "more": 1}}',
    "escaped letter": f'{{"image": "\\u0069{GOOD[1:]}"}}',
    "escaped name": f'{{"\\u0069mage": "{GOOD}"}}',
    "byte order mark": f'\ufeff{{"image": "{GOOD}"}}',
    "several": f'{{"images": ["{GOOD}"]}}',
    "shown": f'{{"image": "{GOOD}", "show_input": true}}',
    "trailing comma": f'{{"image": "{GOOD}",}}',
    "two objects": f'{{"image": "{GOOD}"}}{{}}',
    "not padded": '{"image": "' + GOOD.rstrip("=")[:-1] + '"}',
    "padding inside": '{"image": "QQ==QQ=="}',
    "empty": '{"image": ""}',
    "no image": '{"image": "QUJD"}',
    "cut": f'{{"image": "{encoded(png(3)[:-25])}"}}',
    "unclosed": f'{{"image": "{GOOD}"',
    "array": f'["{GOOD}"]',
    "nothing": "",
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_not_the_usual_form_goes_the_full_path(ways: Ways, name: str) -> None:
    first, second, short = ways.both(ODD[name].encode())

    assert not short
    assert first.status_code == second.status_code < 500
    assert first.json() == second.json()


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"content-encoding": "gzip"},
        {"expect": "nothing"},
        {"content-type": "application/json; charset=utf-8"},
        {"content-type": "text/plain"},
        {"host": "evil.example"},
    ],
)
def test_heads_that_need_a_thought_go_the_full_path(ways: Ways, headers: dict[str, str]) -> None:
    body = f'{{"image": "{GOOD}"}}'.encode()
    ways.ask(body, {**JSON, **headers})
    assert not ways.short
    assert ways.ask(body, JSON).status_code == 200
    assert ways.short


def test_a_query_and_another_method_go_the_full_path(ways: Ways) -> None:
    body = f'{{"image": "{GOOD}"}}'.encode()
    answer = ways.client.post("/inference?a=b", content=body, headers=JSON)
    assert (answer.status_code, ways.short) == (200, False)
    assert ways.client.put("/inference", content=body, headers=JSON).status_code == 405
    assert not ways.short


def test_ids_are_given_or_echoed(ways: Ways) -> None:
    body = f'{{"image": "{GOOD}"}}'.encode()
    made = [ways.ask(body, JSON) for _ in range(3)]
    ids = {answer.json()["request_id"] for answer in made}
    assert len(ids) == 3
    assert all(len(one) == 32 for one in ids)
    assert all(a.headers["x-request-id"] == a.json()["request_id"] for a in made)
    echoed = ways.ask(body, {**JSON, "x-request-id": "mine-1.2_3"})
    assert ways.short
    assert echoed.headers["x-request-id"] == echoed.json()["request_id"] == "mine-1.2_3"
    strange = ways.ask(body, {**JSON, "x-request-id": "not one"})
    assert ways.short
    assert len(strange.json()["request_id"]) == 32


class Wire:
    """A connection, byte by byte."""

    def __init__(self, client: httpx.Client) -> None:
        self.address = (client.base_url.host, client.base_url.port)
        self.socket = socket.create_connection(self.address, timeout=30)
        self.file = self.socket.makefile("rb")

    def head(self, *lines: str, version: str = "1.1") -> bytes:
        host = f"Host: {self.address[0]}:{self.address[1]}"
        asked = (f"POST /inference HTTP/{version}", host, "Content-Type: application/json", *lines)
        return "\r\n".join((*asked, "", "")).encode()

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        status = int(self.file.readline().split()[1])
        headers: dict[str, str] = {}
        while (line := self.file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return status, headers, self.file.read(int(headers["content-length"]))


@pytest.fixture
def wire(ways: Ways) -> Iterator[Wire]:
    opened = Wire(ways.client)
    with opened.socket, opened.file:
        yield opened


BODY = f'{{"image": "{GOOD}"}}'.encode()
LENGTH = f"Content-Length: {len(BODY)}"


def test_a_body_in_pieces(ways: Ways, wire: Wire) -> None:
    expected = ways.ask(BODY, JSON).json()
    wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for cuts in ((0,), (0, 10), (0, 1, 2, 50)):
        wire.socket.sendall(wire.head(LENGTH))
        pieces = [BODY[a:b] for a, b in zip(cuts, (*cuts[1:], None), strict=True)]
        for piece in pieces:
            # Live answers, so the piece before was read on its own.
            assert ways.client.get("/healthz/live").status_code == 200
            wire.socket.sendall(piece)
        status, _, content = wire.answer()
        assert status == 200
        assert {**json.loads(content), "request_id": ""} == {**expected, "request_id": ""}


def test_chunks_and_continue(wire: Wire) -> None:
    wire.socket.sendall(wire.head("Transfer-Encoding: chunked"))
    wire.socket.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY))
    assert wire.answer()[0] == 200
    wire.socket.sendall(wire.head(LENGTH, "Expect: 100-continue"))
    assert wire.file.readline() == b"HTTP/1.1 100 Continue\r\n"
    assert wire.file.readline() == b"\r\n"
    wire.socket.sendall(BODY)
    assert wire.answer()[0] == 200


def test_requests_in_a_row_are_answered_in_their_order(wire: Wire) -> None:
    ids = [f"row-{number}" for number in range(20)]
    asked = [wire.head(LENGTH, f"X-Request-ID: {one}") + BODY for one in ids]
    # Every third takes the full path.
    asked[::3] = [wire.head(LENGTH, f"X-Request-ID: {one}", "X-A: b") + BODY for one in ids[::3]]
    wire.socket.sendall(b"".join(asked))
    assert [wire.answer()[1]["x-request-id"] for _ in ids] == ids


@pytest.mark.parametrize(
    ("lines", "version", "closes"),
    [((), "1.1", False), (("Connection: close",), "1.1", True), ((), "1.0", True)],
)
def test_the_connection_ends_when_the_client_wants_it(
    ways: Ways, wire: Wire, lines: tuple[str, ...], version: str, closes: bool
) -> None:
    wire.socket.sendall(wire.head(LENGTH, *lines, version=version) + BODY)
    status, headers, _ = wire.answer()
    assert (status, ways.short) == (200, True)
    assert ("connection" in headers) == closes
    if closes:
        assert wire.file.read() == b""
    else:
        wire.socket.sendall(wire.head(LENGTH) + BODY)
        assert wire.answer()[0] == 200


def test_uvicorn_is_given_the_answer_in_one_piece(
    ways: Ways, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer uvicorn that we no longer know would be slower, and nobody would see it."""
    written = []
    inner = inference.write_response

    def noting(*args: Any) -> None:
        written.append(args)
        inner(*args)

    monkeypatch.setattr(inference, "write_response", noting)
    assert ways.ask(BODY, JSON).status_code == 200
    assert len(written) == 1


def test_another_server_is_given_two_messages(module_settings: Settings, bundle: Path) -> None:
    from mindtrace.application.api import load_app

    async def ask() -> httpx.Response:
        base_url = "http://127.0.0.1:8000"
        transport = httpx.ASGITransport(load_app(module_settings, str(bundle)))
        async with httpx.AsyncClient(transport=transport, base_url=base_url) as client:
            client.headers = httpx.Headers()
            return await client.post("/inference", content=BODY, headers=JSON)

    answer = asyncio.run(ask())
    assert answer.status_code == 200
    assert answer.json()["class_name"] == "bright"


def test_any_accident_goes_the_full_path(ways: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    def accident(*_: Any) -> Any:
        raise RuntimeError("of the fast path")

    monkeypatch.setattr(inference, "answer_quickly", accident)
    answer = ways.ask(BODY, JSON)
    assert (answer.status_code, ways.short) == (200, False)


def test_a_token_is_asked_for_on_the_fast_path_too(
    tmp_path: Path, bundle: Path, serve: Serve
) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    sets = [f"DIR_PATHS.ROOT={tmp_path}", f"serve.token_file={tmp_path / 'token'}"]
    with watched(serve, load_settings(sets=sets, environ={}), bundle) as ways:
        right = {**JSON, "authorization": "Bearer s3cret"}
        for _ in range(2):
            assert ways.ask(BODY, right).status_code == 200
            assert ways.short
            for wrong in ("", "Bearer", "Bearer s3cre", "Bearer s3cret2", "Basic s3cret"):
                assert ways.ask(BODY, {**JSON, "authorization": wrong}).status_code == 401
                assert not ways.short
            assert ways.ask(BODY, JSON).status_code == 401
            assert ways.ask(BODY, {**right, "host": "evil.example"}).status_code == 421
        # More heads than are remembered: none is let in by mistake.
        for number in range(600):
            token = f"Bearer s3cret{number}"
            assert ways.ask(BODY, {**JSON, "authorization": token}).status_code == 401
        assert ways.ask(BODY, {**JSON, "authorization": "bearer s3cret"}).status_code == 200


def test_limits_hold_on_the_fast_path_too(tmp_path: Path, bundle: Path, serve: Serve) -> None:
    sets = [f"DIR_PATHS.ROOT={tmp_path}", "serve.max_body=1 KiB", "serve.max_pixels=63"]
    with watched(serve, load_settings(sets=sets, environ={}), bundle) as ways:
        assert ways.ask(BODY, JSON).status_code == 422
        long = BODY + b" " * 1024
        assert ways.ask(long, JSON).status_code == 413
        assert not ways.short


def test_a_large_image_in_a_small_file_is_not_decoded_on_the_loop(ways: Ways) -> None:
    buffer = io.BytesIO()
    Image.new("1", (4000, 4000)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 8000
    first, second, short = ways.both(json.dumps({"image": encoded(buffer.getvalue())}).encode())
    assert not short
    assert first.status_code == 200
    assert first.content == second.content


def heavy(application: Any) -> None:
    """Make the model one that takes its time."""
    application.state.served.model.predictor.__dict__["seconds"] = 0.05


def test_a_model_that_takes_its_time_is_not_run_on_the_loop(
    module_settings: Settings, bundle: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(inference, "answer_quickly", lambda *args: calls.append(args))
    with watched(serve, module_settings, bundle, heavy) as ways:
        assert ways.ask(BODY, JSON).status_code == 200
        assert not ways.short
    with watched(serve, module_settings, bundle) as ways:
        assert ways.ask(BODY, JSON).status_code == 200
    assert len(calls) > 1  # by the light one: its golden images, and this request


def test_one_too_many_is_turned_away_before_its_body(
    module_settings: Settings, bundle: Path, serve: Serve
) -> None:
    """The queue is full: nothing of the body has to be sent to hear of it."""

    def change(application: Any) -> None:
        heavy(application)
        application.state.admission._inside = 10_000

    with serve(module_settings, str(bundle), change=change) as client:
        wire = Wire(client)
        with wire.socket, wire.file:
            wire.socket.sendall(wire.head("Content-Length: 10000000", "X-Request-ID: busy"))
            status, headers, content = wire.answer()
        assert status == 503
        assert headers["retry-after"] == "1"
        assert headers["content-type"] == "application/problem+json"
        assert headers["x-request-id"] == json.loads(content)["request_id"] == "busy"
        slow = client.post("/inference", content=BODY, headers=LONG)
        assert slow.status_code == 503
        assert slow.headers["retry-after"] == "1"
        same = {**json.loads(content), "request_id": ""}
        assert same == {**slow.json(), "request_id": ""}
        text = client.get("/metrics").text
        assert 'mindtrace_requests_total{code="503",route="/inference"} 2.0' in text


def test_answers_without_a_server(module_settings: Settings, bundle: Path) -> None:
    from mindtrace.service.predict import load_model

    model = load_model(module_settings, str(bundle))
    found = inference.answer_quickly(model, BODY, "golden", 64)
    assert found is not None
    class_name, content = found
    fields = json.loads(content)
    assert fields["request_id"] == "golden"
    assert fields["class_name"] == class_name
    assert class_name in CLASSES
    for body in (b"", b"{}"):
        assert inference.answer_quickly(model, body, "golden", 64) is None
    for body in (b'{"image": "QUJD"}', b'{"image": "QUJ"}'):
        with pytest.raises((ImageError, ValueError)):
            inference.answer_quickly(model, body, "golden", 64)
    assert inference.answer_json(model, BODY, 64) == content
    # The full path has no id of its own.
    full = json.loads(inference.answer_json(model, BODY + b" " * 20_000, 64))
    assert {**full, "request_id": "golden"} == fields


def test_the_collector_is_left_as_it_was_found(
    module_settings: Settings, bundle: Path, serve: Serve
) -> None:
    thresholds = gc.get_threshold()
    with serve(module_settings, str(bundle)) as client:
        assert client.get("/healthz/live").status_code == 200
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold()[0] == 50_000
    assert gc.get_threshold() == thresholds
    assert gc.get_freeze_count() == 0
