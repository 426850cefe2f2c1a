"""`export`, `diff`, `evaluate`, and the Python API that leads to them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.conftest import RunCli
from tests.registry.conftest import Publish, Version, with_ledger

from mindtrace.bundle import manifest
from mindtrace.bundle.bundle import Contents
from mindtrace.bundle.predictions import TestPredictions
from mindtrace.config.settings import Settings, load_settings
from mindtrace.data.datamodule import build_data
from mindtrace.documents import document
from mindtrace.errors import BundleError, NotFoundError, UsageError
from mindtrace.registry.evaluation import evaluate
from mindtrace.registry.maintenance import export
from mindtrace.registry.reference import locate
from mindtrace.registry.store import Store
from mindtrace.service.registry import diff


def test_export_writes_the_checked_bundle(
    register: Publish, settings: Settings, tmp_path: Path
) -> None:
    published = register()

    done = export(settings, "digits@champion", tmp_path / "new" / "out")

    out = tmp_path / "new" / "out"
    assert (done.model_name, done.version, done.folder) == ("digits", 1, str(out))
    assert done.bundle_digest == published.own_tags["bundle_digest"]
    assert manifest.check(out, published.own_tags["bundle_digest"])
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
    told = json.loads(json.dumps(found.document()))
    assert told["configuration"] == {"train.lr": ["0.01", "0.5"]}
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


def test_evaluate_gives_the_answers_of_the_bundle_and_keeps_them(
    register: Publish, packed: Contents, store: Store, root: Path, tmp_path: Path
) -> None:
    register()
    outcome = evaluate(load_settings(sets=["data.source=digits"]), "digits")

    known = packed.predictions
    right = known.probabilities.argmax(1) == known.labels
    assert outcome.n == len(known.labels)
    assert outcome.accuracy == pytest.approx(right.mean())
    assert outcome.test_digest == packed.data["test_digest"]
    chosen = known.probabilities[np.arange(outcome.n), known.labels]
    assert outcome.loss == pytest.approx(-np.log(chosen).mean(), abs=1e-5)
    run_id = store.client.get_model_version("digits", "1").run_id
    place = Path(store.client.download_artifacts(run_id, "evaluations", str(tmp_path)))
    ledger = TestPredictions.parse((place / f"{outcome.test_digest}.npz").read_bytes())
    assert np.array_equal(ledger.digests, known.digests)
    assert np.allclose(ledger.probabilities, known.probabilities, atol=1e-5)
    kept = json.loads((place / f"{outcome.test_digest}.json").read_text())
    assert document(outcome).items() <= kept.items()
    assert outcome.artifact == f"evaluations/{outcome.test_digest}.npz"

    others = ["data.source=digits", "data.split_seed=9", "data.image_size=16"]
    other = evaluate(load_settings(sets=others), "digits/1")
    folder = str(locate(load_settings(), "digits").folder)
    of_folder = evaluate(load_settings(sets=others), folder)

    assert other.test_digest != outcome.test_digest
    assert of_folder == dataclasses.replace(other, model_name=None, version=None, artifact=None)


EVALUATED = {
    "its own test set": ("", lambda known: known.train_digests, 359, ""),
    "another split": ("data.split_seed=9", lambda known: known.train_digests, None, "trained on"),
    "half trained on": ("", lambda known: known.digests[::2], 179, "179 of 359 test images count"),
    "made before": ("", lambda known: None, 359, ""),
    "made before, another split": ("data.split_seed=9", lambda known: None, None, "keeps no"),
}


@pytest.mark.parametrize(("words", "train", "n", "note"), EVALUATED.values(), ids=EVALUATED)
def test_evaluate_counts_no_image_that_the_version_was_trained_on(
    words: str,
    train: Callable[[TestPredictions], Any],
    n: int | None,
    note: str,
    register: Publish,
    packed: Contents,
    run_cli: RunCli,
    store: Store,
) -> None:
    known = packed.predictions
    register(contents=with_ledger(packed, train_digests=train(known)))
    sets = [part for text in ("data.source=digits", words) if text for part in ("--set", text)]
    result = run_cli("registry", "evaluate", "digits/1", *sets, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    test = build_data(load_settings(sets=sets[1::2])).split("test")
    own = {digest.tobytes() for digest in known.digests}
    seen = train(known)
    trained = set() if seen is None else {digest.tobytes() for digest in seen}
    fair = [d for d in test.digests() if d not in trained and (seen is not None or d in own)]
    assert found["n"] == len(fair) == (n or len(fair))
    assert (found["left_out"], note in (found["note"] or "")) == (359 - found["n"], True)
    assert (found["note"] is None) is (found["left_out"] == 0)


def test_evaluate_on_nothing_but_training_images_is_refused(
    register: Publish, packed: Contents, run_cli: RunCli
) -> None:
    ledger = packed.predictions
    register(contents=with_ledger(packed, train_digests=ledger.digests))
    register(contents=with_ledger(packed, train_digests=None, digests=ledger.digests ^ 1))
    for version, why in ((1, "was trained on the others"), (2, "only its own test set")):
        words = ("--set", "data.source=digits")
        result = run_cli("registry", "evaluate", f"digits/{version}", *words)
        assert (result.exit_code, "0 of 359 test images count" in result.stderr) == (2, True)
        assert why in " ".join(result.stderr.split())


def test_a_training_keeps_the_digests_of_its_training_images(
    packed: Contents, tmp_path: Path
) -> None:
    data = build_data(load_settings(sets=["data.source=digits"]))
    packed.predictions.write(tmp_path / "predictions.npz")
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as arrays:
        kept = arrays["train_digests"]
    assert (kept.dtype, kept.shape) == (np.uint8, (1294, 32))
    assert {row.tobytes() for row in kept} == set(data.split("train").digests())
    assert not {row.tobytes() for row in packed.predictions.digests} & set(data.train.digests())


def test_evaluate_refuses_other_classes(register: Publish, root: Path, tmp_path: Path) -> None:
    register()
    for kind in ("cat", "dog"):
        (tmp_path / "pets" / kind).mkdir(parents=True)
        for number in range(10):
            image = Image.new("L", (8, 8), number * 20 + (kind == "dog"))
            image.save(tmp_path / "pets" / kind / f"{number}.png")
    settings = load_settings(sets=["data.source=folder", f"data.dir={tmp_path / 'pets'}"])

    with pytest.raises(UsageError, match="cat, dog"):
        evaluate(settings, "digits")
