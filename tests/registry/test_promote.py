"""promote, rollback and history on a real store with real bundles."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mindtrace.bundle.bundle import Contents
from mindtrace.config.settings import Settings
from mindtrace.errors import (
    BundleError,
    ConflictError,
    NotFoundError,
    UsageError,
    VerdictError,
)
from mindtrace.registry.champions import champion_of, parse_log
from mindtrace.registry.names import CHAMPION
from mindtrace.registry.publish import Published
from mindtrace.registry.reader import open_reader
from mindtrace.registry.store import Store
from mindtrace.service.promotion import history, promote, rollback
from mindtrace.service.registry_api import Registry

Publish = Callable[..., Published]

pytestmark = pytest.mark.slow


@pytest.fixture
def three(register: Publish, packed: Contents) -> None:
    """Version 1 is champion; 2 is as good; 3 has a fifth of its answers wrong."""
    register()
    register()
    probabilities = packed.predictions.probabilities.copy()
    probabilities[::5] = np.roll(probabilities[::5], 1, axis=1)
    ledger = dataclasses.replace(packed.predictions, probabilities=probabilities)
    register(contents=dataclasses.replace(packed, predictions=ledger))


def alias(store: Store) -> int:
    return int(store.client.get_model_version_by_alias("digits", CHAMPION).version)


def actions(settings: Settings) -> list[tuple[str, int | None, int]]:
    return [(one.action, one.origin, one.to) for one in history(settings)]


def test_a_version_as_good_becomes_champion(three: None, settings: Settings, store: Store) -> None:
    outcome = promote(settings, "digits/2", reason="as good")
    outcome.require_passed()
    assert (outcome.promoted, outcome.verdict, outcome.revision) == (True, "PROMOTE", 2)
    assert outcome.champion == 1
    assert alias(store) == 2
    last = history(settings)[-1]
    assert (last.origin, last.to, last.verdict, last.reason) == (1, 2, "PROMOTE", "as good")
    assert last.document()["from"] == 1


def test_a_worse_version_is_refused_and_that_is_kept(
    three: None, settings: Settings, store: Store
) -> None:
    outcome = promote(settings, "3")
    assert (outcome.promoted, outcome.verdict, outcome.revision) == (False, "REJECT", 2)
    with pytest.raises(VerdictError, match="REJECT: digits/3 does not replace digits/1"):
        outcome.require_passed()
    assert alias(store) == 1
    assert actions(settings)[-1] == ("refuse", 1, 3)


def test_a_dry_run_decides_and_writes_nothing(three: None, settings: Settings) -> None:
    worse = promote(settings, "3", dry_run=True)
    assert (worse.promoted, worse.verdict) == (False, "REJECT")
    better = promote(settings, "2", dry_run=True)
    assert (better.promoted, better.verdict) == (False, "PROMOTE")
    assert len(actions(settings)) == 1


def test_force_promotes_with_a_reason_only(three: None, settings: Settings, store: Store) -> None:
    with pytest.raises(UsageError):
        promote(settings, "3", force=True)
    outcome = promote(settings, "3", force=True, reason="the data were wrong")
    outcome.require_passed()
    assert (outcome.promoted, outcome.verdict) == (True, "REJECT")
    assert alias(store) == 3


def test_promoting_the_champion_changes_nothing(three: None, settings: Settings) -> None:
    outcome = promote(settings, "digits/1")
    outcome.require_passed()
    assert (outcome.promoted, outcome.verdict, outcome.revision) == (True, None, 1)
    assert len(actions(settings)) == 1


def test_the_use_of_a_test_set_is_counted(three: None, settings: Settings) -> None:
    assert promote(settings, "3").times_used == 0
    assert promote(settings, "2").times_used == 1
    assert promote(settings, "3", dry_run=True).times_used == 2


def test_rollbacks_walk_back_to_the_first(three: None, settings: Settings, store: Store) -> None:
    promote(settings, "2")
    promote(settings, "3", force=True, reason="try")
    rollback(settings)
    assert alias(store) == 2
    promote(settings, "1")
    assert alias(store) == 1
    assert [rollback(settings).to for _ in range(2)] == [2, 1]
    with pytest.raises(ConflictError, match="nothing to roll back"):
        rollback(settings, "digits")
    assert actions(settings)[-3:] == [("promote", 2, 1), ("rollback", 1, 2), ("rollback", 2, 1)]


def test_who_looked_at_another_revision_changes_nothing(three: None, settings: Settings) -> None:
    promote(settings, "2", if_revision=1)
    for stale in (0, 1, 3):
        with pytest.raises(ConflictError, match="revision 2, not"):
            promote(settings, "1", if_revision=stale)
        with pytest.raises(ConflictError, match="revision 2, not"):
            rollback(settings, if_revision=stale)
    assert len(actions(settings)) == 2


@pytest.mark.parametrize("verb", ["promote", "rollback", "history", "nothing to undo"])
def test_an_alias_that_differs_is_repaired_on_sight(
    three: None, settings: Settings, store: Store, verb: str
) -> None:
    """Somebody used plain MLflow, or died between the log and the alias."""
    if verb != "nothing to undo":
        promote(settings, "2")
    store.client.set_registered_model_alias("digits", CHAMPION, "3")
    if verb == "promote":
        promote(settings, "digits/2")
    elif verb == "history":
        history(settings)
    elif verb == "rollback":
        rollback(settings)
    else:
        with pytest.raises(ConflictError):
            rollback(settings)
    assert alias(store) == champion_of(parse_log("digits", open_reader(settings).log("digits"))), (
        "the alias says what the log says"
    )


def test_a_damaged_challenger_is_refused_and_the_champion_stays(
    three: None, settings: Settings, store: Store
) -> None:
    source = store.client.get_run(
        store.client.get_model_version("digits", "2").run_id
    ).info.artifact_uri.removeprefix("file://")
    file = Path(source) / "bundle" / "model.onnx"
    file.write_bytes(file.read_bytes()[:-1])
    for force in (False, True):
        with pytest.raises(BundleError, match=r"model\.onnx"):
            promote(settings, "2", force=force, reason="x")
    assert alias(store) == 1
    promote(settings, "3", force=True, reason="then 3")
    assert alias(store) == 3


def test_what_does_not_exist_is_not_found(three: None, settings: Settings) -> None:
    for ref in ("digits/9", "dogs/1", "digits@nobody"):
        with pytest.raises(NotFoundError):
            promote(settings, ref)
    with pytest.raises(NotFoundError):
        rollback(settings, "dogs")
    with pytest.raises(NotFoundError):
        history(settings, "digits~history")
    with pytest.raises(UsageError):
        promote(settings, "./folder")
    with pytest.raises(UsageError):
        promote(settings, "2", margin=-0.1)
    with pytest.raises(UsageError):
        rollback(settings, reason="x" * 2000)


def test_a_model_of_plain_mlflow_without_a_champion(
    version: Callable[..., int], register: Publish, settings: Settings, store: Store
) -> None:
    """Its history begins with the first promotion; a version without a bundle is refused."""
    version()
    assert history(settings) == []
    with pytest.raises(BundleError, match="not registered by mindtrace"):
        promote(settings, "1")
    with pytest.raises(ConflictError, match="nothing to roll back"):
        rollback(settings)
    register()
    assert alias(store) == 2


def test_the_same_from_python(three: None, settings: Settings, store: Store) -> None:
    registry = Registry(settings=settings)
    assert registry.compare("digits/1", "3").verdict == "REJECT"
    with pytest.raises(VerdictError):
        registry.promote("digits/3")
    assert not registry.promote("digits/3", dry_run=True).promoted
    assert registry.promote("digits/2").promoted
    assert registry.rollback().to == 1
    assert [one.action for one in registry.history()] == [
        "promote",
        "refuse",
        "promote",
        "rollback",
    ]
