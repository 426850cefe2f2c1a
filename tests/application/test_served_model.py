"""A promotion anywhere becomes the model that answers; what is broken does not."""

from __future__ import annotations

import gc
import logging
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.application.conftest import png
from tests.application.registered import NAME, Registered, copied, copy_database

from mindtrace.application import served_model
from mindtrace.application.problems import Problem
from mindtrace.application.served_model import ChampionPoller, ServedModel
from mindtrace.config.settings import Settings
from mindtrace.errors import StoreError
from mindtrace.registry.names import CHAMPION
from mindtrace.service import following


class Watched:
    """A served model with a poller that polls when it is told to."""

    def __init__(self, settings: Settings, ref: str | None = None, **options: Any) -> None:
        self.served = ServedModel(settings, ref, **options)
        self.served.load()
        self.poller = ChampionPoller(self.served)

    def look(self, times: int = 1) -> int | None:
        for _ in range(times):
            self.poller.poll()
        return self.version

    @property
    def version(self) -> int | None:
        return None if self.served.model is None else self.served.model.version

    @property
    def swaps(self) -> tuple[int, int, int]:
        counts = self.served.swaps
        return counts["ok"], counts["refused"], counts["failed"]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the server's log says, line by line."""
    lines: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    ear = Ear()
    served_model.log.addHandler(ear)
    monkeypatch.setattr(served_model.log, "level", logging.INFO)
    yield lines
    served_model.log.removeHandler(ear)


def test_a_promotion_and_a_rollback(two: Registered, said: list[str]) -> None:
    watched = Watched(two.settings)
    two.add(2.0, name="others")  # another model beside it changes nothing
    assert watched.look() == 1
    before = watched.served.model
    two.point(2)
    assert watched.look() == 2
    assert watched.served.model is not None
    assert before is not None
    answers = [model.predictor.predict(png(200)).max() for model in (before, watched.served.model)]
    assert answers[0] < answers[1]
    two.point(1)
    assert watched.look() == 1
    assert watched.swaps == (2, 0, 0)
    assert said == ["serving squares/2", "serving squares/1"]


def test_the_model_before_is_freed(two: Registered) -> None:
    watched = Watched(two.settings)
    assert watched.served.model is not None
    before = weakref.ref(watched.served.model.predictor)
    two.point(2)
    watched.look()
    gc.collect()
    assert before() is None


def test_the_first_champion(registry: Registered, said: list[str]) -> None:
    watched = Watched(registry.settings)
    assert watched.look() is None
    with pytest.raises(Problem, match="no version to serve yet"):
        watched.served.require_model()
    registry.add(1.0)
    assert watched.look() == 1
    watched.served.require_ready()
    assert said == ["serving squares/1"]


def test_a_first_champion_that_nobody_can_find(registry: Registered, said: list[str]) -> None:
    """Which of two models is meant, somebody must say."""
    watched = Watched(registry.settings)
    registry.add(1.0)
    registry.add(1.0, name="others")
    assert watched.look() is None
    with pytest.raises(Problem, match="cannot be looked up"):
        watched.served.require_model()
    assert len(said) == 1
    registry.store.client.delete_registered_model("others")
    assert watched.look() == 1


def test_a_first_champion_that_is_broken(registry: Registered, said: list[str]) -> None:
    watched = Watched(registry.settings)
    registry.add(1.0)
    registry.break_(1)
    assert watched.look() is None
    assert watched.swaps == (0, 1, 0)
    with pytest.raises(Problem, match="cannot be served") as caught:
        watched.served.require_model()
    assert caught.value.status == 503
    assert str(registry.folder(1)) not in caught.value.detail
    registry.add(2.0)
    registry.point(2)
    assert watched.look() == 2


def test_a_broken_version_is_refused_once(two: Registered, said: list[str]) -> None:
    watched = Watched(two.settings)
    two.break_(2)
    two.point(2)
    assert watched.look(3) == 1
    assert watched.swaps == (0, 1, 0)
    assert len(said) == 1
    assert said[0].startswith("squares/2 is refused: bundle ")
    assert "None" not in said[0]
    two.point(1)
    assert watched.look() == 1
    two.point(2)  # somebody wants it again
    assert watched.look() == 1
    assert watched.swaps == (0, 2, 0)
    assert two.add(3.0) == 3
    two.point(3)
    assert watched.look() == 3


