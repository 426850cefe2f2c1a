"""One story of a registry, told by every kind of store: the same questions, the same answers."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.registry.servers import PASSWORD, PATIENCE, execute

import mindtrace
from mindtrace.bundle.bundle import Contents
from mindtrace.bundle.predictions import TestPredictions
from mindtrace.config.settings import load_settings
from mindtrace.errors import BundleError, NotFoundError, StoreError, UsageError
from mindtrace.registry.champions import ensure_model
from mindtrace.registry.client_reader import ClientReader
from mindtrace.registry.comparison import EVALUATIONS
from mindtrace.registry.publish import publish
from mindtrace.registry.reader import open_reader
from mindtrace.registry.store import Store, start_run

pytestmark = [pytest.mark.slow, pytest.mark.proof]

Tell = Callable[[Store], None]


def registered(store: Store, packed: Contents, name: str, **metadata: str) -> int:
    run = start_run(store, "story", None, {})
    run.log_params({"train.lr": 0.01 * float(metadata["seed"])})
    metadata["metric.val_acc"] = metadata.pop("val_acc")
    published = publish(
        store, model_name=name, run_id=run.run_id, contents=packed, metadata=metadata, by="t"
    )
    run.end("FINISHED")
    return published.version


def by_plain_mlflow(store: Store, name: str) -> None:
    run = start_run(store, "story", None, {})
    run.log_metrics({"val_acc": 0.25}, step=1)
    run.end("FINISHED")
    ensure_model(store, name)
    store.client.create_model_version(
        name, f"runs:/{run.run_id}/model", run.run_id, await_creation_for=0
    )


def compared_on_another_test_set(
    store: Store, registry: mindtrace.Registry, packed: Contents
) -> None:
    """A version with a test set of its own; the other one is evaluated on it."""
    n = len(packed.predictions.labels) // 2
    ledger = TestPredictions(*(rows[:n] for rows in vars(packed.predictions).values()))
    data = {**packed.data, "test_digest": ledger.test_digest}
    half = dataclasses.replace(packed, predictions=ledger, data=data)
    other = f"half/{registered(store, half, 'half', seed='1', val_acc='0.5')}"
    with pytest.raises(UsageError, match="different images"):
        registry.compare("story/3", other)
    row = store.client.get_model_version("story", "3")
    with tempfile.TemporaryDirectory() as folder:
        ledger.write(Path(folder) / f"{ledger.test_digest}.npz")
        store.client.log_artifacts(row.run_id, folder, EVALUATIONS)
    for a, b in (("story/3", other), (other, "story/3")):
        compared = registry.compare(a, b)
        assert (compared.n, compared.diff, compared.test_digest) == (n, 0.0, ledger.test_digest)
    with tempfile.TemporaryDirectory() as folder:
        packed.predictions.write(Path(folder) / f"{ledger.test_digest}.npz")
        store.client.log_artifacts(row.run_id, folder, EVALUATIONS)
    with pytest.raises(BundleError, match="about other images"):
        registry.compare("story/3", other)


@pytest.fixture
def story(packed: Contents, tmp_path: Path) -> Tell:
    """Registers, asks and cleans up, through the Python API."""

    def tell(store: Store) -> None:
        registry = mindtrace.Registry()
        for seed, val_acc in ((1, "0.5"), (2, "0.7"), (3, "0.6")):
            registered(store, packed, "story", seed=str(seed), val_acc=val_acc)
        by_plain_mlflow(store, "story")

        def listed(**query: Any) -> list[int]:
            return [one.version for one in registry.list("story", **query)]

        assert "story" in registry.names()
        assert not [name for name in registry.names() if "~" in name]
        assert listed() == [4, 3, 2, 1]
        assert listed(sort="-val_acc") == [2, 3, 1, 4]
        assert listed(sort="-val_acc", after=3, limit=1) == [1]
        assert listed(after=3) == [2, 1]
        assert listed(where="val_acc > 0.55") == [3, 2]
        assert listed(where="val_acc < 0.3 and not alias = champion") == [4]
        assert listed(where="params.train.lr >= 0.02", sort="params.train.lr") == [2, 3]
        assert listed(where="alias = champion or seed = 3") == [3, 1]
        for typo, meant in (("params.train.lrr", "params.train.lr"), ("metrics.val_ac", "val_acc")):
            with pytest.raises(UsageError, match=f"did you mean .*{meant}"):
                listed(where=f"{typo} > 0")
        assert listed(where="params.quite_another_thing = 1") == []
        with pytest.raises(UsageError, match="cursor"):
            listed(sort="version", after=99)
        champion = registry.show("story@champion")
        assert champion.summary.version == 1
        assert champion.params == {"train.lr": "0.01"}
        assert "model.onnx" in champion.files
        assert registry.diff("story/1", "2").parts["metrics"] == {"val_acc": (0.5, 0.7)}
        digests = {one.version: one.bundle_digest for one in registry.list("story")}
        assert digests[4] is None
        assert mindtrace.load("story").digest == digests[1]
        assert registry.export("story/2", tmp_path / "out").bundle_digest == digests[2]
        ours = [one for one in registry.verify_all() if one.model_name == "story"]
        assert [one.state for one in ours] == ["no bundle", *["verified"] * 4]
        evaluated = mindtrace.Registry(sets=["data.source=digits"]).evaluate("story/3")
        assert evaluated.test_digest == packed.data["test_digest"]
        compared_on_another_test_set(store, registry, packed)
        assert [one.version for one in registry.gc("story", keep=2, dry_run=True)] == [2]
        assert [one.removed for one in registry.gc("story", keep=2)] == [True]
        assert listed() == [4, 3, 1]
        for ref in ("story/2", "story@nobody", "nobody/1"):
            with pytest.raises(NotFoundError):
                registry.show(ref)

    return tell


def test_the_story_in_sqlite(story: Tell, store: Store) -> None:
    story(store)


def test_the_story_in_sqlite_through_mlflow(
    story: Tell, store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stores other than a SQLite file go through."""
    monkeypatch.setattr(
        "mindtrace.registry.reader.open_database", lambda _: ClientReader(store.uri, root)
    )
    story(store)


