"""promote, rollback and history on a real store with real bundles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import RunCli
from tests.registry.conftest import (
    NewStore,
    Publish,
    Version,
    closed,
    register_version,
    with_ledger,
)

from mindtrace.bundle.bundle import Contents
from mindtrace.config.settings import Settings, load_settings
from mindtrace.errors import BundleError, ConflictError, NotFoundError, UsageError, VerdictError
from mindtrace.registry.champions import ChampionLog
from mindtrace.registry.names import CHAMPION
from mindtrace.registry.publish import find_registered, having, warning_of
from mindtrace.registry.reference import locate
from mindtrace.registry.store import Store
from mindtrace.service.promotion import history, promote, rollback


@pytest.fixture(scope="module")
def template(packed: Contents, new_store: NewStore) -> Path:
    """Version 1 is champion; 2 is as good; of 3 a fifth is wrong, of 4 a hundredth."""
    store = new_store()
    for step in (None, None, 5, 100):
        probabilities = packed.predictions.probabilities.copy()
        if step:
            probabilities[::step] = np.roll(probabilities[::step], 1, axis=1)
        register_version(store, with_ledger(packed, probabilities=probabilities))
    return closed(store.root / "mlflow.db")


@pytest.fixture
def settings(store: Store) -> Settings:
    return load_settings()


def alias(store: Store, name: str = "digits") -> int:
    return int(store.client.get_model_version_by_alias(name, CHAMPION).version)


def actions(settings: Settings) -> list[tuple[str, int | None, int]]:
    return [(one.action, one.origin, one.to) for one in history(settings)]


def test_a_version_as_good_becomes_champion(settings: Settings, store: Store) -> None:
    outcome = promote(settings, "digits/2", reason="as good")
    outcome.require_passed()
    assert (outcome.promoted, outcome.verdict, outcome.revision) == (True, "PROMOTE", 2)
    assert (outcome.champion, alias(store)) == (1, 2)
    last = history(settings)[-1]
    assert (last.origin, last.to, last.verdict, last.reason) == (1, 2, "PROMOTE", "as good")
    assert last.document()["from"] == 1
    again = promote(settings, "digits/2")
    again.require_passed()
    assert (again.promoted, again.verdict, again.revision) == (True, None, 2)
    assert len(actions(settings)) == 2


def test_a_worse_version_is_refused_and_that_is_kept(settings: Settings, store: Store) -> None:
    for version, verdict in (("3", "REJECT"), ("2", "PROMOTE")):
        dry = promote(settings, version, dry_run=True)
        assert (dry.promoted, dry.verdict, dry.times_used) == (False, verdict, 0)
    assert len(actions(settings)) == 1
    outcome = promote(settings, "3", check=False)
    assert (outcome.promoted, outcome.verdict, outcome.revision) == (False, "REJECT", 2)
    with pytest.raises(VerdictError, match="REJECT: digits/3 does not replace digits/1"):
        outcome.require_passed()
    assert alias(store) == 1
    assert actions(settings)[-1] == ("refuse", 1, 3)
    with pytest.raises(UsageError):
        promote(settings, "3", force=True)
    forced = promote(settings, "3", force=True, reason="the data were wrong")
    forced.require_passed()
    assert (forced.promoted, forced.verdict, forced.times_used) == (True, "REJECT", 1)
    assert alias(store) == 3
    assert promote(settings, "1", dry_run=True).times_used == 2


def test_what_cannot_be_told_is_refused_as_well(settings: Settings, store: Store) -> None:
    outcome = promote(settings, "4", check=False)
    assert (outcome.promoted, outcome.verdict) == (False, "HOLD")
    with pytest.raises(VerdictError, match="HOLD: digits/4 does not replace digits/1"):
        outcome.require_passed()
    assert (alias(store), actions(settings)[-1]) == (1, ("refuse", 1, 4))


def grown(packed: Contents, rows: slice, **changes: Any) -> Contents:
    """The same version, tested on a part of its test images."""
    part = vars(packed.predictions.rows(np.arange(359)[rows]))
    return with_ledger(packed, **{**part, **changes})


def test_where_the_test_set_grew_what_both_share_decides(
    register: Publish, packed: Contents, settings: Settings, store: Store
) -> None:
    some, trained = grown(packed, slice(0, 320)), packed.predictions.train_digests
    assert register("grown", contents=some).aliases
    register("grown")
    register("grown", contents=grown(packed, slice(0, 359), train_digests=some.predictions.digests))
    register("grown", contents=grown(packed, slice(320, 359)))
    outcome = promote(settings, "grown/2")
    assert (outcome.verdict, outcome.promoted, alias(store, "grown")) == ("PROMOTE", True, 2)
    found = outcome.comparison
    assert found is not None and trained is not None
    assert (found.n, found.left_out) == (320, 0)
    assert found.test_digest == some.predictions.test_digest
    assert found.notes == ("320 test images are in both (grown/1 has 320, grown/2 359)",)
    held = promote(settings, "grown/3", check=False)
    assert held.comparison is not None
    assert (held.verdict, held.comparison.n, held.comparison.left_out) == ("HOLD", 39, 320)
    rollback(settings, "grown")
    for version, words in ((3, "one of them was trained on each"), (4, "different images")):
        with pytest.raises(UsageError, match=words):
            promote(settings, f"grown/{version}")
        assert promote(settings, f"grown/{version}", force=True, reason="x").promoted
        rollback(settings, "grown")


def failing(packed: Contents, count: int) -> Contents:
    """The same version, with `count` of its answers wrong of a test set 20 times as large."""
    ledger = packed.predictions
    digests = np.repeat(ledger.digests, 20, axis=0)
    digests[:, 0], digests[:, 1] = np.arange(len(digests)) % 256, np.arange(len(digests)) // 256
    right = np.eye(10, dtype=np.float32)[np.repeat(ledger.labels, 20)]
    right[:count] = np.roll(right[:count], 1, axis=1)
    arrays = {"digests": digests, "labels": np.repeat(ledger.labels, 20), "probabilities": right}
    return with_ledger(packed, **arrays)


def test_a_chain_of_promotions_does_not_drift(
    register: Publish, packed: Contents, settings: Settings, store: Store
) -> None:
    """Each version is as good as the one before, within the margin; together they are not."""
    wide = settings.replace(**{"registry.class_margin": 1.0})
    for count in (0, 60, 120, 180):
        register("chain", contents=failing(packed, count))
    forced = {"force": True, "reason": "a step of 0.8 points", "margin": 0.0}
    for version in (2, 3):
        assert promote(wide, f"chain/{version}", **forced).promoted
    assert [(one.verdict, one.forced) for one in history(wide, "chain")[1:]] == [
        ("REJECT", True)
    ] * 2
    # As good as 3 in all it is asked about 3, and 1.7 points below 1.
    register("chain", contents=failing(packed, 119))
    outcome = promote(wide, "chain/5", check=False)
    assert (outcome.champion, outcome.verdict, outcome.promoted) == (3, "HOLD", False)
    assert "worse than chain/1, champion before it, by more than 1 point" in outcome.reasons[0]
    assert promote(wide, "chain/5", margin=0.05, dry_run=True).verdict == "PROMOTE"
    rollback(wide, "chain"), rollback(wide, "chain")
    assert alias(store, "chain") == 1


def test_a_forced_promotion_is_shown_as_forced(
    settings: Settings, store: Store, run_cli: RunCli
) -> None:
    promote(settings, "3", force=True, reason="the data were wrong")
    promote(settings, "4", force=True, reason="again")
    for entry in store.client.search_model_versions("name = 'digits~history'"):
        store.client.delete_model_version_tag(entry.name, entry.version, "mindtrace.forced")
        break  # the newest, as an older release would have written it
    lines = run_cli("registry", "history", "--json").stdout.splitlines()
    assert [json.loads(line)["forced"] for line in lines] == [False, True, False]
    header, *rows = run_cli("registry", "history").stdout.splitlines()
    assert [
        dict(zip(header.split("\t"), row.split("\t"), strict=True))["forced"] for row in rows
    ] == ["false", "true", "false"]


ANSWERS = {
    "one class": (lambda labels: np.zeros_like(labels), True),
    "another class": (lambda labels: np.full_like(labels, 7), True),
    "two classes": (lambda labels: labels % 2, False),
    "all": (lambda labels: labels, False),
}


@pytest.mark.parametrize(("answer", "refused"), ANSWERS.values(), ids=ANSWERS)
def test_a_first_version_that_answers_one_class_is_no_champion(
    answer: Any, refused: bool, register: Publish, packed: Contents, store: Store
) -> None:
    probabilities = np.eye(10, dtype=np.float32)[answer(packed.predictions.labels)]
    dull = with_ledger(packed, probabilities=probabilities)
    made = register("dull", contents=dull, metadata={"job_id": "j1"})
    assert (bool(made.aliases), warning_of(made) is None) == (not refused, not refused)
    if refused:
        assert "to every test image, so it does not become champion" in str(warning_of(made))
        again = find_registered(store, "dull", having(job_id="j1"))
        assert again is not None and not again.aliases
        assert CHAMPION not in store.client.get_registered_model("dull").aliases
    assert bool(register("dull").aliases) is refused, "the first that answers more becomes champion"


def test_the_rule_of_the_configuration_holds(settings: Settings, run_cli: RunCli) -> None:
    words = ("registry", "promote", "digits/4", "--dry-run", "--json")
    for sets, verdict in (
        ((), "HOLD"),
        (("registry.margin=0.05",), "PROMOTE"),
        (("registry.margin=0.05", "registry.metric=f1_macro"), "PROMOTE"),
        (("registry.metric=balanced_accuracy",), "HOLD"),
    ):
        result = run_cli(*words, *(part for one in sets for part in ("--set", one)))
        found = json.loads(result.stdout)
        assert found["verdict"] == verdict, found["reasons"]
        metric = sets[-1].partition("metric=")[2] if sets else "accuracy"
        assert found["comparison"]["metric"] == (metric or "accuracy")


def test_rollbacks_walk_back_to_the_first(settings: Settings, store: Store) -> None:
    promote(settings, "2")
    promote(settings, "3", check=False)  # a refusal between them is no matter
    promote(settings, "3", force=True, reason="try")
    rollback(settings)
    assert alias(store) == 2
    promote(settings, "1")
    assert alias(store) == 1
    assert [rollback(settings).to for _ in range(2)] == [2, 1]
    with pytest.raises(ConflictError, match="nothing to roll back"):
        rollback(settings, "digits")
    assert actions(settings)[-3:] == [("promote", 2, 1), ("rollback", 1, 2), ("rollback", 2, 1)]


def test_who_read_another_revision_changes_nothing(settings: Settings) -> None:
    promote(settings, "2", if_revision=1)
    for stale in (0, 1, 3):
        with pytest.raises(ConflictError, match="revision 2, not"):
            promote(settings, "1", if_revision=stale)
        with pytest.raises(ConflictError, match="revision 2, not"):
            rollback(settings, if_revision=stale)
    assert len(actions(settings)) == 2


@pytest.mark.parametrize("verb", ["promote", "rollback", "nothing to undo"])
def test_an_alias_that_differs_is_repaired_by_the_next_change(
    settings: Settings, store: Store, verb: str
) -> None:
    """Somebody used plain MLflow, or died between the log and the alias."""
    if verb != "nothing to undo":
        promote(settings, "2")
    store.client.set_registered_model_alias("digits", CHAMPION, "3")
    if verb == "promote":
        promote(settings, "digits/2")
    elif verb == "rollback":
        rollback(settings)
    else:
        with pytest.raises(ConflictError):
            rollback(settings)
    log = ChampionLog(store.reader(), "digits")
    log.entries()
    assert alias(store) == log.champion(), "the alias says what the log says"


def test_a_damaged_challenger_is_refused_and_the_champion_stays(
    register: Publish, settings: Settings, store: Store
) -> None:
    assert register().version == 5
    file = locate(settings, "digits/5").folder / "model.onnx"
    file.write_bytes(file.read_bytes()[:-1])
    for force in (False, True):
        with pytest.raises(BundleError, match=r"model\.onnx"):
            promote(settings, "5", force=force, reason="x")
    assert alias(store) == 1


def test_what_does_not_exist_is_not_found(settings: Settings) -> None:
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
    version: Version, register: Publish, settings: Settings, store: Store
) -> None:
    """Its history begins with the first promotion; a version without a bundle is refused."""
    version("theirs")
    assert history(settings, "theirs") == []
    with pytest.raises(BundleError, match="not registered by mindtrace"):
        promote(settings, "theirs/1")
    with pytest.raises(ConflictError, match="nothing to roll back"):
        rollback(settings, "theirs")
    register("theirs")
    assert alias(store, "theirs") == 2
