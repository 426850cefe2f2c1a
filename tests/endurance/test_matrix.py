"""Host x Origin x Sec-Fetch-Site x method x type over every route: what a web page may not do.

The expectation is written down here once more, from the promise and not from the code:
whatever breaks one of its sentences is refused, whatever breaks none is let through.
"""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.application.registered import Registered
from tests.endurance import loads
from tests.endurance.models import contents
from tests.endurance.servers import Server, serving

from mindtrace.application.api import create_app
from mindtrace.config.settings import load_settings

pytestmark = [pytest.mark.slow, pytest.mark.proof]

NAME = "mlp"
TOKEN = "s3cret"
DRAWS = 4  # random combinations for each route and method, of each `soak`
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
WITH_BODY = ("POST", "PUT", "PATCH")
GOOD_TYPES = ("application/json", "application/json; charset=utf-8", "image/png")
BAD_TYPES = (
    None,
    "text/plain",
    "Text/Plain; charset=utf-8",
    "application/x-www-form-urlencoded",
)
GOOD_SITES, BAD_SITES = (None, "same-origin", "none"), ("same-site", "cross-site", "x")
# What changes something if it is let through.
HARM = {
    "/retrain": {"train": {"max_epochs": 1}},
    "/models/{name}/promote": {"version": 2, "force": True, "reason": "because"},
    "/models/{name}/rollback": {"reason": "because"},
}
FORM_TYPE = "a type that forms send"
REFUSED = {400, 401, 403, 415, 421}


@dataclass(frozen=True)
class Ask:
    """One request, by what the rules look at."""

    method: str
    route: str
    host: str | None
    origin: str | None = None
    site: str | None = None
    type: str | None = "application/json"
    token: str | None = None


@dataclass(frozen=True)
class Place:
    """A server, what is right there, and a job that waits in its queue."""

    server: Server
    hosts: tuple[str, ...]
    token: str | None
    job_id: str

    @property
    def bad_hosts(self) -> tuple[str | None, ...]:
        port = self.server.port
        return (
            *("evil.example", f"evil.example:{port}", f"127.0.0.1.evil.example:{port}"),
            *(f"localhost.evil.example:{port}", f"127.0.0.1:{port + 1}", "127.0.0.1", "localhost"),
            *(f"0.0.0.0:{port}", f"2130706433:{port}", f"x@127.0.0.1:{port}", "", None),
            f"127.0.0.1:{port}\r\nhost: evil.example",
        )

    def foreign(self, host: str) -> tuple[str, ...]:
        others = [f"http://{other}" for other in self.hosts if other != host]
        port = self.server.port
        return (
            *("null", "http://evil.example", f"http://evil.example:{port}", "file://", ""),
            *(f"http://{host}.evil.example", f"http://{host}@evil.example", *others),
            *(f"http://127.0.0.1:{port + 1}", f"http://{host} http://evil.example"),
        )


def routes(root: Path) -> list[str]:
    """The paths of every route that the application has."""
    settings = load_settings(sets=[f"DIR_PATHS.ROOT={root}"], environ={})
    application = create_app(settings, worker=False)
    found = set(_paths(application.routes))
    assert found >= set(application.openapi()["paths"])
    return [*sorted(found), "/nothing"]


def _paths(routes: Any, prefix: str = "") -> Iterator[str]:
    for route in routes:
        # FastAPI keeps an included router as it is; a mount has routes below a path.
        inner = getattr(route, "original_router", route)
        path = prefix + getattr(inner, "path", "")
        below = getattr(inner, "routes", None)
        yield from _paths(below, path) if below else [path]


