"""The OpenAPI document, and that its examples work when they are clicked."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.application.conftest import Serve

from mindtrace.application.schemas import EXAMPLE_IMAGE
from mindtrace.config.sections import PUBLISHED


@pytest.fixture
def idle(start: Serve) -> Iterator[httpx.Client]:
    """A server whose jobs are never started."""

    def change(application: Any) -> None:
        application.state.worker = False
        application.state.sidecar.wake = lambda: None

    with start(change=change) as client:
        yield client


def test_docs_are_there_under_a_policy_that_knows_no_other_host(client: httpx.Client) -> None:
    for path, styles in (("/docs", "'self'"), ("/redoc", "'self' 'unsafe-inline'")):
        answer = client.get(path)
        assert answer.headers["content-type"].startswith("text/html")
        policy = answer.headers["content-security-policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self'", f"style-src {styles}"} <= set(policy)
        assert "http" not in "".join(policy)


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> dict[str, Any]:
    """What client generators read."""
    found: dict[str, Any] = client.get("/openapi.json").json()
    return found


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield f"{method.upper()} {path}", operation


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from _references(inner)


def test_the_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    if not os.environ.get("CI"):
        pytest.importorskip("schemathesis")
    from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

    assert document["openapi"].startswith("3.1.")
    assert [str(error) for error in OPENAPI_31_VALIDATOR.iter_errors(document)] == []


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in set(_references(document)):
        node: Any = document
        assert reference.startswith("#/components/"), reference
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_every_operation_can_become_a_function(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, operation in _operations(document)]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() for name in names)
    for where, operation in _operations(document):
        assert operation["summary"], where
        declared = {row["name"] for row in operation.get("parameters", ()) if row["in"] == "path"}
        assert declared == set(re.findall(r"{(\w+)}", where)), where
        assert any(status < "300" for status in operation["responses"]), where


def test_whoever_is_sent_away_is_told_when_to_come_back(document: dict[str, Any]) -> None:
    for where, operation in _operations(document):
        for status in {"429", "503"} & set(operation["responses"]):
            assert operation["responses"][status]["headers"]["Retry-After"]["required"], where


def test_every_refusal_is_declared_as_a_problem(document: dict[str, Any]) -> None:
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for where, operation in _operations(document):
        for status, response in operation["responses"].items():
            if status >= "400":
                (kind,) = response["content"]
                assert kind == "application/problem+json", where
                assert response["content"][kind]["schema"]["$ref"].endswith("/ProblemDocument")


def test_what_a_retraining_may_set_is_typed(document: dict[str, Any]) -> None:
    content = document["paths"]["/retrain"]["post"]["requestBody"]["content"]
    sections = content["application/json"]["schema"]["oneOf"][0]["properties"]
    keys = {
        f"{section}.{key}"
        for section, schema in sections.items()
        for key in schema.get("properties", ())
    }
    assert keys == {".".join(place) for place in PUBLISHED}
    epochs = sections["train"]["properties"]["max_epochs"]
    assert (epochs["anyOf"][0], epochs["default"]) == ({"type": "integer", "minimum": 1}, 10)
    assert epochs["description"].startswith("passes over the training images")
    weights = sections["model"]["properties"]["weights"]["anyOf"][0]["enum"]
    assert weights == ["auto", "none", "default"]


@pytest.mark.parametrize(("path", "status"), [("/inference", 200), ("/retrain", 202)])
def test_examples_work(idle: httpx.Client, path: str, status: int) -> None:
    document = idle.get("/openapi.json").json()
    content = document["paths"][path]["post"]["requestBody"]["content"]
    examples = [row["value"] for row in content["application/json"]["examples"].values()]
    assert len(examples) >= 2
    for example in examples:
        answer = idle.post(path, json=example)
        # The registry is empty, so no version is there to start from.
        assert answer.status_code == (404 if "base" in example else status), answer.text
    if path == "/retrain":
        text = content["text/x-ini"]["example"]
        answer = idle.post(path, content=text, headers={"content-type": "text/x-ini"})
        assert answer.status_code == status


def test_405_names_all_methods_of_the_path(client: httpx.Client) -> None:
    answer = client.put("/jobs/1", json={})
    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, GET, HEAD")


def test_a_parameter_in_the_wrong_place_is_not_passed_over(client: httpx.Client) -> None:
    answer = client.post("/inference?top_k=3", json={"image": EXAMPLE_IMAGE})
    assert (answer.status_code, "stands in the body" in answer.text) == (422, True)


@pytest.mark.parametrize(
    ("body", "kind"),
    [("[trian]\n", "text/x-ini"), ('{"trian": {}}', "application/json")],
)
def test_an_unknown_section_without_keys_is_a_fault(
    client: httpx.Client, body: str, kind: str
) -> None:
    answer = client.post("/retrain/check", content=body, headers={"content-type": kind})
    assert answer.status_code == 422
    assert "did you mean [train]?" in answer.text


def test_a_whole_number_may_be_written_as_a_float(client: httpx.Client) -> None:
    for version, status in ((1.0, 404), (1.5, 422)):
        body, headers = {"version": version}, {"if-match": "*"}
        answer = client.post("/models/x/promote", json=body, headers=headers)
        assert answer.status_code == status, answer.text
