"""`GET /`: the files of the page, under a policy that lets nothing else run."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from tests.application.conftest import Serve

import mindtrace.application

FOLDER = Path(mindtrace.application.__file__).parent / "static"
NAMES = sorted(file.name for file in FOLDER.iterdir())


def as_it_stands(client: httpx.Client, path: str) -> httpx.Response:
    """A client would take the dots out of the path."""
    request = client.build_request("GET", "/")
    request.url = httpx.URL(request.url, raw_path=path.encode())
    return client.send(request)


@pytest.mark.parametrize("path", ["/", *(f"/static/{name}" for name in NAMES)])
def test_a_file_is_served_with_its_policy(client: httpx.Client, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"].split(";")[0] in {
        "text/html",
        "text/css",
        "text/javascript",
        "image/svg+xml",
    }
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-request-id"]
    known = client.get(path, headers={"If-None-Match": response.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")
    assert client.get(path, headers={"If-None-Match": '"old"'}).status_code == 200
    head = client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(response.content))


@pytest.mark.parametrize(
    "path",
    [
        "/static/",
        "/static/page",
        "/static/page.py",
        "/static/..%2fpage.py",
        "/static/../page.py",
        "/static/%2e%2e/page.py",
        "/index.html",
        "/static/index.html/x",
        "/static//etc/passwd",
    ],
)
def test_nothing_else_is_served(client: httpx.Client, path: str) -> None:
    response = as_it_stands(client, path)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


def test_a_page_needs_no_token_and_nothing_else_goes_without(
    token_file: Path, start: Serve
) -> None:
    with start(f"serve.token_file={token_file}") as guarded:
        viewers = ("swagger-ui-bundle.js", "swagger-ui.css", "redoc.standalone.js")
        for path in ("/", "/docs", "/redoc", *(f"/static/{name}" for name in (*NAMES, *viewers))):
            assert guarded.get(path).status_code == 200
        for path in ("/static/none", "/static/../models"):
            assert as_it_stands(guarded, path).status_code in (401, 404)
        for path in ("/models", "/jobs", "/docs/", "/openapi.json", "/metrics", "/static"):
            assert guarded.get(path).status_code == 401, path
        for path in ("/", "/docs", "/static/page.js"):
            assert guarded.post(path, json={}).status_code == 401


def test_every_file_is_used_and_none_is_missing() -> None:
    text = {name: (FOLDER / name).read_text() for name in NAMES}
    pages = {"index.html", "docs.html"}
    used = {name for name in text if any(f"/static/{name}" in text[page] for page in pages)}
    queue = sorted(used)
    while queue:
        for name in re.findall(r'from "\./([a-z]+\.js)"', text[queue.pop()]):
            assert name in text, f"{name} is missing"
            if name not in used:
                used.add(name)
                queue.append(name)
    assert used == set(text) - pages


@pytest.mark.parametrize("name", NAMES)
def test_no_file_knows_of_another_host(name: str) -> None:
    text = (FOLDER / name).read_text()
    found = set(re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z]{2,}[^\s\"']*", text))
    assert found <= {"http://www.w3.org/2000/svg"}
    assert "innerHTML" not in text
    assert "eval(" not in text
    assert "style=" not in text, "the policy would refuse it"
