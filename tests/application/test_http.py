"""What HTTP allows is allowed here: HEAD, method before type, the names and alphabets in use."""

from __future__ import annotations

import base64
import gzip
import io
import json
import textwrap
from typing import Any

import httpx
import pytest
from PIL import Image
from tests.application.conftest import JSON, Serve, png
from tests.application.servers import Wire

BRIGHT = png(230)
TEXT = base64.b64encode(BRIGHT).decode()
BODY = json.dumps({"image": TEXT}).encode()
# A PNG whose base64 has both letters that differ in the alphabet of URLs.
STRANGE = next(
    data
    for data in (BRIGHT + bytes([level] * 4) for level in range(256))
    if {"+", "/"} <= set(base64.b64encode(data).decode()) and len(data) % 3
)


@pytest.mark.parametrize(
    "path",
    [
        *("/healthz/live", "/healthz/ready", "/metrics", "/openapi.json", "/docs"),
        *("/", "/static/api.js", "/v2", "/v2/health/ready", "/v2/models/bundle", "/models"),
        *("/jobs", "/nothing", "/models/none/versions/1", "/jobs?limit=0"),
    ],
)
def test_head_is_get_without_its_body(client: httpx.Client, path: str) -> None:
    get, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    if path != "/metrics":  # its length changes with every request
        assert head.headers["content-length"] == get.headers["content-length"]
    assert head.headers["x-request-id"] != get.headers["x-request-id"]


def test_head_of_a_stream_ends_at_once(start: Serve) -> None:
    """The events of a job that nobody runs: GET would wait for the next one."""
    with start("jobs.max_queued=3") as client:
        job = client.post("/retrain", json={"data": {"source": "digits"}}).json()
        wire = Wire(client)
        wire.request(f"HEAD /jobs/{job['job_id']}/events")
        answer = wire.answer()
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert wire.request("GET /healthz/live").answer().status == 200
        wire.close()


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "GZIP", "gzip, identity", "x"])
@pytest.mark.parametrize("path", ["/inference", "/retrain", "/v2/models/bundle/infer"])
def test_a_coded_body_is_refused_with_what_is_taken(
    client: httpx.Client, path: str, coding: str
) -> None:
    headers = {**JSON, "content-encoding": coding}
    answer = client.post(path, content=gzip.compress(BODY), headers=headers)
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")
    assert coding.lower() in answer.json()["detail"]


def test_a_body_that_says_it_is_plain_is_taken(client: httpx.Client) -> None:
    headers = {**JSON, "content-encoding": "Identity"}
    assert client.post("/inference", content=BODY, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        *(("image/jpg", 200), ("image/pjpeg", 200), ("Image/JPG; q=1", 200), ("image/jfif", 200)),
        *(("image/x-png", 200), ("image/apng", 200), ("image/x-webp", 200)),
        *(("image/gif", 415), ("image/svg+xml", 415), ("image/", 415), ("jpg", 415)),
    ],
)
def test_the_usual_misnames_of_formats(client: httpx.Client, kind: str, status: int) -> None:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(BRIGHT)).save(buffer, "JPEG")
    answer = client.post("/inference", content=buffer.getvalue(), headers={"content-type": kind})
    assert answer.status_code == status, answer.text
    if status == 415:
        assert answer.headers["accept"].startswith("application/json, image/png, image/jpeg,")


WRITTEN = {
    "lines": base64.encodebytes(STRANGE).decode(),
    "lines of 76": textwrap.fill(base64.b64encode(STRANGE).decode(), 76) + "\n",
    "DOS lines": base64.encodebytes(STRANGE).decode().replace("\n", "\r\n"),
    "URL-safe": base64.urlsafe_b64encode(STRANGE).decode(),
    "no padding": base64.b64encode(STRANGE).decode().rstrip("="),
    "URL-safe, no padding": base64.urlsafe_b64encode(STRANGE).decode().rstrip("="),
    "blanks around": f"  {base64.b64encode(STRANGE).decode()}\t",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_base64_as_programs_write_it(client: httpx.Client, name: str) -> None:
    plain = client.post("/inference", json={"image": base64.b64encode(STRANGE).decode()}).json()
    for body in ({"image": WRITTEN[name]}, {"images": [WRITTEN[name]]}):
        answer = client.post("/inference", json=body)
        assert answer.status_code == 200, answer.text
        (found,) = answer.json().get("items", [answer.json()])
        assert found["probabilities"] == plain["probabilities"]
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [WRITTEN[name]]}
    assert client.post("/v2/models/bundle/infer", json={"inputs": [tensor]}).status_code == 200


