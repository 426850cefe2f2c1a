"""Who may ask: the rules one by one, then all of them on a real server."""

from __future__ import annotations

import contextlib
from pathlib import Path

import httpx
import pytest
from tests.application.conftest import PNG, Serve, png

from mindtrace.application.problems import Problem
from mindtrace.application.security import Rules
from mindtrace.config.urls import parse_authority

OPEN = Rules(None, ())


def status(rules: Rules, method: str = "GET", path: str = "/models", **headers: str | None) -> int:
    """Of a request by these rules: 200 if they let it through."""
    given = {"host": "127.0.0.1:8000", "content_type": "application/json", **headers}
    pairs = [
        (name.replace("_", "-").encode(), value.encode("latin-1"))
        for name, value in given.items()
        if value is not None
    ]
    scope = {"method": method, "path": path, "scheme": "http", "headers": pairs}
    try:
        rules.check({**scope, "server": ("127.0.0.1", 8000)})
    except Problem as problem:
        return problem.status
    return 200


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("LocalHost", ("localhost", None)),
        ("[::1]:8000", ("::1", 8000)),
        ("[0:0:0:0:0:0:0:1]", ("::1", None)),
        ("::1", None),
        ("[::1", None),
        ("[nonsense]:1", None),
        ("a:0", None),
        ("a:65536", None),
        ("a:", None),
        ("a b", None),
        ("a@b", None),
        ("a/b", None),
        ("", None),
    ],
)
def test_authorities_are_parsed(text: str, parsed: tuple[str, int | None] | None) -> None:
    assert parse_authority(text) == parsed


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost:8000", 200),
        ("[::1]:8000", 200),
        ("127.8.8.8:8000", 200),
        ("127.0.0.1", 421),
        ("127.0.0.1:8001", 421),
        ("localhost.evil.example:8000", 421),
        ("127.0.0.1.evil.example:8000", 421),
        ("127.1:8000", 421),
        ("2130706433:8000", 421),
        ("evil.example:8000", 421),
        ("\xff", 421),
        ("model.example", 200),
        ("model.example:9999", 200),
        ("MODEL.example", 200),
        ("sub.model.example", 421),
        ("proxy.example:8443", 200),
        ("proxy.example:8444", 421),
        ("proxy.example", 421),
        ("star.example", 421),
    ],
)
def test_hosts(host: str, expected: int) -> None:
    rules = Rules(None, ["model.example", "proxy.example:8443", "*.example"])
    assert status(rules, host=host) == expected
    assert status(rules, path="/healthz/live", host=host) == 200


def test_headers_that_must_be_there_once() -> None:
    assert status(OPEN, host=None) == 400
    for name in ("host", "authorization", "content-type", "content-length", "origin"):
        headers = [(b"host", b"127.0.0.1:8000"), (name.encode(), b"a"), (name.encode(), b"b")]
        with pytest.raises(Problem, match=f"more than one {name} header"):
            OPEN.check({"method": "GET", "path": "/", "headers": headers})


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 200),
        ({"origin": "http://127.0.0.1:8000"}, 200),
        ({"origin": "http://127.0.0.1:8000", "sec_fetch_site": "same-origin"}, 200),
        ({"origin": "https://model.example", "host": "model.example"}, 200),
        ({"origin": "http://127.0.0.1:3000"}, 403),
        ({"origin": "http://localhost:8000"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "file://"}, 403),
        ({"origin": "\xe4"}, 403),
        ({"origin": "http://127.0.0.1:8000/x"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"sec_fetch_site": "none"}, 200),
    ],
)
def test_origins(headers: dict[str, str], expected: int) -> None:
    rules = Rules(None, ["model.example"])
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert status(rules, method, **headers) == expected
    assert status(rules, "GET", **headers) == 200


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        *(("Bearer right", 200), ("bearer right", 200), ("Basic right", 401)),
        *(("Bearer wrong", 401), ("right", 401), ("Bearer", 401), ("Bearer \xe4", 401)),
    ],
)
def test_tokens(given: str, expected: int) -> None:
    rules = Rules(b"right", ())
    assert status(rules, authorization=given) == expected
    assert status(rules) == 401
    assert status(rules, path="/healthz/ready") == status(rules, path="/") == 200
    # A path that only looks like a probe is none, and the page cannot be changed.
    assert status(rules, path="/healthz") == status(rules, "POST", path="/") == 401


def test_without_a_token_only_this_machine_is_answered() -> None:
    headers = [(b"host", b"localhost:8000")]
    scope = {"method": "GET", "path": "/models", "scheme": "http", "headers": headers}
    for address, allowed in (("192.0.2.7", False), ("::1", True), ("/run/socket", True)):
        with contextlib.nullcontext() if allowed else pytest.raises(Problem, match="no token"):
            OPEN.check({**scope, "server": (address, 8000)})


ROUTES = (
    *(("GET", "/models"), ("GET", "/models/m/versions"), ("GET", "/models/m/versions/1")),
    *(("GET", "/jobs"), ("GET", "/jobs/j"), ("DELETE", "/jobs/j"), ("POST", "/inference")),
    *(("POST", "/retrain"), ("GET", "/openapi.json"), ("POST", "/nothing")),
)


def test_every_route_is_behind_every_rule(token_file: Path, start: Serve, tmp_path: Path) -> None:
    good = {"authorization": "Bearer s3cret"}
    typed = {**good, "content-type": "application/json"}
    bad = [({"host": "evil.example"}, 421), ({}, 401), ({"authorization": "Bearer wrong"}, 401)]
    foreign = [
        ({**typed, "origin": "http://evil.example"}, 403),
        ({**typed, "sec-fetch-site": "cross-site"}, 403),
    ]
    with start(f"serve.token_file={token_file}") as client:
        for method, path in ROUTES:
            for headers, expected in bad + (foreign if method != "GET" else []):
                answer = client.request(method, path, headers=headers)
                assert answer.status_code == expected, (method, path, headers)
                assert answer.headers["content-type"] == "application/problem+json"
                assert (expected == 401) == ("www-authenticate" in answer.headers)
        for path in ("/healthz/live", "/healthz/ready"):
            assert client.get(path, headers={"host": "evil.example"}).status_code == 200
        accepted = client.post("/inference", content=png(9), headers={**good, **PNG})
        assert accepted.status_code == 200
    assert not list(tmp_path.glob("jobs*"))


def test_no_cors(client: httpx.Client) -> None:
    asked = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    for answer in (client.options("/inference", headers=asked), client.get("/models")):
        assert not [name for name in answer.headers if name.startswith("access-control")]
