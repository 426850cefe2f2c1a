"""`export`, `diff`, `gc`, `evaluate`, and the Python API that leads to them."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mindtrace
from mindtrace.bundle import manifest
from mindtrace.bundle.bundle import Contents
from mindtrace.bundle.predictions import TestPredictions
from mindtrace.config.settings import Settings, load_settings
from mindtrace.documents import document
from mindtrace.errors import BundleError, NotFoundError, UsageError
from mindtrace.registry.champions import ChampionLog
from mindtrace.registry.evaluation import evaluate
from mindtrace.registry.maintenance import HISTORY_KEPT, export, gc
from mindtrace.registry.reader import open_reader
from mindtrace.registry.reference import locate
from mindtrace.registry.store import Store
from mindtrace.service.registry import diff

Publish = Callable[..., Any]
Version = Callable[..., int]


def test_export_writes_the_checked_bundle(
    register: Publish, settings: Settings, tmp_path: Path
) -> None:
    published = register()

    done = export(settings, "digits@champion", tmp_path / "new" / "out")

    out = tmp_path / "new" / "out"
    assert (done.model_name, done.version, done.folder) == ("digits", 1, str(out))
    assert done.bundle_digest == published.bundle_digest
    assert manifest.check(out, published.bundle_digest)
    assert sorted(done.files) == sorted(path.name for path in out.iterdir())
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    (tmp_path / "empty").mkdir()
    again = export(settings, str(out), tmp_path / "empty")
    assert (again.model_name, again.bundle_digest) == (None, done.bundle_digest)


def test_export_refuses_what_is_not_empty_or_not_whole(
    register: Publish, settings: Settings, tmp_path: Path
) -> None:
    register()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    (tmp_path / "file").write_text("x")
    for name, told in (("full", "is not empty"), ("file", "is a file")):
        with pytest.raises(UsageError, match=told):
            export(settings, "digits", tmp_path / name)
    with pytest.raises(UsageError, match="cannot be written"):
        export(settings, "digits", tmp_path / "file" / "below")
    (locate(settings, "digits").folder / "model.json").unlink()
    with pytest.raises(BundleError, match=r"model\.json is missing"):
        export(settings, "digits", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full", "root"]


def test_diff_tells_what_differs_and_all_metrics(
    register: Publish, packed: Contents, settings: Settings, tmp_path: Path
) -> None:
    register(metadata={"torch": "1", "python": "3", "metric.val_acc": "0.5"})
    other = dataclasses.replace(packed, config=packed.config.replace("lr = 0.01", "lr = 0.5"))
    assert other.config != packed.config
    tags = {"torch": "2", "python": "3", "metric.val_acc": "0.5", "metric.test_acc": "0.25"}
    register(metadata=tags, contents=other)

    found = diff(settings, "digits/1", "2")

    assert (found.a, found.b) == ("digits/1", "digits/2")
    assert found.parts["configuration"] == {"train.lr": ("0.01", "0.5")}
    assert found.parts["data"] == {}
    assert found.parts["environment"] == {"torch": ("1", "2")}
    assert found.parts["metrics"] == {"val_acc": (0.5, 0.5), "test_acc": (None, 0.25)}
    assert found.document()["configuration"] == {"train.lr": ["0.01", "0.5"]}
    assert ("configuration", "train.lr", "0.01", "0.5") in list(found.rows())
    same = diff(settings, "digits/1", str(locate(settings, "digits/1").folder))
    assert list(same.rows()) == []


def test_diff_with_a_version_of_plain_mlflow(
    register: Publish, version: Version, settings: Settings, tmp_path: Path
) -> None:
    register(), version("theirs", seed="1")

    found = diff(settings, "theirs/1", "digits")

    assert found.parts["configuration"]["train.lr"] == (None, "0.01")
    for ref in ("theirs/9", str(tmp_path / "no")):
        with pytest.raises(NotFoundError):
            diff(settings, "digits", ref)


@pytest.fixture
def many(version: Version, store: Store) -> Store:
    """Twenty versions that look like ours, though their bundles are nowhere."""
    for number in range(20):
        version("m", bundle_digest=f"{number:064x}")
    return store


def versions(settings: Settings, name: str = "m") -> list[int]:
    return [row.version for row in open_reader(settings).versions(name, 100)]


def promote(store: Store, *numbers: int) -> None:
    for number in numbers:
        log = ChampionLog.of_store(store, "m")
        run_id = store.client.get_model_version("m", str(number)).run_id
        expected = len(log.entries())
        assert log.append(expected=expected, action="promote", to=number, by="me", run_id=run_id)


def test_gc_keeps_the_newest_and_what_is_named(many: Store, settings: Settings) -> None:
    promote(many, 3, 5)
    many.client.set_registered_model_alias("m", "best", "7")
    would = list(gc(settings, "m", keep=4, dry_run=True))
    assert [one.version for one in would] == [1, 2, 4, 6, *range(8, 17)]
    assert not any(one.removed for one in would)
    assert len(versions(settings)) == 20

    gone = list(gc(settings, keep=4))

    assert [dataclasses.replace(one, removed=False) for one in gone] == would
    assert all(one.removed for one in gone)
    assert versions(settings) == [20, 19, 18, 17, 7, 5, 3]
    assert len(ChampionLog.of_store(many, "m").entries()) == 2
    assert list(gc(settings, keep=4)) == []


def test_gc_forgets_only_what_the_last_entries_do_not_name(many: Store, settings: Settings) -> None:
    promote(many, *range(1, HISTORY_KEPT + 4))

    list(gc(settings, "m", keep=1))

    # The entry that made 4 champion names 3 as the one before it.
    assert versions(settings) == [20, *range(HISTORY_KEPT + 3, 2, -1)]


def test_gc_leaves_what_is_not_ours(version: Version, store: Store, settings: Settings) -> None:
    version("theirs"), version("theirs")

    assert list(gc(settings, keep=1)) == []
    assert versions(settings, "theirs") == [2, 1]


def test_gc_deletes_bundles_and_nothing_else(
    register: Publish, store: Store, settings: Settings
) -> None:
    register(), register(), register()
    folders = {number: locate(settings, f"digits/{number}").folder for number in (1, 2, 3)}
    second = store.client.get_model_version("digits", "2")
    (folders[2].parent / "report.txt").write_text("mine")

    assert [one.version for one in gc(settings, "digits", keep=1)] == [2]

    assert [folders[number].is_dir() for number in (1, 2, 3)] == [True, False, True]
    assert (folders[2].parent / "report.txt").exists()
    assert store.client.get_run(second.run_id)


def test_gc_leaves_a_bundle_that_another_version_has(
    register: Publish, store: Store, settings: Settings
) -> None:
    for _ in range(3):
        register()
    second = store.client.get_model_version("digits", "2")
    store.client.create_registered_model("twin")
    store.client.create_model_version("twin", second.source, second.run_id)
    folder = locate(settings, "digits/2").folder

    assert [one.version for one in gc(settings, "digits", keep=1)] == [2]
    assert folder.is_dir()


def test_gc_looks_again_before_each_deletion(many: Store, settings: Settings) -> None:
    """Named between the first look and its turn: it stays."""
    going = gc(settings, "m", keep=18)
    assert next(going).version == 1
    many.client.set_registered_model_alias("m", "late", "2")

    assert [(one.version, one.removed) for one in going] == [(2, False)]
    assert 2 in versions(settings)


def test_gc_refuses_to_keep_nothing_and_to_guess(many: Store, settings: Settings) -> None:
    with pytest.raises(UsageError, match="keep"):
        list(gc(settings, keep=0))
    with pytest.raises(NotFoundError):
        list(gc(settings, "n", keep=1))


def test_evaluate_gives_the_answers_of_the_bundle_and_keeps_them(
    register: Publish, packed: Contents, store: Store, root: Path, tmp_path: Path
) -> None:
    register()
    settings = load_settings(sets=["data.source=digits"])

    outcome = evaluate(settings, "digits")

    known = packed.predictions
    right = known.probabilities.argmax(1) == known.labels
    assert outcome.n == len(known.labels)
    assert outcome.accuracy == pytest.approx(right.mean())
    assert outcome.test_digest == packed.data["test_digest"]
    chosen = known.probabilities[np.arange(outcome.n), known.labels]
    assert outcome.loss == pytest.approx(-np.log(chosen).mean(), abs=1e-5)
    run_id = store.client.get_model_version("digits", "1").run_id
    place = store.client.download_artifacts(run_id, "evaluations", str(tmp_path))
    ledger = TestPredictions.parse((Path(place) / f"{outcome.test_digest}.npz").read_bytes())
    assert np.array_equal(ledger.digests, known.digests)
    assert np.allclose(ledger.probabilities, known.probabilities, atol=1e-5)
    told = json.loads((Path(place) / f"{outcome.test_digest}.json").read_text())
    assert document(outcome).items() <= told.items()
    assert outcome.artifact == f"evaluations/{outcome.test_digest}.npz"


def test_evaluate_on_another_test_set_and_of_a_folder(
    register: Publish, store: Store, root: Path
) -> None:
    register()
    settings = load_settings(sets=["data.source=digits", "data.split_seed=9", "data.image_size=16"])
    first = evaluate(load_settings(sets=["data.source=digits"]), "digits")

    other = evaluate(settings, "digits/1")
    of_folder = evaluate(settings, str(locate(settings, "digits").folder))

    assert other.test_digest != first.test_digest
    assert of_folder == dataclasses.replace(other, model_name=None, version=None, artifact=None)


def test_evaluate_refuses_other_classes(register: Publish, root: Path, tmp_path: Path) -> None:
    from PIL import Image

    register()
    for kind in ("cat", "dog"):
        (tmp_path / "pets" / kind).mkdir(parents=True)
        for number in range(10):
            image = io.BytesIO()
            Image.new("L", (8, 8), number * 20 + (kind == "dog")).save(image, "png")
            (tmp_path / "pets" / kind / f"{number}.png").write_bytes(image.getvalue())
    settings = load_settings(sets=["data.source=folder", f"data.dir={tmp_path / 'pets'}"])

    with pytest.raises(UsageError, match="cat, dog"):
        evaluate(settings, "digits")


def test_the_python_api_leads_to_all_of_it(
    register: Publish, store: Store, root: Path, tmp_path: Path
) -> None:
    published = register(metadata={"metric.val_acc": "0.5"})
    registry = mindtrace.Registry()

    predictor = mindtrace.load("digits@champion")
    assert predictor.digest == mindtrace.load().digest == published.bundle_digest
    assert registry.names() == ["digits"]
    assert [one.version for one in registry.list(where="val_acc > 0.4", sort="-val_acc")] == [1]
    assert registry.list("digits", where="val_acc > 0.6") == []
    assert registry.show("digits").summary == registry.list()[0]
    assert registry.diff("1", "1").parts["metrics"] == {"val_acc": (0.5, 0.5)}
    assert registry.export("1", tmp_path / "out").version == 1
    assert [one.state for one in registry.verify()] == ["verified"] * 2
    assert registry.verify_all() == registry.verify()
    assert registry.gc(keep=1) == []
    on_digits = mindtrace.Registry(sets=["data.source=digits"])
    assert on_digits.evaluate("digits").version == 1
    with pytest.raises(mindtrace.MindtraceError):
        mindtrace.load("digits/7")


def test_a_registry_of_explicit_settings(tmp_path: Path) -> None:
    settings = load_settings(sets=[f"DIR_PATHS.ROOT={tmp_path}"])

    assert mindtrace.Registry(settings=settings).list() == []
