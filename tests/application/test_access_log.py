"""One line a request, of what may be written down, and never in the way of an answer."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.application.conftest import Serve, png

from mindtrace.application import middleware
from mindtrace.application.middleware import AccessLog

FIELDS = ["at", "request_id", "method", "path", "status", "seconds", "client", "bytes"]
IMAGE = base64.b64encode(png(200)).decode()


class Lines(io.StringIO):
    """What an access log wrote."""

    def __init__(self, gate: threading.Event | None = None) -> None:
        super().__init__()
        self.blocks: list[str] = []
        self.gate = gate

    def write(self, block: str) -> int:
        assert self.gate is None or self.gate.wait(30)
        self.blocks.append(block)
        return len(block)

    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in "".join(self.blocks).splitlines()]


def test_a_line_for_every_request_of_either_way(token_file: Path, start: Serve) -> None:
    lines = Lines()

    def change(application: Any) -> None:
        application.state.access_log.handler.setStream(lines)

    sets = ("serve.access_log=true", f"serve.token_file={token_file}")
    with start(*sets, change=change) as client:
        client.headers["authorization"] = "Bearer s3cret"
        short = client.post("/inference", json={"image": IMAGE})
        long = client.post("/inference", json={"image": IMAGE}, headers={"x-a": "b"})
        query = client.get("/models?where=hidden", headers={"x-request-id": "mine"})
        refused = client.get("/models", headers={"authorization": "Bearer wr0ng"})
        strange = client.get("/%0a%22evil%22")
    found = lines.documents()
    assert [list(line) for line in found] == [FIELDS] * 5
    answers = (short, long, query, refused, strange)
    for line, answer in zip(found, answers, strict=True):
        assert line["status"] == answer.status_code
        assert line["request_id"] == answer.headers["x-request-id"]
        assert line["bytes"] == len(answer.content)
        assert line["client"] == "127.0.0.1"
        assert 0 < line["seconds"] < 60
        assert datetime.fromisoformat(line["at"]).utcoffset() is not None
    assert [line["method"] for line in found] == ["POST", "POST", "GET", "GET", "GET"]
    assert [line["path"] for line in found] == [
        *("/inference", "/inference", "/models", "/models", '/\n"evil"')
    ]
    text = "".join(lines.blocks)
    for secret in ("hidden", "s3cret", "wr0ng", IMAGE[:40]):
        assert secret not in text


@pytest.mark.parametrize("on", [False, True])
def test_it_goes_to_stderr_if_it_is_asked_for(
    start: Serve, capfd: pytest.CaptureFixture[str], on: bool
) -> None:
    with start(*["serve.access_log=true"] * on) as client:
        client.post("/inference", json={"image": IMAGE})
        client.get("/healthz/live")
    out, err = capfd.readouterr()
    assert out == ""
    paths = [json.loads(line)["path"] for line in err.splitlines() if line.startswith("{")]
    assert paths == ["/inference", "/healthz/live"] * on


SCOPE = {"method": "GET", "path": "/" + "x" * 4000, "client": None}


def test_paths_are_cut_and_blocks_are_of_whole_lines() -> None:
    lines = Lines()
    log = AccessLog(lines)
    for number in range(50):
        log.note(SCOPE, str(number), 200, 0.001, 5)
    log.start()
    log.stop()
    assert [line["request_id"] for line in lines.documents()] == [str(n) for n in range(50)]
    assert all(len(line["path"]) == 512 for line in lines.documents())
    assert len(lines.blocks) > 1
    assert all(len(block) <= 4096 and block.endswith("\n") for block in lines.blocks)


def test_a_reader_that_is_stuck_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "_MAX_WAITING", 100)
    gate = threading.Event()
    lines = Lines(gate)
    log = AccessLog(lines)
    log.start()
    start = time.monotonic()
    for number in range(1000):
        log.note(SCOPE, str(number), 200, 0.001, 5)
    assert time.monotonic() - start < 10
    gate.set()
    log.stop()
    documents = lines.documents()
    kept = [line for line in documents if "request_id" in line]
    assert sum(line.get("dropped", 0) for line in documents) == 1000 - len(kept)
    assert len(kept) <= 250
