"""What a job, or the same training, registered before; on every kind of store."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from tests.registry.conftest import Publish

from mindtrace.bundle.bundle import Contents
from mindtrace.errors import InterruptedByUser
from mindtrace.registry.champions import ChampionLog, ensure_model
from mindtrace.registry.provenance import code_digest
from mindtrace.registry.publish import close_runs, find_by_job, find_identical, publish
from mindtrace.registry.store import Store, start_run

SAME = {"config_digest": "c", "data_digest": "d", "code_digest": code_digest()}


def test_the_version_of_a_job(store: Store, register: Publish) -> None:
    assert find_by_job(store, "digits", "j1") is None
    register(metadata={"job_id": "other"})
    register(
        metadata={**SAME, "job_id": "j1", "best_epoch": "3", "metric.val_acc": "0.5"},
    )
    found = find_by_job(store, "digits", "j1")
    assert found is not None
    assert (found.model_name, found.version) == ("digits", 2)
    assert (found.tags["best_epoch"], found.metrics) == ("3", {"val_acc": 0.5})
    assert found.tags["config_digest"] == "c"
    assert len(found.bundle_digest) == 64
    assert find_by_job(store, None, "j1") == found
    assert find_by_job(store, "mnist", "j1") is None


def test_what_was_left_to_do_is_done(store: Store, packed: Contents) -> None:
    """Its author died between the version and the champion, with the run open."""
    run = start_run(store, "digits", None, {})
    ensure_model(store, "digits")
    store.client.create_model_version(
        "digits",
        f"runs:/{run.run_id}/bundle",
        run.run_id,
        tags={"mindtrace.job_id": "j1"},
        await_creation_for=0,
    )
    found = find_by_job(store, "digits", "j1")
    assert found is not None
    assert found.champion
    assert [entry.to for entry in ChampionLog.of_store(store, "digits").entries()] == [1]
    assert store.client.get_run(run.run_id).info.status == "FINISHED"
    again = find_by_job(store, "digits", "j1")
    assert again is not None
    assert len(ChampionLog.of_store(store, "digits").entries()) == 1


def test_the_newest_version_of_the_same_training(store: Store, register: Publish) -> None:
    assert find_identical(store, "digits", "c", "d") is None
    for _ in range(2):
        register(metadata=SAME)
    register(metadata={**SAME, "data_digest": "other"})
    register(metadata={**SAME, "code_digest": "yesterday's"})
    found = find_identical(store, "digits", "c", "d")
    assert found is not None
    assert found.version == 2
    assert find_identical(store, "digits", "other", "d") is None


def test_runs_of_a_job_are_closed_and_no_others(store: Store) -> None:
    tags = [{"mindtrace.job_id": "j1"}, {"mindtrace.job_id": "j1"}, {"mindtrace.job_id": "j2"}]
    runs = [start_run(store, f"e{number}", None, tag) for number, tag in enumerate(tags)]
    runs[1].end("FINISHED")
    close_runs(store, "j1", "KILLED")
    statuses = [store.client.get_run(run.run_id).info.status for run in runs]
    assert statuses == ["KILLED", "FINISHED", "RUNNING"]
    runs[0].end("KILLED")
    runs[2].end("FINISHED")


def test_a_before_register_can_prevent_a_version(store: Store, packed: Contents) -> None:
    def no() -> None:
        raise InterruptedByUser(15)

    run = start_run(store, "digits", None, {})
    with pytest.raises(InterruptedByUser):
        publish(
            store,
            model_name="digits",
            run_id=run.run_id,
            contents=packed,
            metadata={},
            by="tester",
            before_register=no,
        )
    run.end("KILLED")
    assert list(store.client.search_model_versions()) == []
    assert list((store.root / "staging").iterdir()) == []


def test_the_code_has_a_digest() -> None:
    assert code_digest() == code_digest()
    assert len(code_digest()) == 64


def test_a_database_whose_maker_died_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"")
    (tmp_path / ".mlflow.db.making").touch()
    import sqlite3

    connection = sqlite3.connect(tmp_path / "mlflow.db")
    connection.execute("create table experiments (half_made)")  # MLflow would fail over it
    connection.close()
    store = Store(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    assert store.experiment_id("x")
    assert not (tmp_path / ".mlflow.db.making").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["server_store", pytest.param("postgres_store", marks=pytest.mark.postgres)]
)
def test_other_stores_know_it_too(kind: str, request: pytest.FixtureRequest) -> None:
    store: Store = request.getfixturevalue(kind)
    name = f"m{uuid4().hex}"
    run = start_run(store, name, None, {"mindtrace.job_id": name})
    ensure_model(store, name)
    for job_id in ("j0", name):
        store.client.create_model_version(
            name,
            f"runs:/{run.run_id}/bundle",
            run.run_id,
            tags={f"mindtrace.{key}": text for key, text in {**SAME, "job_id": job_id}.items()},
            await_creation_for=0,
        )
    for found in (
        find_by_job(store, name, name),
        find_by_job(store, None, name),
        find_identical(store, name, "c", "d"),
    ):
        assert found is not None
        assert found.version == 2
    assert find_by_job(store, name, "nobody") is None
    assert store.client.get_run(run.run_id).info.status == "FINISHED"
    other = start_run(store, name, None, {"mindtrace.job_id": name})
    close_runs(store, name, "FAILED")
    assert store.client.get_run(other.run_id).info.status == "FAILED"
    for one in (run, other):
        one.end("FINISHED")
