"""The history of champions where MLflow deleted, renamed or renumbered what it speaks of."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import RunCli
from tests.registry.conftest import Publish

from mindtrace.config.settings import Settings
from mindtrace.errors import ConflictError, VerdictError
from mindtrace.registry.client_reader import ClientReader
from mindtrace.registry.maintenance import require_verified, verify, verify_all
from mindtrace.registry.names import CHAMPION, PREFIX, log_name
from mindtrace.registry.store import Store
from mindtrace.service.promotion import history, promote, rollback

State = Callable[[Store], object]


def alias(store: Store, name: str = "digits") -> int | None:
    aliases = store.client.get_registered_model(name).aliases
    return int(aliases[CHAMPION]) if CHAMPION in aliases else None


def told(settings: Settings, name: str = "digits") -> list[tuple[int | None, int, bool]]:
    """From, to, and whether the version is gone."""
    return [(one.origin, one.to, one.gone) for one in history(settings, name)]


def without_ties(store: Store) -> None:
    """The log as older releases wrote it."""
    for entry in store.client.search_model_versions(f"name = '{log_name('digits')}'"):
        for tie in ("bundle_digest", "created_at", "run_id", "forced"):
            store.client.delete_model_version_tag(entry.name, entry.version, PREFIX + tie)


def set_alias(store: Store, version: str = "3") -> None:
    store.client.set_registered_model_alias("digits", CHAMPION, version)


def delete(store: Store, version: str | None = None) -> None:
    if version is None:
        store.client.delete_registered_model("digits")
    else:
        store.client.delete_model_version("digits", version)


@pytest.fixture
def three(register: Publish, settings: Settings) -> None:
    """1 was champion, 2 is; 3 never was."""
    for _ in range(3):
        register()
    promote(settings, "digits/2")


READERS = {
    "history": ("history", "digits"),
    "list": ("list", "digits"),
    "show": ("show", "digits/1"),
    "show the champion": ("show", "digits"),
    "compare": ("compare", "digits/1", "2"),
    "verify": ("verify", "digits/1"),
    "verify all": ("verify", "--all"),
    "dry run": ("promote", "digits/1", "--dry-run"),
}


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("words", READERS.values(), ids=READERS)
def test_a_reading_command_changes_nothing(
    words: tuple[str, ...], run_cli: RunCli, store: Store, database: Path
) -> None:
    set_alias(store)
    with sqlite3.connect(database) as connection:
        before = list(connection.iterdump())
    result = run_cli("registry", *words)
    assert result.exit_code in (0, 3), result.stderr
    with sqlite3.connect(database) as connection:
        assert list(connection.iterdump()) == before
    connection.close()


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("old", [False, True], ids=["tied", "written by an older release"])
def test_a_model_that_was_deleted_and_made_anew_begins_anew(
    old: bool, register: Publish, settings: Settings, store: Store, run_cli: RunCli
) -> None:
    if old:
        without_ties(store)
    assert told(settings) == [(None, 1, False), (1, 2, False)]
    delete(store)
    first, second = register(), register()
    assert (first.aliases, second.aliases, alias(store)) == (("champion",), (), 1)

    assert told(settings) == [(None, 1, True), (1, 2, True), (None, 1, False)]
    assert alias(store) == 1, "reading made nobody champion"
    assert verify(settings, "digits")[1].state == "verified"
    lines = run_cli("registry", "history", "digits", "--json").stdout.splitlines()
    assert [json.loads(line)["gone"] for line in lines] == [False, True, True]
    with pytest.raises(ConflictError, match="nothing to roll back"):
        rollback(settings, "digits")
    outcome = promote(settings, "digits/2")
    assert (outcome.champion, outcome.verdict, outcome.revision) == (1, "PROMOTE", 4)
    assert rollback(settings, "digits").to == 1


@pytest.mark.usefixtures("three")
def test_a_champion_that_was_deleted_is_none_and_the_one_before_stands_in(
    settings: Settings, store: Store, register: Publish
) -> None:
    delete(store, "2")
    assert told(settings) == [(None, 1, False), (1, 2, True)]
    assert verify(settings, "digits/1")[1].faults == (
        "alias 'champion' names no version, the history says 1",
    )
    assert not register().aliases, "4 is not the first"
    outcome = promote(settings, "digits/3")
    assert (outcome.champion, outcome.verdict, alias(store)) == (1, "PROMOTE", 3)
    assert (rollback(settings, "digits").to, alias(store)) == (1, 1)
    with pytest.raises(ConflictError):
        rollback(settings, "digits")


@pytest.mark.usefixtures("three")
def test_a_champion_whose_predecessor_was_deleted_is_not_rolled_back(
    settings: Settings, store: Store
) -> None:
    delete(store, "1")
    with pytest.raises(ConflictError, match="nothing to roll back"):
        rollback(settings, "digits")
    assert (told(settings), alias(store)) == ([(None, 1, True), (1, 2, False)], 2)


@pytest.mark.usefixtures("three")
def test_a_model_that_was_renamed_keeps_its_champion(
    settings: Settings, store: Store, register: Publish
) -> None:
    store.client.rename_registered_model("digits", "numbers")
    assert not register("numbers").aliases
    assert (alias(store, "numbers"), told(settings, "numbers")) == (2, [])
    outcome = promote(settings, "numbers/3")
    assert (outcome.champion, outcome.verdict, outcome.revision) == (2, "PROMOTE", 1)
    assert (rollback(settings, "numbers").to, alias(store, "numbers")) == (2, 2)

    assert register("digits").aliases, "another model, though it has the name and its log"
    assert told(settings) == [(None, 1, True), (1, 2, True), (None, 1, False)]


@pytest.mark.usefixtures("three")
def test_a_run_that_was_deleted_is_no_matter_and_one_that_is_gone_is_damage(
    settings: Settings, store: Store, database: Path
) -> None:
    run_id = store.client.get_model_version("digits", "2").run_id
    store.client.delete_run(run_id)
    require_verified(list(verify_all(settings)), named=False)
    assert told(settings) == [(None, 1, False), (1, 2, False)]
    shutil.rmtree(Path(store.client.get_run(run_id).info.artifact_uri.removeprefix("file://")))
    with sqlite3.connect(database) as connection:  # what `mlflow gc` does
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            connection.execute(f"delete from {table} where run_uuid = ?", (run_id,))
    connection.close()
    for found in (verify(settings, "digits"), list(verify_all(settings))):
        with pytest.raises(VerdictError, match=r"digits/2: "):
            require_verified(found, named=False)
    assert told(settings) == [(None, 1, False), (1, 2, False)]
    reader = ClientReader(store)
    assert [row.version for row in reader.versions("digits", 9)] == [3, 2, 1]
    assert reader.params(run_id) == {}
