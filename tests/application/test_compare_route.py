"""`GET /models/{name}/compare`: the command line's document, for the page and for scripts."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from pydantic import TypeAdapter
from tests.application.conftest import Serve
from tests.conftest import Mindtrace

from mindtrace.application import models
from mindtrace.application.schemas import ComparisonItem
from mindtrace.config.settings import load_settings
from mindtrace.errors import BundleError, NotFoundError, StoreError, UsageError


@pytest.mark.slow
def test_it_is_the_document_of_the_command(
    trained: Path, serve: Serve, mindtrace: Mindtrace
) -> None:
    settings = load_settings(sets=[f"DIR_PATHS.ROOT={trained}"], environ={})
    with serve(settings) as client:
        answer = client.get("/models/digits/compare", params={"a": 1, "b": 1})
        missing = client.get("/models/digits/compare", params={"a": 1, "b": 9})
    words = ("registry", "compare", "digits/1", "1", "--json")
    printed = mindtrace(*words, env={"DIR_PATHS__ROOT": str(trained)}).stdout
    assert answer.json() == json.loads(printed)
    TypeAdapter(ComparisonItem).validate_python(answer.json(), strict=True)
    assert (missing.status_code, "digits/9" in missing.json()["detail"]) == (404, True)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("tested on different images", hint="evaluate"), 409),
        (NotFoundError("version", "m/2", ["m/1"]), 404),
        (BundleError("/some/where", "damaged"), 503),
        (StoreError("away"), 503),
    ],
)
def test_what_cannot_be_compared(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def compare(_: object, a: str, b: str) -> None:
        assert (a, b) == ("m/1", "m/2")
        raise error

    monkeypatch.setattr(models.promotion, "compare", compare)
    answer = client.get("/models/m/compare", params={"a": 1, "b": 2})
    assert answer.status_code == status
    assert "where" not in answer.text
    if status == 409:
        assert answer.json()["type"] == "urn:mindtrace:problem:not-comparable"
        assert answer.json()["hint"] == "evaluate"


@pytest.mark.parametrize("query", ["", "a=1", "a=1&b=x", "a=0&b=1", "a=1&b=99999999999999999999"])
def test_strange_questions_are_422(client: httpx.Client, query: str) -> None:
    assert client.get(f"/models/m/compare?{query}").status_code == 422


@pytest.mark.parametrize("name", ["..", "a~history", "-x", "x" * 65])
def test_strange_names_name_nothing(client: httpx.Client, name: str) -> None:
    assert client.get(f"/models/{name}/compare?a=1&b=2").status_code == 404
