"""Live, ready, and a server that waits for its first version."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.application.conftest import PNG, Serve, png, write_bundle

from mindtrace.application import inference
from mindtrace.application.served_model import ServedModel
from mindtrace.config.settings import Settings, load_settings
from mindtrace.errors import BundleError, NotFoundError, StoreError
from mindtrace.service import following
from mindtrace.service.following import open_or_wait
from mindtrace.service.predict import LoadedModel


def test_live_and_ready(client: httpx.Client) -> None:
    assert client.get("/healthz/live").json() == {"status": "live"}
    ready = client.get("/healthz/ready")
    assert ready.status_code == 200
    assert ready.json() == {"status": "ready", "model_name": None, "version": None}


def test_a_server_without_a_version_lives_and_says_what_to_do(start: Serve) -> None:
    with start(ref=None) as client:
        assert client.get("/healthz/live").status_code == 200
        for answer in (
            client.get("/healthz/ready"),
            client.post("/inference", content=png(3), headers=PNG),
        ):
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "5"
            assert "mindtrace train" in answer.json()["hint"]


def test_a_server_that_stops_says_so_first(start: Serve) -> None:
    with start(
        change=lambda application: setattr(application.state.served, "draining", True)
    ) as client:
        answer = client.get("/healthz/ready")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "stopping" in answer.json()["detail"]
        assert client.get("/healthz/live").status_code == 200
        assert client.post("/inference", content=png(3), headers=PNG).status_code == 200


def test_golden_images_go_the_way_of_requests(
    tmp_path: Path, module_settings: Settings, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault that only answers have, and the network has not, keeps the server from starting."""
    wrong_bundle = write_bundle(tmp_path / "wrong", golden_shift=0.01)
    with pytest.raises(BundleError, match="golden"):
        ServedModel(module_settings, str(wrong_bundle)).load()
    served = ServedModel(module_settings, str(bundle))
    right = inference.answer_quickly

    def wrong(model: LoadedModel, *args: Any) -> tuple[str, bytes]:
        found = right(model, *args)
        assert found is not None
        return found[0], found[1].replace(b'"probabilities":[0.', b'"probabilities":[1.')

    monkeypatch.setattr(inference, "answer_quickly", wrong)
    with pytest.raises(BundleError, match="golden images"):
        served.load()
    assert served.model is None
    # Where the fast path leaves a request to the full one, that is asked.
    monkeypatch.setattr(inference, "answer_quickly", lambda *_: None)
    served.load()
    served.require_ready()


@pytest.mark.parametrize(
    ("sets", "ref", "error", "waits"),
    [
        ([], None, NotFoundError("registry", "x"), True),
        ([], None, NotFoundError("model", None), True),
        ([], None, NotFoundError("alias", "m@champion", ["m@other"]), True),
        ([], None, NotFoundError("model", None, ["a", "b"]), False),
        (["registry.model_name=c"], None, NotFoundError("model", "c", ["a", "b"]), True),
        ([], "m/7", NotFoundError("version", "m/7", ["m/1"]), False),
        ([], None, StoreError("away"), False),
    ],
)
def test_waiting_is_for_what_may_appear(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sets: list[str],
    ref: str | None,
    error: Exception,
    waits: bool,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(following.reference, "locate", fail)
    settings = load_settings(sets=[f"DIR_PATHS.ROOT={tmp_path}", *sets], environ={})
    with contextlib.nullcontext() if waits else pytest.raises(type(error)):
        assert open_or_wait(settings, ref) is None