def broken(ask: Ask, place: Place) -> list[str]:
    """The sentences of the promise that a request breaks."""
    probe = ask.route.startswith("/healthz/")
    said = []
    if ask.host not in place.hosts and not probe:
        said.append("unknown Host")
    if place.token is not None and ask.token != place.token and not probe:
        said.append("no token")
    if ask.method not in SAFE:
        if ask.origin is not None and ask.origin != f"http://{ask.host}":
            said.append("foreign Origin")
        if ask.site in BAD_SITES:
            said.append("foreign site")
    untyped = ask.type is None and ask.route.startswith("/v2/")  # is JSON there
    if ask.method in WITH_BODY and ask.type in BAD_TYPES and not untyped:
        said.append(FORM_TYPE)
    return said


def asks(place: Place, paths: list[str], draws: int) -> Iterator[Ask]:
    """Every single deviation from a right request, then combinations of all of them."""
    draw = random.Random(5)
    tokens = (place.token,) if place.token is None else (place.token, None, "wrong", "")
    for route, method in itertools.product(paths, METHODS):
        host = place.hosts[0]
        right = Ask(method, route, host, token=place.token)
        yield right
        yield from (replace(right, host=other) for other in (*place.hosts, *place.bad_hosts))
        yield from (
            replace(right, origin=one) for one in (None, f"http://{host}", *place.foreign(host))
        )
        yield from (replace(right, site=site) for site in (*GOOD_SITES, *BAD_SITES))
        yield from (replace(right, type=kind) for kind in (*GOOD_TYPES, *BAD_TYPES))
        yield from (replace(right, token=token) for token in tokens)
        for _ in range(draws):
            host = draw.choice(place.hosts)
            yield Ask(
                method,
                route,
                draw.choice((host, host, draw.choice(place.bad_hosts))),
                draw.choice((*(None, f"http://{host}") * 4, *place.foreign(host))),
                draw.choice((*GOOD_SITES, *BAD_SITES)),
                draw.choice((*GOOD_TYPES, *BAD_TYPES)),
                draw.choice(tokens),
            )


def as_bytes(ask: Ask, place: Place, harmful: bool) -> bytes:
    """The request; a harmful one would change something if nobody stopped it."""
    values = {"name": NAME, "version": "2"} if harmful else {"name": "nobody", "version": "9"}
    values["job_id"] = place.job_id if harmful else "nobody"
    path = ask.route
    for name in ("name", "version", "job_id"):
        path = path.replace(f"{{{name}}}", values[name])
    body = b""
    if ask.method in (*WITH_BODY, "DELETE"):
        body = json.dumps(HARM.get(ask.route, {}) if harmful else {"nonsense": 1}).encode()
    headers = {
        "host": ask.host,
        "origin": ask.origin,
        "sec-fetch-site": ask.site,
        "content-type": ask.type,
        "authorization": ask.token and f"Bearer {ask.token}",
        "if-match": "*",
        "content-length": str(len(body)),
    }
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    head = "\r\n".join((f"{ask.method} {path} HTTP/1.1", *lines, "", ""))
    return head.encode("latin-1") + body


def fault_of(ask: Ask, place: Place, said: list[str], reply: Any) -> str | None:
    """What is wrong with the answer."""
    if any(name.startswith(b"access-control-") for name in reply.headers):
        return "invites other sites"
    if reply.status >= 500 and not loads.is_busy(reply):
        return "a failure of the server"
    page = ask.route in ("/", "/docs", "/redoc", "/static/{name}")
    if said == ["no token"] and page:
        return None if reply.status in (200, 401, 404, 405) else "neither page nor refusal"
    if said == [FORM_TYPE] and reply.status in (404, 405):
        return None  # nothing there has a body, whatever its type
    if said:
        return None if reply.status in REFUSED else f"must be refused: {', '.join(said)}"
    return "must be let through" if reply.status in (0, 401, 403, 421) else None


