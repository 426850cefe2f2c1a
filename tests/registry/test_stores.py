"""One story of a registry, told by every kind of store: the same questions, the same answers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.registry.conftest import with_ledger
from tests.registry.servers import PASSWORD, execute, run_together

import mindtrace
from mindtrace.bundle.bundle import Contents
from mindtrace.config.settings import load_settings
from mindtrace.errors import BundleError, NotFoundError, StoreError, UsageError
from mindtrace.registry.client_reader import ClientReader
from mindtrace.registry.evaluation import EVALUATIONS
from mindtrace.registry.publish import publish
from mindtrace.registry.reader import open_reader
from mindtrace.registry.store import Store, start_run

Tell = Callable[[Store], None]


def registered(store: Store, packed: Contents, name: str, seed: int, val_acc: str) -> int:
    run = start_run(store, "story", None, {})
    run.log_params({"train.lr": 0.01 * seed})
    tags = {"seed": str(seed), "metric.val_acc": val_acc}
    published = publish(store, model_name=name, run_id=run.run_id, contents=packed, metadata=tags)
    run.end("FINISHED")
    return published.version


def compared_on_another_test_set(
    store: Store, registry: mindtrace.Registry, packed: Contents
) -> None:
    """A version with a test set of its own; the other one is evaluated on it."""
    n = len(packed.predictions.labels) // 2
    half = with_ledger(
        packed, **{name: rows[:n] for name, rows in vars(packed.predictions).items()}
    )
    ledger = half.predictions
    other = f"half/{registered(store, half, 'half', 1, '0.5')}"
    # The images that both ledgers hold are compared.
    assert registry.compare("story/3", other).n == n
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
def story(packed: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tell:
    """Registers, asks and cleans up, through the Python API."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")

    def tell(store: Store) -> None:
        registry = mindtrace.Registry()
        for seed, val_acc in ((1, "0.5"), (2, "0.7"), (3, "0.6")):
            registered(store, packed, "story", seed, val_acc)
        plain = start_run(store, "story", None, {})
        plain.log_metrics({"val_acc": 0.25}, step=1)
        plain.end("FINISHED")
        store.client.create_model_version(
            "story", f"runs:/{plain.run_id}/model", plain.run_id, await_creation_for=0
        )

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
        assert listed(where="params.quite_another_thing = 1") == []
        with pytest.raises(UsageError, match="cursor"):
            listed(sort="version", after=99)
        champion = registry.show("story@champion")
        assert champion.version == 1
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
        assert registry.promote("story/3").promoted and registry.rollback("story").to == 1
        actions = [entry.action for entry in registry.history("story")]
        assert actions == ["promote", "promote", "rollback"]
        assert [one.version for one in registry.gc("story", keep=2, dry_run=True)] == [2]
        assert [one.removed for one in registry.gc("story", keep=2)] == [True]
        assert listed() == [4, 3, 1]
        for ref in ("story/2", "story@nobody", "nobody/1"):
            with pytest.raises(NotFoundError):
                registry.show(ref)
        assert list((tmp_path / "cwd").iterdir()) == [], "nothing lands in the working directory"

    return tell


@pytest.mark.parametrize(
    "kind",
    [
        "store",
        *(pytest.param(kind, marks=pytest.mark.proof) for kind in ("client", "server_store")),
        pytest.param("postgres_store", marks=[pytest.mark.postgres, pytest.mark.proof]),
    ],
)
def test_the_story(
    kind: str, story: Tell, root: Path, request: pytest.FixtureRequest, monkeypatch: Any
) -> None:
    """`client` reads SQLite through MLflow, as other stores are read."""
    store: Store = request.getfixturevalue("store" if kind == "client" else kind)
    if kind == "client":
        monkeypatch.setattr(
            "mindtrace.registry.reader.open_database", lambda *_: ClientReader(store)
        )
    story(store)
    champion = mindtrace.load("story")
    if kind.endswith("_store"):
        assert not (root / "mlflow.db").exists()
    if kind == "server_store":
        assert (root / "bundles" / champion.digest).is_dir()


@pytest.mark.proof
def test_what_mlflow_prints_is_no_result(
    server_store: Store, mindtrace: Callable[..., Any], tmp_path: Path
) -> None:
    words = ("--source", "digits", "--max-epochs", "1", "--json")
    trained = mindtrace("train", "--set", "registry.model_name=quiet", *words)

    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["version"] == 1
    exported = mindtrace("registry", "export", "quiet", str(tmp_path / "out"), "-q")
    assert (exported.returncode, exported.stderr) == (0, "")
    assert "View run" not in trained.stdout + trained.stderr


@pytest.mark.proof
@pytest.mark.postgres
def test_one_connection_serves_all_questions_to_a_store(postgres_store: Store) -> None:
    reader = open_reader(load_settings())

    assert isinstance(reader, ClientReader)
    again = open_reader(load_settings())
    assert isinstance(again, ClientReader) and again._store is reader._store
    assert reader.names() == []


@pytest.mark.proof
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
from mindtrace.registry.store import Store, start_run

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


@pytest.mark.proof
@pytest.mark.parametrize(
    "kind", ["store", pytest.param("postgres_store", marks=pytest.mark.postgres)]
)
def test_a_crowd_registers_dense_versions(
    kind: str, soak: int, request: pytest.FixtureRequest
) -> None:
    store: Store = request.getfixturevalue(kind)
    processes, each = (16, 25) if soak > 1 else (4, 10)
    where = {"REGISTRY__TRACKING_URI": store.uri}
    run_together(REGISTER, str(store.root), str(each), count=processes, **where)
    versions = open_reader(load_settings()).versions("crowd", 10_000)
    assert [row.version for row in versions] == list(range(processes * each, 0, -1))
