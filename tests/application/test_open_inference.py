"""The Open Inference Protocol v2: by a stock client, and by plain HTTP."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import struct
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import httpx
import numpy as np
import pytest
from tests.application.conftest import CLASSES, JSON, SPEC, Serve, png, probabilities

from mindtrace.config.settings import Settings
from mindtrace.preprocess import normalise
from mindtrace.version import VERSION

DARK, BRIGHT = png(0), png(255)
INFER = "/v2/models/squares/infer"


@pytest.fixture(scope="module")
def client(module_settings: Settings, bundle: Any, serve: Serve) -> Iterator[httpx.Client]:
    """A server whose model is registered as version 3 of `squares`."""

    def change(application: Any) -> None:
        slot = application.state.served
        slot.model = dataclasses.replace(slot.model, model_name="squares", version=3)

    with serve(module_settings, str(bundle), change=change) as client:
        yield client


@pytest.fixture(scope="module")
def triton() -> ModuleType:
    """Triton's client library."""
    if not os.environ.get("CI"):
        pytest.importorskip("tritonclient.http")
    import tritonclient.http

    return tritonclient.http


@pytest.fixture
def stock(client: httpx.Client, triton: ModuleType) -> Iterator[Any]:
    """A stock client of the same server."""
    url = f"{client.base_url.host}:{client.base_url.port}"
    with contextlib.closing(triton.InferenceServerClient(url)) as stock:
        yield stock


def _images(*files: bytes, **more: Any) -> dict[str, Any]:
    data = [base64.b64encode(file).decode() for file in files]
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(files)], "data": data}
    return {"inputs": [tensor], **more}


def _pixels(data: Any, shape: list[int], **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "input", "datatype": "FP32", "shape": shape, "data": data, **more}]}