def test_lines_that_are_no_json_get_the_command_that_writes_none(client: httpx.Client) -> None:
    """As a shell makes it of "$(base64 FILE)": the lines stand in the JSON as they are."""
    body = b'{"image": "%b"}' % base64.encodebytes(STRANGE)
    answer = client.post("/inference", content=body, headers=JSON)
    assert (answer.status_code, "base64 -w0" in answer.json()["hint"]) == (400, True)
    assert "hint" not in client.post("/inference", content=b"{", headers=JSON).json()


@pytest.mark.parametrize(
    ("text", "has_hint"),
    [
        *((f"data:image/png;base64,{TEXT}", True), (f" DATA:;base64,{TEXT}", True)),
        *((TEXT + "%", False), (TEXT[:40] + "=" + TEXT[40:], False), ("\u00e4", False)),
        *(("A", False), (TEXT.rstrip("=") + "===", False), ("file.png", False)),
    ],
)
def test_what_is_no_base64_gets_the_hint_that_fits(
    client: httpx.Client, text: str, has_hint: bool
) -> None:
    answer = client.post("/inference", json={"image": text})
    assert (answer.status_code, "not base64" in answer.json()["detail"]) == (400, True)
    assert ("data:" in answer.json().get("hint", "")) is has_hint


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("PUT", "/inference", 405), ("PATCH", "/retrain", 405), ("PUT", "/jobs/1", 405)),
        *(("POST", "/healthz/live", 405), ("POST", "/models", 405), ("PUT", "/", 405)),
        *(("POST", "/nothing", 404), ("PUT", "/nothing", 404)),
        *(("POST", "/inference", 415), ("POST", "/retrain", 415), ("POST", "/retrain/check", 415)),
        *(("POST", "/models/a/promote", 415), ("POST", "/models/a/rollback", 415)),
    ],
)
def test_path_before_method_before_type(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    for headers in ({}, {"content-type": "text/plain"}):
        answer = client.request(method, path, headers=headers)
        assert answer.status_code == status
        assert ("allow" in answer.headers) is (status == 405)


def test_no_route_takes_what_a_form_of_another_site_may_send(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    posts = [path for path, operations in paths.items() if "post" in operations]
    assert len(posts) > 6
    for path in posts:
        url = path.format(name="bundle", version=1)
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            answer = client.post(url, content=b"{}", headers={"content-type": kind})
            assert answer.status_code == 415, (path, kind)


def test_openapi_names_what_the_protocol_refuses(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            missing = {"408", "413", "431", "503"} - set(operation["responses"])
            assert not missing, (path, missing)
    long = client.get("/healthz/live", headers={"x-long": "y" * 20_000})
    assert (long.status_code, long.headers["content-type"]) == (431, "application/problem+json")


@pytest.mark.parametrize(
    ("query", "fields", "status"),
    [
        *(("?top_k=1", {}, 200), ("?top_k=1", {"top_k": 1}, 200), ("?top_k=3", {"top_k": 3}, 200)),
        *(("?top_k=3", {"top_k": 2}, 422), ("?top_k=2", {}, 422), ("?top_k=1", {"top_k": 2}, 422)),
        *(("?top_k=0", {}, 422), ("?top_k=x", {}, 422)),
    ],
)
def test_query_and_body_may_agree(
    client: httpx.Client, query: str, fields: dict[str, Any], status: int
) -> None:
    for body in ({"image": TEXT, **fields}, {"images": [TEXT], **fields}):
        answer = client.post(f"/inference{query}", json=body)
        assert answer.status_code == status, answer.text
        if status == 200:
            (row,) = answer.json().get("items", [answer.json()])
            assert len(row["top_k"]) == fields.get("top_k", 1)


def test_the_query_says_no_default_that_a_client_would_send(client: httpx.Client) -> None:
    post = client.get("/openapi.json").json()["paths"]["/inference"]["post"]
    (top_k,) = post["parameters"]
    assert (top_k["name"], "default" in top_k["schema"]) == ("top_k", False)
