"""`POST /inference` through a real server."""

from __future__ import annotations

import base64
import io
import zipfile
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter
from tests.application.conftest import CLASSES, JSON, PNG, Serve, png, probabilities

from mindtrace.application.schemas import Answer, Answers

BRIGHT = base64.b64encode(png(230)).decode()
DARK = base64.b64encode(png(20)).decode()


def post(client: httpx.Client, body: Any) -> httpx.Response:
    return client.post("/inference", json=body)


def test_one_image_in_base64(client: httpx.Client) -> None:
    answer = post(client, {"image": BRIGHT, "top_k": 2})
    assert answer.status_code == 200
    fields = answer.json()
    expected = probabilities(np.full((1, 8, 8), 230, np.uint8))[0]
    assert fields["probabilities"] == pytest.approx(expected.tolist(), abs=1e-6)
    assert (fields["label"], fields["class_name"]) == (1, "bright")
    assert fields["confidence"] == pytest.approx(float(expected[1]), abs=1e-6)
    assert [row["class_name"] for row in fields["top_k"]] == ["bright", "other"]
    everything = post(client, {"image": BRIGHT, "top_k": 99}).json()["top_k"]
    assert sorted(row["class_name"] for row in everything) == sorted(CLASSES)
    assert fields["request_id"] == answer.headers["x-request-id"]
    assert set(fields) == set(Answer.model_fields) - {"input"}
    TypeAdapter(Answer).validate_python(fields, strict=True)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_raw_bodies(client: httpx.Client, kind: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), (240, 240, 240)).save(buffer, kind)
    headers = {"content-type": f"image/{kind}"}
    answer = client.post("/inference?top_k=3", content=buffer.getvalue(), headers=headers)
    assert answer.status_code == 200
    assert answer.json()["class_name"] == "bright"
    assert len(answer.json()["top_k"]) == 3


def test_multipart(client: httpx.Client) -> None:
    answer = client.post("/inference", files={"image": ("dark.png", png(10), "image/png")})
    assert (answer.status_code, answer.json()["class_name"]) == (200, "dark")


def test_one_bad_image_hurts_only_itself(client: httpx.Client) -> None:
    body = {"images": [BRIGHT, base64.b64encode(b"no image").decode(), "%%", "", DARK]}
    answer = post(client, body)
    assert answer.status_code == 200
    items = answer.json()["items"]
    assert [item.get("class_name") for item in items] == ["bright", None, None, None, "dark"]
    assert "not an image" in items[1]["error"]["message"]
    assert "not base64" in items[2]["error"]["message"]
    TypeAdapter(Answers).validate_python(answer.json(), strict=True)


def test_many_images_are_answered_in_their_order(client: httpx.Client) -> None:
    levels = [(7 * place) % 256 for place in range(100)]
    body = {"images": [base64.b64encode(png(level)).decode() for level in levels]}
    items = post(client, body).json()["items"]
    expected = probabilities(np.stack([np.full((8, 8), level, np.uint8) for level in levels]))
    found = np.array([item["probabilities"] for item in items])
    np.testing.assert_allclose(found, expected, atol=1e-6)


