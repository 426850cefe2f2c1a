"""The OpenAPI document, and that its examples work when they are clicked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.application.conftest import Serve

from mindtrace.core.settings import load_settings


@pytest.fixture(scope="module")
def idle(
    tmp_path_factory: pytest.TempPathFactory, bundle: Path, serve: Serve
) -> Iterator[httpx.Client]:
    """A server whose jobs are never started."""

    def change(application: Any) -> None:
        application.state.runner.wake = lambda: None

    folder = tmp_path_factory.mktemp("root")
    settings = load_settings(sets=[f"DIR_PATHS.ROOT={folder}"], environ={})
    with serve(settings, str(bundle), change=change) as client:
        yield client


def test_docs_are_there(client: httpx.Client) -> None:
    assert client.get("/docs").headers["content-type"].startswith("text/html")
    document = client.get("/openapi.json").json()
    assert document["info"]["title"] == "mindtrace"
    assert {
        "/inference",
        "/retrain",
        "/jobs",
        "/jobs/{job_id}",
        "/models",
        "/models/{name}/versions",
        "/models/{name}/versions/{version}",
        "/models/{name}/history",
        "/models/{name}/promote",
        "/models/{name}/rollback",
        "/healthz/live",
        "/healthz/ready",
    } <= set(document["paths"])


def test_every_refusal_is_declared_as_a_problem(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for path in document["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                if status >= "400":
                    content = response["content"]["application/problem+json"]
                    assert content["schema"]["$ref"].endswith("/ProblemDocument")
                    assert list(response["content"]) == ["application/problem+json"]


@pytest.mark.parametrize(("path", "status"), [("/inference", 200), ("/retrain", 202)])
def test_examples_work(idle: httpx.Client, path: str, status: int) -> None:
    document = idle.get("/openapi.json").json()
    content = document["paths"][path]["post"]["requestBody"]["content"]
    examples = [row["value"] for row in content["application/json"]["examples"].values()]
    assert len(examples) == 2
    for example in examples:
        answer = idle.post(path, json=example)
        assert answer.status_code == status, answer.text
    if path == "/retrain":
        text = content["text/x-ini"]["example"]
        answer = idle.post(path, content=text, headers={"content-type": "text/x-ini"})
        assert answer.status_code == status