@pytest.mark.postgres
def test_the_story_in_postgresql(story: Tell, postgres_store: Store) -> None:
    story(postgres_store)


def test_the_story_behind_an_mlflow_server(story: Tell, server_store: Store) -> None:
    story(server_store)


@pytest.mark.postgres
def test_one_connection_serves_all_questions_to_a_store(postgres_store: Store) -> None:
    reader = open_reader(load_settings())

    assert isinstance(reader, ClientReader)
    again = open_reader(load_settings())
    assert isinstance(again, ClientReader) and again._store is reader._store
    assert reader.names() == []


@pytest.mark.postgres
def test_a_store_that_goes_away_is_one_line_without_its_password(postgres_store: Store) -> None:
    url, _, name = postgres_store.uri.rpartition("/")
    registry = mindtrace.Registry()
    assert registry.names() == []
    execute(f"{url}/postgres", f"drop database {name} with (force)")

    with pytest.raises(StoreError) as caught:
        registry.names()

    assert "\n" not in caught.value.message
    assert PASSWORD not in caught.value.message
    assert caught.value.hint


# One of many processes that register at once.
REGISTER = """
import os, sys
from pathlib import Path
from mindtrace.registry.champions import ensure_model
from mindtrace.registry.store import Store
from mindtrace.registry.store import start_run

store = Store(os.environ["REGISTRY__TRACKING_URI"], Path(sys.argv[1]))
run = start_run(store, "crowd", None, {})
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    ensure_model(store, "crowd")
    store.client.create_model_version(
        "crowd", f"runs:/{run.run_id}/bundle", run.run_id, await_creation_for=0
    )
run.end("FINISHED")
"""


def crowd(store: Store, processes: int, each: int) -> tuple[list[str], list[int]]:
    """What went wrong, and the versions there are in the end; all begin at one moment."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", REGISTER, str(store.root), str(each)],
            env={**os.environ, "REGISTRY__TRACKING_URI": store.uri},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate(timeout=PATIENCE)[1] for process in started]
    failures = [
        error for process, error in zip(started, told, strict=True) if process.returncode != 0
    ]
    reader = open_reader(load_settings())
    return failures, [row.version for row in reader.versions("crowd", 10_000)]


@pytest.fixture
def sizes(soak: int) -> Iterator[tuple[int, int]]:
    """Processes, and how many versions each registers; 16 and 25 for `make proofs SOAK=10`."""
    yield (16, 25) if soak > 1 else (4, 10)


def test_a_crowd_registers_dense_versions_in_sqlite(store: Store, sizes: tuple[int, int]) -> None:
    failures, versions = crowd(store, *sizes)

    assert failures == []
    assert versions == list(range(sizes[0] * sizes[1], 0, -1))


@pytest.mark.postgres
def test_a_crowd_registers_dense_versions_in_postgresql(
    postgres_store: Store, sizes: tuple[int, int]
) -> None:
    failures, versions = crowd(postgres_store, *sizes)

    assert failures == []
    assert versions == list(range(sizes[0] * sizes[1], 0, -1))
