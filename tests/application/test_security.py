"""Who may ask: the rules one by one, then all of them on a real server."""

from __future__ import annotations

import itertools
from pathlib import Path

import httpx
import pytest
from tests.application.conftest import Serve, png

from mindtrace.application import security
from mindtrace.application.problems import Problem
from mindtrace.application.security import Head
from mindtrace.config.settings import load_settings


def head(method: str = "GET", path: str = "/models", **headers: str) -> Head:
    pairs = {"host": "127.0.0.1:8000", **headers}
    return Head(
        method,
        path,
        "http",
        ("127.0.0.1", 8000),
        {name.replace("_", "-").encode(): value.encode("latin-1") for name, value in pairs.items()},
    )


def status(rule: security.Rule, asked: Head) -> int:
    """200 if the rule lets it through."""
    try:
        rule(asked)
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
    assert security.parse_authority(text) == parsed


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
    rule = security.host_rule(["model.example", "proxy.example:8443", "*.example"])
    assert status(rule, head(host=host)) == expected
    assert status(rule, head(path="/healthz/live", host=host)) == 200


def test_a_request_without_a_host_is_400() -> None:
    asked = Head("GET", "/", "http", ("127.0.0.1", 8000), {})
    assert status(security.host_rule(()), asked) == 400


def test_a_header_that_must_be_single() -> None:
    scope = {
        "method": "GET",
        "path": "/",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "headers": [(b"host", b"a"), (b"host", b"b")],
    }
    with pytest.raises(Problem) as caught:
        Head.of(scope)
    assert caught.value.status == 400


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
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert status(security.origin_rule, head(method, **headers)) == expected
    assert status(security.origin_rule, head("GET", **headers)) == 200


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (None, 415),
        ("", 415),
        ("text/plain", 415),
        ("Text/Plain; charset=utf-8", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/json", 200),
        ("image/png", 200),
    ],
)
def test_content_types(kind: str | None, expected: int) -> None:
    given = {} if kind is None else {"content_type": kind}
    assert status(security.content_type_rule, head("POST", **given)) == expected
    assert status(security.content_type_rule, head("DELETE", **given)) == 200


def test_tokens() -> None:
    rule = security.token_rule(b"right")
    cases = {"Bearer right": 200, "bearer right": 200, "Basic right": 401, "Bearer wrong": 401}
    for given, expected in {**cases, "right": 401, "Bearer": 401, "Bearer \xe4": 401}.items():
        assert status(rule, head(authorization=given)) == expected
    assert status(rule, head()) == 401
    assert status(rule, head(path="/healthz/ready")) == 200
    # A path that only looks like a probe is none.
    assert status(rule, head(path="/healthz")) == 401


def test_without_a_token_only_this_machine_is_answered() -> None:
    away = Head("GET", "/models", "http", ("192.0.2.7", 8000), {b"host": b"localhost:8000"})
    assert status(security.loopback_rule, away) == 403
    assert status(security.loopback_rule, head()) == 200


ROUTES = (
    ("GET", "/models"),
    ("GET", "/models/m/versions"),
    ("GET", "/models/m/versions/1"),
    ("GET", "/jobs"),
    ("GET", "/jobs/j"),
    ("DELETE", "/jobs/j"),
    ("POST", "/inference"),
    ("POST", "/retrain"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("POST", "/nothing"),
)


def test_every_route_is_behind_every_rule(tmp_path: Path, bundle: Path, serve: Serve) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    sets = [f"DIR_PATHS.ROOT={tmp_path}", f"serve.token_file={token}"]
    with serve(load_settings(sets=sets, environ={}), str(bundle)) as client:
        for (method, path), (bad, expected) in itertools.product(
            ROUTES,
            [
                ({"host": "evil.example"}, 421),
                ({}, 401),
                ({"authorization": "Bearer wrong"}, 401),
            ],
        ):
            answer = client.request(method, path, headers=bad)
            assert answer.status_code == expected, (method, path, bad)
            assert answer.headers["content-type"] == "application/problem+json"
            assert (expected == 401) == ("www-authenticate" in answer.headers)
        good = {"authorization": "Bearer s3cret"}
        for method, path in ROUTES:
            if method == "GET":
                continue
            for foreign in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
                headers = {**good, **foreign, "content-type": "application/json"}
                assert client.request(method, path, headers=headers).status_code == 403
        for path in ("/healthz/live", "/healthz/ready"):
            assert client.get(path, headers={"host": "evil.example"}).status_code == 200
        accepted = client.post(
            "/inference", content=png(9), headers={**good, "content-type": "image/png"}
        )
        assert accepted.status_code == 200
    assert not list((tmp_path / "jobs").glob("*")) if (tmp_path / "jobs").exists() else True


def test_no_cors(client: httpx.Client) -> None:
    asked = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    for answer in (client.options("/inference", headers=asked), client.get("/models")):
        assert not [name for name in answer.headers if name.startswith("access-control")]
