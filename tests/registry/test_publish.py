"""A version comes into being whole, or not at all."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from mindtrace.bundle import manifest
from mindtrace.bundle.bundle import Contents, weights_digest
from mindtrace.bundle.predictions import GoldenCase
from mindtrace.bundle.predictor import Predictor
from mindtrace.config.settings import Settings
from mindtrace.errors import BundleError, MindtraceError, StoreError
from mindtrace.registry.champions import ChampionLog, champion_of
from mindtrace.registry.reader import open_database
from mindtrace.registry.reference import locate
from mindtrace.registry.store import Store

Publish = Callable[..., Any]


def registered(root: Path) -> list[str]:
    return [
        f"{row.name}/{row.version}" for row in open_database(root / "mlflow.db").versions(None, 9)
    ]


def test_a_first_version_is_the_champion_with_revision_1(
    register: Publish, store: Store, root: Path
) -> None:
    published = register()

    assert (published.model_name, published.version, published.champion) == ("digits", 1, True)
    (entry,) = ChampionLog.of_store(store, "digits").entries()
    assert (entry.revision, entry.to, entry.action, entry.by) == (1, 1, "promote", "tester")
    assert registered(root) == ["digits/1"]


def test_a_second_version_leaves_the_champion_alone(register: Publish, store: Store) -> None:
    register()
    second = register()

    assert (second.version, second.champion) == (2, False)
    assert champion_of(ChampionLog.of_store(store, "digits").entries()) == 1


def test_what_is_stored_is_what_was_sealed_and_answers(
    register: Publish, settings: Settings, packed: Contents
) -> None:
    published = register()
    located = locate(settings, "digits/1")

    assert located.digest == published.bundle_digest
    assert not manifest.orphans(located.folder)
    assert Predictor.open(located.folder, located.digest).model_config == packed.model_config
    assert published.weights_digest == weights_digest(packed.weights)


def test_what_is_known_of_it_stands_in_its_tags(register: Publish, settings: Settings) -> None:
    published = register(metadata={"seed": "3", "parent": "digits/1", "note": "ü" * 300})

    row = locate(settings, "digits/1").row
    assert row is not None
    assert row.tags["mindtrace.seed"] == "3"
    assert row.tags["mindtrace.note"] == "ü" * 300
    assert row.tags["mindtrace.bundle_digest"] == published.bundle_digest
    assert row.tags["mindtrace.weights_digest"] == published.weights_digest


def test_nothing_is_left_in_staging(register: Publish, root: Path) -> None:
    register()

    assert list((root / "staging").iterdir()) == []


def wrong_answers(packed: Contents) -> Contents:
    cases = [GoldenCase(case.image, case.probabilities[::-1].copy()) for case in packed.golden]
    return dataclasses.replace(packed, golden=cases)


def wrong_class_count(packed: Contents) -> Contents:
    card = dataclasses.replace(packed.model_config, class_names=("a", "b"))
    return dataclasses.replace(packed, model_config=card)


def no_numbers(packed: Contents) -> Contents:
    cases = [GoldenCase(case.image, np.full(10, np.nan, np.float32)) for case in packed.golden]
    return dataclasses.replace(packed, golden=cases)


def broken_graph(packed: Contents) -> Contents:
    # Enough of a graph for MLflow's description of it, and none for ONNX Runtime.
    return dataclasses.replace(packed, onnx=packed.onnx.replace(b"Softmax", b"Softmix"))


@pytest.mark.parametrize("spoil", [wrong_answers, wrong_class_count, no_numbers, broken_graph])
def test_a_bundle_that_does_not_answer_rightly_is_not_registered(
    register: Publish, packed: Contents, root: Path, spoil: Callable[[Contents], Contents]
) -> None:
    with pytest.raises(BundleError):
        register(contents=spoil(packed))

    assert registered(root) == []
    assert list((root / "staging").iterdir()) == []
    assert not list(root.glob("mlartifacts/*/artifacts/bundle/*"))


def no_space(*arguments: Any, **options: Any) -> None:
    raise OSError(28, "No space left on device")


def refused(*arguments: Any, **options: Any) -> None:
    raise MlflowException("the store went away")


@pytest.mark.parametrize(
    ("place", "failure"),
    [
        ("mindtrace.registry.publish.write_contents", no_space),
        ("mindtrace.bundle.manifest.seal", no_space),
        ("mindtrace.registry.publish.add_mlflow_files", refused),
        ("mindtrace.registry.publish._upload", no_space),
        ("mindtrace.registry.publish._upload", refused),
        ("mindtrace.registry.publish.ensure_model", refused),
        ("mlflow.MlflowClient.create_model_version", refused),
    ],
)
def test_a_failure_at_any_stage_leaves_no_version(
    register: Publish, root: Path, monkeypatch: pytest.MonkeyPatch, place: str, failure: Any
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(place, failure)
        with pytest.raises(MindtraceError) as caught:
            register()

    assert isinstance(caught.value, StoreError)
    assert "\n" not in caught.value.message
    assert registered(root) == []
    assert list((root / "staging").iterdir()) == []
    assert register().version == 1, "the next one has the field to itself"


def test_a_file_in_the_place_of_the_artifacts_is_a_store_error(
    register: Publish, root: Path
) -> None:
    (root / "mlartifacts").write_text("a file")

    with pytest.raises(StoreError) as caught:
        register()
    assert "\n" not in caught.value.message
    assert registered(root) == []


def test_a_file_in_the_place_of_staging_is_a_store_error(register: Publish, root: Path) -> None:
    (root / "staging").write_text("a file")

    with pytest.raises(StoreError) as caught:
        register()
    assert str(root / "staging") in caught.value.message
    assert registered(root) == []


def test_of_several_first_versions_at_once_one_is_champion(register: Publish, store: Store) -> None:
    together = threading.Barrier(3)
    published: list[Any] = []

    def one() -> None:
        together.wait()
        published.append(register())

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(one.version for one in published) == [1, 2, 3]
    assert sum(one.champion for one in published) == 1
    (entry,) = ChampionLog.of_store(store, "digits").entries()
    assert [one.version for one in published if one.champion] == [entry.to]


@pytest.mark.slow
def test_mlflow_itself_loads_the_champion_and_gives_the_same_answers(
    register: Publish, store: Store, packed: Contents, tmp_path: Path
) -> None:
    """In a process of its own: `mlflow.set_tracking_uri` is the way of MLflow's users."""
    register()
    np.save(tmp_path / "images.npy", np.zeros((3, 1, 8, 8), np.float32))
    script = (
        "import sys, mlflow, numpy as np; mlflow.set_tracking_uri(sys.argv[1]);"
        "model = mlflow.pyfunc.load_model('models:/digits@champion');"
        "np.save(sys.argv[3], model.predict(np.load(sys.argv[2]))['probabilities'])"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, store.uri, "images.npy", "answers.npy"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=dict(os.environ),
        check=False,
    )

    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "answers.npy")
    located = next(Path(store.root).glob("mlartifacts/*/artifacts/bundle"))
    expected = Predictor.open(located).run_input(np.zeros((3, 1, 8, 8), np.float32))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not (tmp_path / "mlruns").exists()
