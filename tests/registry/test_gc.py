"""`gc` deletes old versions with their bundles, and nothing that is named or not ours."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from tests.registry.conftest import NewStore, Publish, Version, closed, plain_version

from mindtrace.config.settings import Settings
from mindtrace.errors import NotFoundError, UsageError
from mindtrace.registry.champions import ChampionLog
from mindtrace.registry.maintenance import HISTORY_KEPT, gc
from mindtrace.registry.reader import open_reader
from mindtrace.registry.reference import locate
from mindtrace.registry.store import Store

VERSIONS = HISTORY_KEPT + 6


@pytest.fixture(scope="module")
def template(new_store: NewStore) -> Path:
    """Versions of `m` that look like ours, though their bundles are nowhere."""
    store = new_store()
    for number in range(VERSIONS):
        plain_version(store, "m", bundle_digest=f"{number:064x}")
    return closed(store.root / "mlflow.db")


def versions(settings: Settings, name: str = "m") -> list[int]:
    return [row.version for row in open_reader(settings).versions(name, 100)]


def promote(store: Store, *numbers: int) -> None:
    for number in numbers:
        log, row = ChampionLog(store.reader(), "m"), store.reader().version("m", number)
        assert row is not None
        assert log.append(store, expected=len(log.entries()), action="promote", row=row)


def test_the_newest_and_what_is_named_stay(
    store: Store, settings: Settings, version: Version
) -> None:
    promote(store, 3, 5)
    store.client.set_registered_model_alias("m", "best", "7")
    version("theirs"), version("theirs")
    would = list(gc(settings, "m", keep=4, dry_run=True))
    assert [one.version for one in would] == [1, 2, 4, 6, *range(8, VERSIONS - 3)]
    assert not any(one.removed for one in would)
    assert len(versions(settings)) == VERSIONS

    gone = list(gc(settings, keep=4))

    assert [dataclasses.replace(one, removed=False) for one in gone] == would
    assert all(one.removed for one in gone)
    assert versions(settings) == [*range(VERSIONS, VERSIONS - 4, -1), 7, 5, 3]
    assert len(ChampionLog(store.reader(), "m").entries()) == 2
    assert list(gc(settings, keep=4)) == []
    assert list(gc(settings, "theirs", keep=1)) == []
    assert versions(settings, "theirs") == [2, 1]


def test_only_what_the_last_entries_do_not_name_goes(store: Store, settings: Settings) -> None:
    promote(store, *range(1, HISTORY_KEPT + 4))

    list(gc(settings, "m", keep=1))

    # The entry that made 4 champion names 3 as the one before it.
    assert versions(settings) == [VERSIONS, *range(HISTORY_KEPT + 3, 2, -1)]


def test_a_bundle_is_deleted_unless_another_version_has_it(
    register: Publish, store: Store, settings: Settings
) -> None:
    for _ in range(4):
        register()
    folders = {number: locate(settings, f"digits/{number}").folder for number in range(1, 5)}
    second, third = (store.client.get_model_version("digits", number) for number in "23")
    (folders[2].parent / "report.txt").write_text("mine")
    store.client.create_registered_model("twin")
    store.client.create_model_version("twin", third.source, third.run_id)

    assert [one.version for one in gc(settings, "digits", keep=1)] == [2, 3]

    assert [folder.is_dir() for folder in folders.values()] == [True, False, True, True]
    assert (folders[2].parent / "report.txt").exists()
    assert store.client.get_run(second.run_id)


def test_names_are_read_again_before_each_deletion(store: Store, settings: Settings) -> None:
    """Named after the first read and before its turn: it stays."""
    going = gc(settings, "m", keep=VERSIONS - 2)
    assert next(going).version == 1
    store.client.set_registered_model_alias("m", "late", "2")

    assert [(one.version, one.removed) for one in going] == [(2, False)]
    assert 2 in versions(settings)


def test_what_it_refuses(store: Store, settings: Settings) -> None:
    with pytest.raises(UsageError, match="keep"):
        list(gc(settings, keep=0))
    with pytest.raises(NotFoundError):
        list(gc(settings, "n", keep=1))
