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
from tests.application.conftest import JSON, Serve, png
from tests.application.servers import Wire

from mindtrace.application import inference
from mindtrace.config.settings import Settings

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
    serving: Callable[..., contextlib.AbstractContextManager[httpx.Client]],
    *args: Any,
    change: Callable[[Any], None] = lambda _: None,
) -> Iterator[Ways]:
    """A server, started by `serving`, that notes the ways of its requests."""
    ways: list[Ways] = []

    def watch(application: Any) -> None:
        change(application)
        inner = application.fast_path

        async def noting(*args: Any) -> Any:
            further = await inner(*args)
            ways[0].short = further is None
            return further

        application.fast_path = noting

    with serving(*args, change=watch) as client:
        ways.append(Ways(client))
        yield ways[0]


@pytest.fixture(scope="module")
def ways(module_settings: Settings, bundle: Path, serve: Serve) -> Iterator[Ways]:
    with watched(serve, module_settings, str(bundle)) as found:
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
    assert first.content == second.content
    names = set(first.headers) - {"date"}
    assert names == set(second.headers) - {"date"}
    assert all(first.headers[name] == second.headers[name] for name in names)


GOOD = encoded(png(200))
BODY = f'{{"image": "{GOOD}"}}'.encode()
POST = ("POST /inference", "Content-Type: application/json")
LENGTH = f"Content-Length: {len(BODY)}"
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
    ways.ask(BODY, {**JSON, **headers})
    assert not ways.short
    assert ways.ask(BODY, JSON).status_code == 200
    assert ways.short


def test_a_query_and_another_method_go_the_full_path(ways: Ways) -> None:
    answer = ways.client.post("/inference?a=b", content=BODY, headers=JSON)
    assert (answer.status_code, ways.short) == (200, False)
    assert ways.client.put("/inference", content=BODY, headers=JSON).status_code == 405
    assert not ways.short


def test_ids_are_given_or_echoed(ways: Ways) -> None:
    made = [ways.ask(BODY, JSON) for _ in range(3)]
    ids = {answer.json()["request_id"] for answer in made}
    assert len(ids) == 3
    assert all(len(one) == 32 for one in ids)
    assert all(a.headers["x-request-id"] == a.json()["request_id"] for a in made)
    echoed = ways.ask(BODY, {**JSON, "x-request-id": "mine-1.2_3"})
    assert ways.short
    assert echoed.headers["x-request-id"] == echoed.json()["request_id"] == "mine-1.2_3"
    strange = ways.ask(BODY, {**JSON, "x-request-id": "not one"})
    assert ways.short
    assert len(strange.json()["request_id"]) == 32


@pytest.fixture
def wire(ways: Ways) -> Iterator[Wire]:
    with contextlib.closing(Wire(ways.client)) as opened:
        yield opened


def test_a_body_in_pieces(ways: Ways, wire: Wire) -> None:
    expected = ways.ask(BODY, JSON).json()
    wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for cuts in ((0,), (0, 10), (0, 1, 2, 50)):
        wire.request(*POST, LENGTH)
        for a, b in zip(cuts, (*cuts[1:], None), strict=True):
            # Live answers, so the piece before was read on its own.
            assert ways.client.get("/healthz/live").status_code == 200
            wire.send(BODY[a:b])
        answer = wire.answer()
        assert answer.status == 200
        assert {**json.loads(answer.body), "request_id": ""} == {**expected, "request_id": ""}


def test_requests_in_a_row_are_answered_in_their_order(wire: Wire) -> None:
    ids = [f"row-{number}" for number in range(20)]
    asked = [wire.text(*POST, LENGTH, f"X-Request-ID: {one}") + BODY for one in ids]
    # Every third takes the full path.
    more = [wire.text(*POST, LENGTH, f"X-Request-ID: {one}", "X-A: b") + BODY for one in ids[::3]]
    asked[::3] = more
    wire.send(b"".join(asked))
    assert [wire.answer().headers["x-request-id"] for _ in ids] == ids


@pytest.mark.parametrize(
    ("lines", "version", "closes"),
    [((), "1.1", False), (("Connection: close",), "1.1", True), ((), "1.0", True)],
)
def test_the_connection_ends_when_the_client_wants_it(
    ways: Ways, wire: Wire, lines: tuple[str, ...], version: str, closes: bool
) -> None:
    answer = wire.send(wire.text(*POST, LENGTH, *lines, version=version) + BODY).answer()
    assert (answer.status, ways.short) == (200, True)
    assert ("connection" in answer.headers) == closes
    if closes:
        wire.ends()
    else:
        assert wire.request(*POST, LENGTH, body=BODY).answer().status == 200


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


def test_another_server_is_given_messages(module_settings: Settings, bundle: Path) -> None:
    from mindtrace.application.api import load_app

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(load_app(module_settings, str(bundle)))
        url = "http://127.0.0.1:8000"
        async with httpx.AsyncClient(transport=transport, base_url=url) as client:
            client.headers = httpx.Headers()
            return await client.post("/inference", content=BODY, headers=JSON)

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.json()["class_name"]) == (200, "bright")


def test_any_accident_goes_the_full_path(ways: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    def accident(*_: Any) -> Any:
        raise RuntimeError("of the fast path")

    monkeypatch.setattr(inference, "answer_quickly", accident)
    answer = ways.ask(BODY, JSON)
    assert (answer.status_code, ways.short) == (200, False)


def test_a_token_is_asked_for_on_the_fast_path_too(token_file: Path, start: Serve) -> None:
    with watched(start, f"serve.token_file={token_file}") as ways:
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
        for number in range(300):
            token = f"Bearer s3cret{number}"
            assert ways.ask(BODY, {**JSON, "authorization": token}).status_code == 401
        assert ways.ask(BODY, {**JSON, "authorization": "bearer s3cret"}).status_code == 200


def test_limits_hold_on_the_fast_path_too(start: Serve) -> None:
    with watched(start, "serve.max_body=1 KiB", "serve.max_pixels=63") as ways:
        assert ways.ask(BODY, JSON).status_code == 422
        assert ways.ask(BODY + b" " * 1024, JSON).status_code == 413
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
    start: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(inference, "answer_quickly", lambda *args: calls.append(args))
    with watched(start, change=heavy) as ways:
        calls.clear()  # by its golden images, before it was heavy
        assert ways.ask(BODY, JSON).status_code == 200
        assert (ways.short, calls) == (False, [])


def test_one_too_many_is_turned_away_before_its_body(start: Serve) -> None:
    """The queue is full: nothing of the body has to be sent to hear of it."""

    def change(application: Any) -> None:
        heavy(application)
        application.state.admission._inside = 10_000

    with start(change=change) as client:
        with contextlib.closing(Wire(client)) as wire:
            wire.request(*POST, "Content-Length: 10000000", "X-Request-ID: busy")
            answer = wire.answer()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        problem = answer.problem()
        assert problem["request_id"] == "busy"
        slow = client.post("/inference", content=BODY, headers=LONG)
        assert (slow.status_code, slow.headers["retry-after"]) == (503, "1")
        assert {**problem, "request_id": ""} == {**slow.json(), "request_id": ""}
        text = client.get("/metrics").text
        assert 'mindtrace_requests_total{code="503",route="/inference"} 2.0' in text


def test_the_collector_is_left_as_it_was_found(start: Serve) -> None:
    thresholds = gc.get_threshold()
    with start() as client:
        assert client.get("/healthz/live").status_code == 200
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold()[0] == 50_000
    assert gc.get_threshold() == thresholds
    assert gc.get_freeze_count() == 0