def test_golden_images_that_only_http_answers_otherwise(
    two: Registered, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(two.settings)
    two.point(2)
    quick = ("bright", b'{"probabilities": [0.5, 0.5, 0.0]}')
    monkeypatch.setattr("mindtrace.application.inference.answer_quickly", lambda *_: quick)
    assert watched.look(2) == 1
    assert watched.swaps == (0, 1, 0)
    assert "golden images" in said[0]


def test_an_accident_while_loading(
    two: Registered, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(two.settings)
    two.point(2)
    monkeypatch.setattr(following, "open_row", lambda *_: 1 // 0)
    assert watched.look(2) == 1
    assert watched.swaps == (0, 1, 0)
    assert said == ["squares/2 is refused: integer division or modulo by zero"]


def test_other_classes(registry: Registered, said: list[str]) -> None:
    registry.add(1.0)
    registry.add(1.0, classes=("noir", "clair", "autre"))
    strict = Watched(registry.settings)
    lenient = Watched(registry.settings, allow_label_change=True)
    registry.point(2)
    assert strict.look(2) == 1
    assert strict.swaps == (0, 1, 0)
    assert "noir, clair, autre" in said[0]
    assert "--allow-label-change" in said[0]
    assert lenient.look() == 2


def test_a_version_that_cannot_be_fetched_yet(
    two: Registered, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(two.settings)
    two.point(2)
    right = following.open_row

    def fail(*_: Any) -> Any:
        raise StoreError("the network is away")

    monkeypatch.setattr(following, "open_row", fail)
    assert watched.look(4) == 1
    assert watched.swaps == (0, 0, 1)
    assert said == ["squares/2 cannot be fetched yet: the network is away"]
    monkeypatch.setattr(following, "open_row", right)
    assert watched.look() == 2
    assert watched.swaps == (1, 0, 1)


def test_an_alias_that_is_gone(two: Registered, said: list[str]) -> None:
    watched = Watched(two.settings)
    two.store.client.delete_registered_model_alias(NAME, CHAMPION)
    assert watched.look() == 1
    assert len(said) == 1
    assert "no alias 'squares@champion'" in said[0]
    two.point(2)
    assert watched.look() == 2
    assert said[1:] == ["the champion can be looked up again", "serving squares/2"]


def test_a_registry_that_is_away(two: Registered, root: Path, said: list[str]) -> None:
    watched = Watched(two.settings)
    two.point(2)
    (root / "mlflow.db").rename(root / "elsewhere.db")
    assert watched.look() == 1
    (root / "mlflow.db").write_bytes(b"no database" * 100)
    assert watched.look() == 1
    assert len(said) == 1
    (root / "elsewhere.db").rename(root / "mlflow.db")
    assert watched.look() == 2
    assert watched.swaps == (1, 0, 0)


def test_a_registry_that_was_made_anew(
    two: Registered, root: Path, tables: Path, tmp_path: Path
) -> None:
    """The same name and number, another model."""
    copy = copied(two, tmp_path)
    watched = Watched(copy.settings)
    anew = tmp_path / "anew"
    anew.mkdir()
    shutil.copy(tables, anew / "mlflow.db")
    Registered(anew).add(9.0)
    (tmp_path / "mlflow.db").unlink()
    shutil.copytree(anew / "mlartifacts", tmp_path / "mlartifacts", dirs_exist_ok=True)
    copy_database(anew / "mlflow.db", tmp_path / "mlflow.db")
    assert watched.look() == 1
    assert watched.swaps == (1, 0, 0)
    assert watched.served.model is not None
    assert float(watched.served.model.predictor.predict(png(200)).max()) > 0.9


@pytest.mark.parametrize(
    ("ref", "moves"),
    [
        (None, True),
        (NAME, True),
        ("squares@champion", True),
        ("squares@tried", True),
        ("squares/1", False),
        ("1", False),
        ("a folder", False),
    ],
)
def test_what_is_watched(two: Registered, bundle: Path, ref: str | None, moves: bool) -> None:
    two.point(1, "tried")
    watched = Watched(two.settings, str(bundle) if ref == "a folder" else ref)
    watched.poller.start()
    started = watched.poller._thread is not None
    watched.poller.stop()
    assert started == moves


def test_an_alias_of_ones_own(two: Registered) -> None:
    two.point(1, "tried")
    watched = Watched(two.settings, "squares@tried")
    two.point(2)
    assert watched.look() == 1
    two.point(2, "tried")
    assert watched.look() == 2


def test_the_thread_survives_whatever_comes(
    two: Registered, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(two.settings)
    calls = []

    def fail(*_: Any) -> Any:
        calls.append(1)
        if len(calls) >= 3:
            watched.poller._stopping.set()
        raise RuntimeError("nobody thought of it")

    monkeypatch.setattr(following, "pointed_at", fail)
    monkeypatch.setattr(served_model, "POLL_EVERY", 0.0)
    watched.poller._run()
    assert said == ["the champion cannot be looked up"]
    assert watched.version == 1


def test_a_model_with_a_number_as_its_name_is_followed(registry: Registered) -> None:
    for scale in (1.0, 2.0):
        registry.add(scale, name="2024")
    watched = Watched(registry.settings, "2024")
    assert watched.look() == 1
    registry.point(2, name="2024")
    assert watched.look() == 2