def _outputs(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return {output["name"]: output for output in answer.json()["outputs"]}


def _refusal(
    client: httpx.Client, body: Any, tail: bytes | None = None, length: str | None = None
) -> str:
    """The error of a request that must be a 400; with binary data behind the JSON, or without."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = JSON
    if tail is not None:
        said = str(len(text)) if length is None else length
        headers = {"Inference-Header-Content-Length": said}
    answer = client.post(INFER, content=text + (tail or b""), headers=headers)
    assert answer.status_code == 400, answer.text
    fields = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (fields["status"], fields["error"]) == (400, fields["detail"])
    return str(fields["error"])


def test_a_stock_client_asks_for_everything_there_is(stock: Any) -> None:
    assert stock.is_server_live()
    assert stock.is_server_ready()
    assert stock.is_model_ready("squares")
    assert stock.is_model_ready("squares", "3")
    assert not stock.is_model_ready("squares", "2")
    assert not stock.is_model_ready("circles")
    assert stock.get_server_metadata() == {
        "name": "mindtrace",
        "version": VERSION,
        "extensions": ["binary_tensor_data"],
    }
    metadata = stock.get_model_metadata("squares", "3")
    assert (metadata["name"], metadata["versions"]) == ("squares", ["3"])
    assert {row["name"]: row["shape"] for row in metadata["inputs"]} == {
        "image": [-1],
        "input": [-1, 1, 8, 8],
    }
    assert {row["name"]: row["datatype"] for row in metadata["outputs"]} == {
        "probabilities": "FP32",
        "label": "INT64",
        "class_name": "BYTES",
    }


@pytest.mark.parametrize("path", ["/v2/models/squares", "/v2/models/squares/versions/3"])
def test_the_metadata_is_enough_to_make_the_networks_input(client: httpx.Client, path: str) -> None:
    """From what it says alone, pixels as tensors are answered as the file is."""
    metadata = client.get(path).json()
    image, tensor = metadata["inputs"]
    assert metadata["outputs"][-1]["parameters"]["class_names"] == [*CLASSES]
    assert set(image) == {"name", "datatype", "shape"}
    said = tensor["parameters"]
    assert (said["mode"], said["height"], said["width"], said["layout"]) == ("L", 8, 8, "NCHW")
    level = np.full((1, 1, 8, 8), 90) / 255 * said["scale"][1]
    pixels = (level - said["mean"][0]) / said["std"][0]
    by_tensor = client.post(INFER, json=_pixels(pixels.ravel().tolist(), [1, 1, 8, 8]))
    by_file = client.post(INFER, json=_images(png(90)))
    np.testing.assert_allclose(
        _outputs(by_tensor)["probabilities"]["data"],
        _outputs(by_file)["probabilities"]["data"],
        atol=1e-5,
    )


def test_a_stock_client_sends_image_files(stock: Any, triton: ModuleType) -> None:
    tensor = triton.InferInput("image", [2], "BYTES")
    tensor.set_data_from_numpy(np.array([DARK, BRIGHT], object))
    answer = stock.infer("squares", [tensor], request_id="r-1")
    expected = probabilities(np.stack([np.full((8, 8), level, np.uint8) for level in (0, 255)]))
    np.testing.assert_allclose(answer.as_numpy("probabilities"), expected, atol=1e-6)
    assert answer.as_numpy("label").tolist() == [0, 1]
    assert answer.as_numpy("class_name").tolist() == [b"dark", b"bright"]
    fields = answer.get_response()
    assert (fields["id"], fields["model_name"], fields["model_version"]) == ("r-1", "squares", "3")


def test_a_stock_client_sends_normalised_input(stock: Any, triton: ModuleType) -> None:
    pixels = np.stack([np.full((8, 8), level, np.uint8) for level in (10, 240, 30)])
    tensor = triton.InferInput("input", [3, 1, 8, 8], "FP32")
    tensor.set_data_from_numpy(normalise(pixels, SPEC))
    answer = stock.infer("squares", [tensor], model_version="3")
    np.testing.assert_allclose(answer.as_numpy("probabilities"), probabilities(pixels), atol=1e-6)


@pytest.mark.parametrize("binary", [True, False])
def test_a_stock_client_chooses_outputs(stock: Any, triton: ModuleType, binary: bool) -> None:
    tensor = triton.InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([BRIGHT], object))
    wanted = [
        triton.InferRequestedOutput("class_name", binary_data=binary),
        triton.InferRequestedOutput("label", binary_data=False),
    ]
    answer = stock.infer("squares", [tensor], outputs=wanted)
    assert [row["name"] for row in answer.get_response()["outputs"]] == ["class_name", "label"]
    assert "data" in answer.get_output("label")
    assert ("data" in answer.get_output("class_name")) is not binary
    assert answer.as_numpy("class_name").tolist() == [b"bright" if binary else "bright"]


@pytest.mark.parametrize("files", [[DARK], [DARK, BRIGHT], [BRIGHT] * 5])
def test_a_stock_client_sends_json_alone(
    stock: Any, triton: ModuleType, files: list[bytes]
) -> None:
    """With binary_data=False it sends no content type."""
    tensor = triton.InferInput("image", [len(files)], "BYTES")
    texts = [base64.b64encode(file) for file in files]
    tensor.set_data_from_numpy(np.array(texts, object), binary_data=False)
    wanted = [triton.InferRequestedOutput("label", binary_data=False)]
    answer = stock.infer("squares", [tensor], outputs=wanted)
    assert answer.as_numpy("label").tolist() == [int(file == BRIGHT) for file in files]


def test_a_stock_client_reads_the_index(stock: Any, client: httpx.Client) -> None:
    entry = {"name": "squares", "version": "3", "state": "READY", "reason": ""}
    assert stock.get_model_repository_index() == [entry]
    index = "/v2/repository/index"
    assert client.post(index, json={"ready": True}).json() == [entry]
    assert client.post(index, headers={"Origin": "http://evil.example"}).status_code == 403


def test_a_stock_client_reads_our_errors(stock: Any, triton: ModuleType) -> None:
    from tritonclient.utils import InferenceServerException

    tensor = triton.InferInput("image", [2], "BYTES")
    tensor.set_data_from_numpy(np.array([DARK, b"no image"], object))
    with pytest.raises(InferenceServerException, match="image 1: not an image") as caught:
        stock.infer("squares", [tensor])
    assert caught.value.status() == "422"
    with pytest.raises(InferenceServerException, match="no model 'circles'"):
        stock.infer("circles", [tensor])


def test_json_in_and_out(client: httpx.Client) -> None:
    answer = client.post(INFER, json=_images(DARK, BRIGHT, id="7"))
    assert answer.headers["content-type"] == "application/json"
    fields = answer.json()
    assert (fields["model_name"], fields["model_version"], fields["id"]) == ("squares", "3", "7")
    outputs = _outputs(answer)
    assert outputs["probabilities"]["shape"] == [2, len(CLASSES)]
    assert len(outputs["probabilities"]["data"]) == 2 * len(CLASSES)
    assert outputs["label"]["data"] == [0, 1]
    assert outputs["class_name"]["data"] == ["dark", "bright"]


@pytest.mark.parametrize("nested", [True, False])
def test_pixels_nested_or_flat(client: httpx.Client, nested: bool) -> None:
    pixels = np.full((2, 8, 8), 250, np.uint8)
    values = normalise(pixels, SPEC)
    data = values.tolist() if nested else values.ravel().tolist()
    found = _outputs(client.post(INFER, json=_pixels(data, [2, 1, 8, 8])))
    assert found["label"]["data"] == [1, 1]


def test_a_request_for_binary_output_is_honoured_but_where_an_output_says_otherwise(
    client: httpx.Client,
) -> None:
    wanted = [{"name": "label"}, {"name": "class_name", "parameters": {"binary_data": False}}]
    asked = _images(DARK, parameters={"binary_data_output": True}, outputs=wanted)
    answer = client.post(INFER, json=asked)
    length = int(answer.headers["inference-header-content-length"])
    label, class_name = json.loads(answer.content[:length])["outputs"]
    assert answer.headers["content-type"] == "application/octet-stream"
    assert (label["parameters"], class_name["data"]) == ({"binary_data_size": 8}, ["dark"])
    assert answer.content[length:] == bytes(8)


_ROW = [0.0] * 64
_TAIL = struct.pack("<I", len(DARK)) + DARK
_TENSOR = {"name": "image", "datatype": "BYTES", "shape": [1]}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        # Is refused before it is parsed, which would take long.
        (b"[" * 100_000, "not JSON"),
        (b'{"a": [' + b"{}," * 1000, "values in JSON"),
        (b"[0" + b",0" * 2**21, "values in JSON"),
        ({"inputs": []}, "inputs: List should have at least 1 item"),
        (_pixels(_ROW, [1, 1, 8, 9]), "must be [n, 1, 8, 8]"),
        (_pixels(_ROW, [2, 1, 8, 8]), "has 64 values, its shape says 128"),
        (_pixels([], [0, 1, 8, 8]), "inputs.0.shape.0: Input should be greater than"),
        ({"inputs": _images(DARK)["inputs"] * 2}, "inputs: List should have at most 1 item"),
        (_pixels(_ROW, [True, 1, 8, 8]), "inputs.0.shape.0: Input should be a valid integer"),
        (_pixels(_ROW, [1025, 1, 8, 8]), "1 to 1024 rows"),
        (_pixels([1e39, *_ROW[1:]], [1, 1, 8, 8]), "beyond float32"),
        (_pixels([10**400, *_ROW[1:]], [1, 1, 8, 8]), "is infinity"),
        (_pixels([True, *_ROW[1:]], [1, 1, 8, 8]), "must be numbers"),
        (_pixels(["1", *_ROW[1:]], [1, 1, 8, 8]), "must be numbers"),
        (_pixels([[_ROW, _ROW]], [2, 1, 8, 8]), "not nested as its shape"),
        (_pixels(_ROW, [1, 1, 8, 8], parameters={"binary_data_size": 4}), "binary_data_size"),
        ({**_pixels(_ROW, [1, 1, 8, 8]), "extra": 1}, "extra: Extra inputs are not permitted"),
        ({"inputs": [{**_TENSOR, "name": "x", "data": []}]}, "expected tags: 'image', 'input'"),
        (
            {"inputs": [{**_TENSOR, "datatype": "FP32", "data": []}]},
            "inputs.0.datatype: Input should be 'BYTES'",
        ),
        ({"inputs": [_TENSOR]}, "must have either a list 'data'"),
        ({"inputs": [{**_TENSOR, "data": ["%%%"]}]}, "not base64"),
        ({"inputs": [{**_TENSOR, "shape": [1, 2], "data": []}]}, "[n] or [n, 1]"),
        (_images(DARK, id="\ud800"), "surrogate"),
        (_images(DARK, outputs=[{"name": "logits"}]), "outputs.0.name: Input should be"),
        (
            _images(DARK, outputs=[{"name": "label", "parameters": {"classification": 2}}]),
            "outputs.0.parameters.classification: Input should be None",
        ),
        (_images(DARK, parameters={"binary_data_output": 1}), "should be a valid boolean"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_refused(client: httpx.Client, body: Any, expected: str) -> None:
    assert expected in _refusal(client, body)


def test_other_routes_have_no_error_of_this_protocol(client: httpx.Client) -> None:
    assert "error" not in client.post("/inference", json={}).json()


@pytest.mark.parametrize(
    ("change", "tail", "expected"),
    [
        ({}, b"", "binary_data_size"),
        ({"parameters": {"binary_data_size": 3}}, _TAIL, "bytes behind the JSON"),
        ({"parameters": {"binary_data_size": True}}, b"a", "should be a valid integer"),
        ({"parameters": {"binary_data_size": 3}}, b"abc", "within the length"),
        ({"parameters": {"binary_data_size": 6}}, b"\xff\xff\xff\xff..", "within an element"),
        ({"parameters": {"binary_data_size": 0}}, b"", "has 0 values"),
        ({"data": ["eA=="]}, b"more", "binary_data_size"),
    ],
)
def test_torn_binary_data(
    client: httpx.Client, change: dict[str, Any], tail: bytes, expected: str
) -> None:
    assert expected in _refusal(client, {"inputs": [{**_TENSOR, **change}]}, tail)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([np.nan], "NaN"), ([np.inf], "NaN, infinite"), ([], "its shape says 64")],
)
def test_binary_values_that_are_no_numbers(
    client: httpx.Client, values: list[float], expected: str
) -> None:
    tail = np.array(values * 64, "<f4").tobytes()
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 1, 8, 8]}
    body = {"inputs": [{**tensor, "parameters": {"binary_data_size": len(tail)}}]}
    assert expected in _refusal(client, body, tail)


@pytest.mark.parametrize("length", ["-1", "1e3", "x", ""])
def test_a_wrong_length_of_the_json(client: httpx.Client, length: str) -> None:
    assert "Inference-Header-Content-Length" in _refusal(client, {"inputs": []}, b"", length)


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/v2/models/circles", "no model 'circles'"),
        ("/v2/models/squares/versions/4", "no version 'squares/4'"),
        ("/v2/models/squares/versions/03/ready", "no version"),
        ("/v2/models/Squares/ready", "no model"),
    ],
)
def test_another_name_or_version_is_not_there(client: httpx.Client, path: str, named: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert named in answer.json()["error"]
    assert "squares" in answer.json()["error"]


def test_another_version_does_not_answer(client: httpx.Client) -> None:
    path = "/v2/models/squares/versions/{}/infer"
    assert client.post(path.format(3), json=_images(DARK)).status_code == 200
    assert client.post(path.format(2), json=_images(DARK)).status_code == 404


def test_a_body_needs_a_type_that_pages_cannot_send(client: httpx.Client) -> None:
    text = json.dumps(_images(DARK)).encode()
    # A page cannot send this header unless the server, asked first, allows it.
    length = {"Inference-Header-Content-Length": str(len(text))}
    for headers, status in (
        ({}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "application/octet-stream"}, 415),
        ({**JSON, "Content-Encoding": "gzip"}, 415),
        (length, 200),
        ({**length, "Origin": "http://evil.example"}, 403),
    ):
        assert client.post(INFER, content=text, headers=headers).status_code == status


def test_a_bundle_without_a_name(start: Serve) -> None:
    with start() as client:
        assert client.get("/v2/models/bundle").json()["versions"] == []
        fields = client.post("/v2/models/bundle/infer", json=_images(DARK)).json()
        assert "model_version" not in fields
        assert client.get("/v2/models/bundle/versions/1").status_code == 404


def test_the_index_of_a_server_that_stops_is_empty(start: Serve) -> None:
    def stopping(application: Any) -> None:
        application.state.served.draining = True

    with start(change=stopping) as client:
        assert client.post("/v2/repository/index").json() == []
        assert client.get("/v2/models/bundle/ready").status_code == 503


def test_without_a_model_it_is_not_ready(start: Serve) -> None:
    with start(ref=None) as client:
        assert client.get("/v2/health/live").json() == {"live": True}
        assert client.post("/v2/repository/index").json() == []
        for path in ("/v2/health/ready", "/v2/models/x", "/v2/models/x/ready"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert "no version to serve" in answer.json()["error"]