IMAGE = b'"image": "' + BRIGHT.encode() + b'"'
# What is no JSON, though it is nearly.
NO_JSON = (
    *(b"", b"tru", b"'", b"\x00", b"0x1", b"01", b"+1", b".5", b"NaN", b"Infinity", b"-Infinity"),
    *(b"{%s}x" % IMAGE, b"{%s}{%s}" % (IMAGE, IMAGE), b"/* hello */{%s}" % IMAGE, b"{%s,}" % IMAGE),
    *(b"{'image': 'QUJD'}", b'{"image": "\0"}', b'{"image": "QU\nJD"}', b'{"im\xffge": ""}'),
    *('{"image": "QUJD"}'.encode(code) for code in ("utf-16", "utf-32")),
    *(b'{%s, "top_k": %s}' % (IMAGE, number) for number in (b"Infinity", b"-Infinity", b"0x3")),
    b'{"image": "\\ud800"}',
)
NO_BASE64 = (
    "!!!!",
    "====",
    "/etc/passwd.",
    "QUJ\\u0000D",
    "-_-_-",
    "QQ===",
    "QQ====AA",
    "data:a,QQ==",
)
NO_TOP_K = (b"0", b"-1", b"1.5", b"-1e300", b"null", b"[3]", b"{}")


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        *((body, 400, "not JSON") for body in NO_JSON),
        *((b'{"image": "%s"}' % text.encode(), 400, "not base64") for text in NO_BASE64),
        *((b'{%s, "top_k": %s}' % (IMAGE, value), 422, "top_k") for value in NO_TOP_K),
        *((value, 422, "JSON object") for value in (b"null", b"true", b'"x"', b"1")),
        *(
            (b'{"image": %s}' % value, 422, "image: Input should be a valid string")
            for value in (b"null", b'["QQ=="]')
        ),
        (b'{"images": {"0": "QUJD"}}', 422, "list"),
        (b'{%s, "model": "other"}' % IMAGE, 422, "model: Extra inputs"),
        (b"{", 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b'{"image": NaN}', 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b"[]", 422, "JSON object"),
        (b"{}", 422, "image: Field required"),
        (b'{"image": "QQ==", "images": ["QQ=="]}', 422, "image: Extra inputs"),
        (b'{"picture": "QQ=="}', 422, "image: Field required"),
        (b'{"image": 3}', 422, "valid string"),
        (b'{"images": ["QQ==", 3]}', 422, "images.1: Input should be a valid string"),
        (b'{"image": "***"}', 400, "not base64"),
        (b'{"image": "\\u00e4"}', 400, "not base64"),
        (b'{"image": ""}', 422, "at least 1 character"),
        (b'{"image": "QUJD"}', 422, "not an image"),
        (b'{"images": []}', 422, "at least 1 item"),
        (b'{"images": "QQ=="}', 422, "list"),
        (b'{"image": "QUJD", "top_k": true}', 422, "top_k"),
        (b'{"image": "QUJD", "top_k": "3"}', 422, "top_k"),
        (b'{"image": "QUJD", "top_k": NaN}', 400, "not JSON"),
        (b'{"image": "QUJD", "top_k": 1e999}', 400, "not JSON"),
        (b'{"image": "QUJD", "top_k": ' + b"1" * 10_000 + b"}", 400, "not JSON"),
        (b'{"image": "QUJD", "show_input": 1}', 422, "show_input"),
        (b'{"image": "QUJD", "\\ud800\\n": 1}', 400, "not JSON"),
        (b'{"image": "QUJD", "' + b"x" * 10_000 + b'": 1}', 422, "xxx..."),
        (b'{"images": [' + b'"",' * 1024 + b'""]}', 422, "at most 1024 items"),
        (b'{"images": [' + b"[]," * 1_000_000 + b"[]]}", 400, "not JSON that we read"),
        (b'{"image": ' * 100_000, 400, "not JSON that we read"),
        (b'{"image": ' * 1500, 400, "depth limit"),
        (b'{"image": "' + b"A" * (8 << 20), 400, "not JSON"),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else None,
)
def test_bad_json(client: httpx.Client, body: bytes, status: int, says: str) -> None:
    answer = client.post("/inference", content=body, headers=JSON)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert says in answer.json()["detail"]
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_other_bad_bodies(client: httpx.Client) -> None:
    def ask(content: bytes, kind: str, query: str = "") -> tuple[int, str]:
        url = f"/inference{query}"
        answer = client.post(url, content=content, headers={"content-type": kind})
        assert answer.headers["content-type"] == "application/problem+json"
        return answer.status_code, f"{answer.headers.get('accept')} {answer.json()['detail']}"

    status, text = ask(b"x", "image/gif")
    assert (status, "image/png" in text) == (415, True)
    assert ask(b"", "image/png") == (422, "None the image is empty")
    assert ask(b"--x", "multipart/form-data; boundary=x")[0] in (400, 422)
    assert ask(png(3), "image/png", "?top_k=no")[0] == 422
    whole = png(77, size=64)
    assert ask(whole[: len(whole) // 2], "image/png")[0] == 422
    field = client.post("/inference", files={"picture": ("a.png", png(3), "image/png")})
    assert (field.status_code, "no file 'image'" in field.json()["detail"]) == (422, True)


def test_limits_of_body_and_pixels(start: Serve) -> None:
    with start("serve.max_body=2 KiB", "serve.max_pixels=100") as client:
        for content in (b"x" * 2049, (b"x" * 100 for _ in range(30))):
            answer = client.post("/inference", content=content, headers=PNG)
            assert answer.status_code == 413
            assert answer.headers["content-type"] == "application/problem+json"
            assert "2,048 bytes" in answer.json()["detail"]
        large = client.post("/inference", content=png(3, size=20), headers=PNG)
        assert (large.status_code, "100" in large.json()["detail"]) == (422, True)


def decoded_input(answer: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["input"]))))


def test_the_image_as_the_network_sees_it_is_shown_on_demand(client: httpx.Client) -> None:
    fields = post(client, {"image": BRIGHT, "show_input": True}).json()
    assert (decoded_input(fields) == 230).all()
    assert set(fields) == set(Answer.model_fields)
    TypeAdapter(Answer).validate_python(fields, strict=True)
    large = base64.b64encode(png(77, size=300)).decode()
    items = post(client, {"images": [large, "%%"], "show_input": True}).json()["items"]
    assert decoded_input(items[0]).shape == (8, 8)
    assert (decoded_input(items[0]) == 77).all()
    assert "input" not in items[1]
    assert "input" not in post(client, {"image": BRIGHT, "show_input": False}).json()


def _black() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(buffer, "PNG")
    return buffer.getvalue()


def _polyglot() -> bytes:
    """A PNG that is an archive and a web page as well."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.html", "<script>alert(1)</script>")
    return png(200) + b"<html><script>alert(1)</script></html>" + archive.getvalue()


NASTY = {
    "10,000 x 10,000": (_black(), 422),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 422),
    "polyglot": (_polyglot(), 200),
}


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("form", ["raw", "JSON", "several", "multipart"])
def test_nasty_images(client: httpx.Client, name: str, form: str) -> None:
    data, status = NASTY[name]
    text = base64.b64encode(data).decode()
    if form == "raw":
        answer = client.post("/inference", content=data, headers=PNG)
    elif form == "multipart":
        answer = client.post("/inference", files={"image": ("a.png", data, "image/png")})
    elif form == "JSON":
        answer = post(client, {"image": text})
    else:
        answer = post(client, {"images": [text, BRIGHT]})
        assert answer.status_code == 200
        items = answer.json()["items"]
        assert ("error" in items[0]) == (status == 422)
        assert items[1]["class_name"] == "bright"
        return
    assert answer.status_code == status
    assert "script" not in answer.text
