"""`POST /inference` through a real server."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter
from tests.application.conftest import CLASSES, Serve, png, probabilities

from mindtrace.application.schemas import Answer, Answers
from mindtrace.core.settings import load_settings

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
    assert fields["request_id"] == answer.headers["x-request-id"]
    assert set(fields) == set(Answer.model_fields)
    TypeAdapter(Answer).validate_python(fields, strict=True)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_raw_bodies(client: httpx.Client, kind: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), (240, 240, 240)).save(buffer, kind)
    answer = client.post(
        "/inference?top_k=3", content=buffer.getvalue(), headers={"content-type": f"image/{kind}"}
    )
    assert answer.status_code == 200
    assert answer.json()["class_name"] == "bright"
    assert len(answer.json()["top_k"]) == 3


def test_multipart(client: httpx.Client) -> None:
    answer = client.post("/inference", files={"image": ("dark.png", png(10), "image/png")})
    assert answer.status_code == 200
    assert answer.json()["class_name"] == "dark"


def test_one_bad_image_hurts_only_itself(client: httpx.Client) -> None:
    body = {"images": [BRIGHT, base64.b64encode(b"no image").decode(), "%%", 7, DARK]}
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


def test_a_large_image_takes_the_thread_and_the_same_answer(client: httpx.Client) -> None:
    noise = np.random.default_rng(0).integers(200, 256, (600, 600), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    answer = client.post(
        "/inference", content=buffer.getvalue(), headers={"content-type": "image/png"}
    )
    assert answer.json()["class_name"] == "bright"


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b'{"image": NaN}', 400, "NaN"),
        (b"[" * 100_000, 400, "not JSON"),
        (b"[]", 422, "JSON object"),
        (b"{}", 422, "'image' or 'images'"),
        (b'{"image": "QQ==", "images": []}', 422, "'image' or 'images'"),
        (b'{"picture": "QQ=="}', 422, "picture"),
        (b'{"image": 3}', 422, "text in base64"),
        (b'{"image": "***"}', 400, "not base64"),
        (b'{"image": "\\u00e4"}', 400, "not base64"),
        (b'{"image": ""}', 422, "empty"),
        (b'{"image": "QUJD"}', 422, "not an image"),
        (b'{"images": []}', 422, "1 to 1024"),
        (b'{"images": "QQ=="}', 422, "list"),
        (b'{"image": "QUJD", "top_k": 0}', 422, "top_k"),
        (b'{"image": "QUJD", "top_k": true}', 422, "top_k"),
        (b'{"image": "QUJD", "top_k": "3"}', 422, "top_k"),
    ],
)
def test_bad_json(client: httpx.Client, body: bytes, status: int, says: str) -> None:
    answer = client.post("/inference", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert says in answer.json()["detail"]
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_other_bad_bodies(client: httpx.Client) -> None:
    other = client.post("/inference", content=b"x", headers={"content-type": "image/gif"})
    assert other.status_code == 415
    assert "image/png" in other.headers["accept"]
    empty = client.post("/inference", content=b"", headers={"content-type": "image/png"})
    assert (empty.status_code, empty.json()["detail"]) == (422, "the image is empty")
    field = client.post("/inference", files={"picture": ("a.png", png(3), "image/png")})
    assert field.status_code == 422
    assert "no file 'image'" in field.json()["detail"]
    broken = client.post(
        "/inference", content=b"--x", headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert broken.status_code in (400, 422)
    bad_query = client.post(
        "/inference?top_k=no", content=png(3), headers={"content-type": "image/png"}
    )
    assert bad_query.status_code == 422


def test_a_truncated_image_is_422(client: httpx.Client) -> None:
    whole = png(77, size=64)
    answer = client.post(
        "/inference", content=whole[: len(whole) // 2], headers={"content-type": "image/png"}
    )
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


def test_limits_of_body_and_pixels(tmp_path: Path, bundle: Path, serve: Serve) -> None:
    sets = [f"DIR_PATHS.ROOT={tmp_path}", "serve.max_body=2 KiB", "serve.max_pixels=100"]
    settings = load_settings(sets=sets, environ={})
    headers = {"content-type": "image/png"}
    with serve(settings, str(bundle)) as client:
        said = client.post("/inference", content=b"x" * 2049, headers=headers)
        pieces = (b"x" * 100 for _ in range(30))
        unsaid = client.post("/inference", content=pieces, headers=headers)
        large = client.post("/inference", content=png(3, size=20), headers=headers)
    for answer in (said, unsaid):
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"
        assert "2,048 bytes" in answer.json()["detail"]
    assert large.status_code == 422
    assert "100" in large.json()["detail"]


def test_class_names_come_from_the_bundle(client: httpx.Client) -> None:
    fields = post(client, {"image": DARK, "top_k": 99}).json()
    assert sorted(row["class_name"] for row in fields["top_k"]) == sorted(CLASSES)
