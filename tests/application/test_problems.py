"""Every refusal is a problem document, and none tells what is not the client's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.application.conftest import Serve

from mindtrace import errors
from mindtrace.application.problems import STATUS, from_error, status_of
from mindtrace.errors import MindtraceError


def _family(kind: type[MindtraceError]) -> Iterator[type[MindtraceError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _family(child)


def test_every_error_of_the_tree_has_a_status() -> None:
    own = [kind for kind in _family(MindtraceError) if kind.__module__ == errors.__name__]
    assert {kind for kind in own if kind not in STATUS} == set()
    assert all(400 <= status_of(kind) < 600 for kind in own)


@pytest.mark.parametrize(
    "error",
    [
        errors.BundleError("/srv/secret/bundle", "model.onnx is missing"),
        errors.StoreError("registry /srv/secret/mlflow.db: disk I/O error"),
        errors.DataFolderError(Path("/srv/secret"), "empty"),
        errors.NotFoundError("registry", "/srv/secret/mlflow.db"),
        errors.TrainingError("/srv/secret went wrong"),
    ],
)
def test_paths_stay_on_the_server(error: MindtraceError) -> None:
    assert b"/srv" not in from_error(error).body("id")


def test_configuration_faults_are_told_one_by_one() -> None:
    faults = [errors.Fault("config", n, "train", "lr", f"fault {n}") for n in (1, 2)]
    document = from_error(errors.ConfigError(faults, hint="mend it")).document("id")
    assert document["status"] == 422
    assert document["hint"] == "mend it"
    assert [row["line"] for row in document["errors"]] == [1, 2]


def test_unknown_routes_and_methods(client: httpx.Client) -> None:
    missing, wrong, fits_not = map(client.get, ("/nothing", "/inference", "/jobs?limit=0"))
    assert fits_not.json()["errors"][0]["name"] == "limit"
    for answer, status in ((missing, 404), (wrong, 405), (fits_not, 422)):
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        assert answer.json()["status"] == answer.status_code == status


def test_request_ids_are_echoed_or_made(client: httpx.Client) -> None:
    given = client.get("/healthz/live", headers={"x-request-id": "abc-1.2_3"})
    assert given.headers["x-request-id"] == "abc-1.2_3"
    for bad in ("x" * 129, "a b", "ä".encode(), ""):
        answer = client.get("/healthz/live", headers={"x-request-id": bad})
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_an_accident_is_500_and_the_log_says_more(
    start: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    def add_accident(application: Any) -> None:
        @application.get("/accident")
        def accident() -> None:
            raise RuntimeError("secret of /srv/x")

    with start(change=add_accident) as client:
        answer = client.get("/accident", headers={"x-request-id": "accident-7"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == "accident-7"
    assert "secret" not in answer.text
    log = capfd.readouterr().err
    assert "secret" in log
    assert "accident-7" in log