def state(root: Path, place: Place) -> dict[str, Any]:
    """Everything that a request could have changed."""
    found = {}
    for path in ("/jobs", f"/models/{NAME}/history", f"/models/{NAME}/versions"):
        ask = Ask("GET", path, place.hosts[0], token=place.token)
        reply = _one(ask, place, harmful=False)
        assert reply.status == 200, (path, reply)
        found[path] = json.loads(reply.body)
    # The databases write as they like; what stands in them was asked for above.
    files = {
        str(path.relative_to(root)): path.stat().st_size
        for path in root.rglob("*")
        if path.is_file() and ".db" not in path.name and path.name != "server.log"
    }
    return {**found, "files": files}


@pytest.fixture(scope="module")
def two_versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ROOT with two versions, the first of which is champion."""
    root = tmp_path_factory.mktemp("matrix")
    for seed in (0, 1):
        Registered(root).publish(contents(NAME, seed), NAME)
    return root


@pytest.mark.parametrize("token", [None, TOKEN], ids=["without a token", "with a token"])
def test_no_page_of_another_site_changes_anything(
    two_versions: Path, tmp_path: Path, token: str | None, soak: int, strict: bool
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    options = ["--set", "serve.allowed_hosts=model.example"]
    options += [] if token is None else ["--token-file", str(tmp_path / "token")]
    with serving(tmp_path / "server", *options, workers=2, root=two_versions) as server:
        port = server.port
        hosts = (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", "model.example")
        place = Place(server, hosts, token, "")
        right = Ask("POST", "/retrain", hosts[0], token=token)
        job = json.loads(_one(right, place, harmful=True).body)
        place = replace(place, job_id=job["job_id"])
        before = state(two_versions, place)
        asked = list(asks(place, routes(two_versions), DRAWS * soak))
        # Every route and method has another number of asks than three: all are sampled.
        asked = asked if strict else asked[::3]
        requests = (
            (n, as_bytes(one, place, bool(broken(one, place)))) for n, one in enumerate(asked)
        )
        exchanges = loads.run(loads.closed_loop(server, requests, 16))
        statuses: Counter[int] = Counter()
        faults = []
        for exchange in exchanges:
            ask, reply = asked[exchange.number], exchange.reply
            statuses[reply.status] += 1
            if fault := fault_of(ask, place, broken(ask, place), reply):
                faults.append(f"{fault}: {ask} -> {reply.status} {reply.error} {reply.body!r}")
        print(f"{len(asked)} requests, {'with' if token else 'without'} a token: {dict(statuses)}")
        assert faults == [], f"{len(faults)} faults\n" + "\n".join(faults[:20])
        assert state(two_versions, place) == before
        _prove_harm(place, before, two_versions)


def _one(ask: Ask, place: Place, *, harmful: bool) -> Any:
    return loads.run(loads.one(place.server, as_bytes(ask, place, harmful))).reply


def _prove_harm(place: Place, before: dict[str, Any], root: Path) -> None:
    """The same requests from where they may come from do change something."""
    own = Ask("POST", "/models/{name}/promote", place.hosts[0], token=place.token)
    assert _one(own, place, harmful=True).status == 200
    back = _one(replace(own, route="/models/{name}/rollback"), place, harmful=True)
    assert back.status == 200
    gone = _one(replace(own, method="DELETE", route="/jobs/{job_id}"), place, harmful=True)
    assert gone.status in (200, 202)
    after = state(root, place)
    assert all(after[path] != before[path] for path in ("/jobs", f"/models/{NAME}/history"))


def test_beyond_loopback_with_a_token(root: Path, tmp_path: Path) -> None:
    """It starts, and answers nobody who does not know the token."""
    (tmp_path / "token").write_text(TOKEN)
    options = ("--host", "0.0.0.0", "--token-file", str(tmp_path / "token"))
    with serving(tmp_path / "server", *options, ready=503, root=root) as server:
        host = f"127.0.0.1:{server.port}"
        place = Place(server, (host,), TOKEN, "")
        ask = Ask("GET", "/models", host)
        for token, status in ((None, 401), ("wrong", 401), (TOKEN, 200)):
            assert _one(replace(ask, token=token), place, harmful=False).status == status
