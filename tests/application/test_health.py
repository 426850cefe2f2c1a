"""Live, ready, and a server that waits for its first version."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from tests.application.conftest import Serve, png, write_bundle

from mindtrace.application.problems import Problem
from mindtrace.application.slot import ModelSlot
from mindtrace.core.settings import Settings, load_settings
from mindtrace.errors import BundleError, NotFoundError, StoreError
from mindtrace.service import predict
from mindtrace.service.predict import LoadedModel
from mindtrace.service.serving import load_or_wait

IMAGE = {"content-type": "image/png"}


def test_live_and_ready(client: httpx.Client) -> None:
    assert client.get("/healthz/live").json() == {"status": "live"}
    ready = client.get("/healthz/ready")
    assert ready.status_code == 200
    assert ready.json() == {"status": "ready", "model_name": None, "version": None}


def test_a_server_without_a_version_lives_and_says_what_to_do(
    module_settings: Settings, serve: Serve
) -> None:
    with serve(module_settings) as client:
        assert client.get("/healthz/live").status_code == 200
        for answer in (
            client.get("/healthz/ready"),
            client.post("/inference", content=png(3), headers=IMAGE),
        ):
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "5"
            assert "mindtrace train" in answer.json()["hint"]


def test_the_first_champion_is_taken(
    module_settings: Settings, bundle: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    appeared = threading.Event()
    loads: list[str] = []
    time = [0.0]

    def load(settings: Settings, ref: str | None) -> LoadedModel | None:
        loads.append("look")
        return predict.load_model(settings, str(bundle)) if appeared.is_set() else None

    def change(application: Any) -> None:
        application.state.slot = ModelSlot(module_settings, load=load, clock=lambda: time[0])

    with serve(module_settings, change=change) as client:
        loads.clear()
        assert [client.get("/healthz/ready").status_code for _ in range(5)] == [503] * 5
        assert loads == ["look"]  # no more than once a second
        appeared.set()
        assert client.get("/healthz/ready").status_code == 503
        time[0] += 1.0
        assert client.get("/healthz/ready").status_code == 200
        assert client.post("/inference", content=png(3), headers=IMAGE).status_code == 200
        time[0] += 10.0
        assert client.get("/healthz/ready").status_code == 200
        assert loads == ["look", "look"]  # a model that is there is not looked for


def test_a_first_version_that_is_broken_is_not_served(module_settings: Settings) -> None:
    def load(settings: Settings, ref: str | None) -> LoadedModel | None:
        raise BundleError("x", "broken")

    slot = ModelSlot(module_settings, load=load)
    with pytest.raises(Problem) as caught:
        anyio.run(slot.current)
    assert caught.value.status == 503


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

    monkeypatch.setattr(predict, "load_model", fail)
    settings = load_settings(sets=[f"DIR_PATHS.ROOT={tmp_path}", *sets], environ={})
    if waits:
        assert load_or_wait(settings, ref) is None
    else:
        with pytest.raises(type(error)):
            load_or_wait(settings, ref)


def test_golden_images_decide(tmp_path: Path, module_settings: Settings) -> None:
    wrong = write_bundle(tmp_path / "wrong", golden_shift=0.01)
    with pytest.raises(BundleError, match="golden"):
        load_or_wait(module_settings, str(wrong))
