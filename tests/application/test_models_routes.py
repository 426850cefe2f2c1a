"""`/models`: what is registered, as the command line tells it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter
from tests.application.conftest import PNG, Serve, png
from tests.application.registered import Registered
from tests.conftest import Mindtrace, RunCli

from mindtrace.application import models
from mindtrace.application.schemas import ComparisonItem, ModelItem, Page, VersionItem
from mindtrace.config.settings import Settings, load_settings
from mindtrace.errors import BundleError, NotFoundError, StoreError, UsageError
from mindtrace.service.registry import VersionSummary


def test_nothing_registered_is_an_empty_list(client: httpx.Client) -> None:
    assert client.get("/models").json() == {"items": [], "next_cursor": None}
    missing = client.get("/models/digits/versions")
    assert missing.status_code == 404
    assert "root" not in missing.text
    assert client.get("/models/digits/versions/1").status_code == 404


@pytest.mark.parametrize("name", ["..", "%2e%2e", "a~history", "a%2Fb", "-x", "x" * 65, "%00"])
@pytest.mark.parametrize("path", ["versions", "versions/1", "compare?a=1&b=2", "history"])
def test_strange_names_name_nothing(client: httpx.Client, name: str, path: str) -> None:
    assert client.get(f"/models/{name}/{path}").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        *(f"versions/{version}" for version in ("0", "-1", "x", "99999999999999999999")),
        *(f"compare?{query}" for query in ("", "a=1", "a=1&b=x", "a=0&b=1", f"a=1&b={10**20}")),
    ],
)
def test_strange_versions_are_422(client: httpx.Client, path: str) -> None:
    assert client.get(f"/models/digits/{path}").status_code == 422


def test_pages_lead_to_the_end(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = [version for version in range(25, 0, -1) if version != 13]

    def list_versions(
        _: Settings, name: str, limit: int, *, after: int | None, **query: str | None
    ) -> list[VersionSummary]:
        assert query == {"where": "version > 0", "sort": None}
        behind = [version for version in everything if after is None or version < after]
        return [_summary(name, version) for version in behind[:limit]]

    monkeypatch.setattr(models.registry, "list_versions", list_versions)
    seen: list[int] = []
    cursor: str | None = None
    for _ in range(10):
        query = {"limit": "10", "where": "version > 0", **({"cursor": cursor} if cursor else {})}
        page = client.get("/models/m/versions", params=query).json()
        seen += [item["version"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == everything


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ({"where": "val_ac > 1"}, "did you mean 'val_acc'"),
        ({"where": "(" * 300}, "nested"),
        ({"sort": "aliass"}, "did you mean 'alias'"),
    ],
)
def test_a_query_that_cannot_be_read_is_422(
    client: httpx.Client, query: dict[str, str], told: str
) -> None:
    answer = client.get("/models/digits/versions", params=query)

    assert answer.status_code == 422
    assert told in answer.json()["detail"]
    assert answer.json()["hint"]


def test_names_come_in_pages(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_version(*_: object) -> None:
        raise NotFoundError("alias", "x")

    monkeypatch.setattr(models.registry, "list_models", lambda _: ["a", "b", "c"])
    monkeypatch.setattr(models.registry, "list_versions", lambda *_, **__: [])
    monkeypatch.setattr(models.registry, "show_version", no_version)
    first = client.get("/models?limit=2").json()
    TypeAdapter(Page[ModelItem]).validate_python(first, strict=True)
    assert [item["model_name"] for item in first["items"]] == ["a", "b"]
    second = client.get("/models", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [item["model_name"] for item in second["items"]] == ["c"]
    assert second["next_cursor"] is None


def _summary(name: str, version: int) -> VersionSummary:
    return VersionSummary(name, version, (), {}, "2025-01-01T00:00:00.000+00:00", *[None] * 4)


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


@pytest.fixture(scope="module")
def real(trained: Path, serve: Serve) -> Iterator[httpx.Client]:
    settings = load_settings(sets=[f"DIR_PATHS.ROOT={trained}"], environ={})
    with serve(settings) as client:
        yield client


@pytest.mark.slow
def test_a_trained_version(real: httpx.Client) -> None:
    assert real.get("/models").json()["items"][0] == {
        "schema_version": 1,
        "model_name": "digits",
        "champion": 1,
        "latest": 1,
    }

    def versions(**query: str) -> Any:
        return real.get("/models/digits/versions", params=query).json()

    page = versions()
    TypeAdapter(Page[VersionItem]).validate_json(json.dumps(page), strict=True)
    assert page["items"][0]["aliases"] == ["champion"]
    assert versions(where="val_acc > 0 and alias = champion")["items"] == page["items"]
    assert versions(where="val_acc > 1") == {"items": [], "next_cursor": None}
    stale = versions(cursor="9", sort="val_acc")
    assert (stale["status"], "cursor" in stale["detail"]) == (422, True)
    shown = real.get("/models/digits/versions/1").json()
    TypeAdapter(VersionItem).validate_json(json.dumps(shown), strict=True)
    assert shown["params"]["data.source"] == "digits"
    assert "report" not in shown, "a path of this machine"
    files = {
        name: real.get(f"/models/digits/versions/1/report/{name}") for name in shown["report_files"]
    }
    assert {"report.json", "curves.png", "confusion.png", "calibration.png"} <= set(files)
    for name, file in files.items():
        kind = "image/png" if name.endswith(".png") else "application/json"
        assert (file.status_code, file.headers["content-type"]) == (200, kind)
        assert file.headers["x-content-type-options"] == "nosniff"
    assert len(files["report.json"].json()["classes"]) == 10
    assert files["curves.png"].content.startswith(b"\x89PNG")
    for name in ("report.html", "none.png", "%2e%2e%2freport.json", "..%2fbundle%2fmodel.json"):
        refused = real.get(f"/models/digits/versions/1/report/{name}")
        assert (refused.status_code, "mlartifacts" in refused.text) == (404, False)
    unknown = real.get("/models/digits/versions/9")
    assert (unknown.status_code, "digits/1" in unknown.json()["detail"]) == (404, True)
    answer = real.post("/inference", content=png(200), headers=PNG).json()
    assert (answer["model_name"], answer["version"]) == ("digits", 1)


@pytest.mark.slow
def test_a_comparison_is_the_document_of_the_command(
    real: httpx.Client, trained: Path, mindtrace: Mindtrace
) -> None:
    answer = real.get("/models/digits/compare", params={"a": 1, "b": 1})
    missing = real.get("/models/digits/compare", params={"a": 1, "b": 9})
    words = ("registry", "compare", "digits/1", "1", "--json")
    printed = mindtrace(*words, env={"DIR_PATHS__ROOT": str(trained)}).stdout
    assert answer.json() == json.loads(printed)
    TypeAdapter(ComparisonItem).validate_json(answer.content, strict=True)
    assert (missing.status_code, "digits/9" in missing.json()["detail"]) == (404, True)


def test_a_model_with_a_number_as_its_name(
    two: Registered, serve: Serve, run_cli: RunCli, tmp_path: Path
) -> None:
    """Whatever takes a model's name or a version takes this one."""
    for scale in (1.0, 2.0):
        two.add(scale, name="2024")
    (tmp_path / "8.png").write_bytes(png(8))
    for words in (
        ("predict", str(tmp_path / "8.png"), "--model", "2024"),
        ("registry", "list", "2024"),
        ("registry", "show", "2024"),
        ("registry", "diff", "2024", "2024/2"),
        ("registry", "verify", "2024"),
        ("registry", "promote", "2024"),
        ("registry", "history", "2024"),
        ("registry", "export", "2024", str(tmp_path / "exported")),
    ):
        result = run_cli(*words)
        assert result.exit_code == 0, (words, result.stderr)
        assert "squares" not in result.stdout, words
    with serve(two.settings, "2024") as client:
        assert client.get("/models/2024/versions/1").json()["model_name"] == "2024"
        assert client.get("/models/2024/history").status_code == 200
        answer = client.post("/inference", content=png(8), headers={"Content-Type": "image/png"})
        assert (answer.json()["model_name"], answer.json()["version"]) == ("2024", 1)
