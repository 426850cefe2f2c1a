"""Predictions of a version on the test images of a configuration, kept with its run."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mindtrace.bundle.predictions import TestPredictions, digest_rows
from mindtrace.bundle.predictor import Predictor
from mindtrace.documents import document
from mindtrace.errors import UsageError, listed
from mindtrace.progress import Progress
from mindtrace.registry.comparison import EVALUATIONS, UNKNOWN_TRAINING, read_side
from mindtrace.registry.reader import open_store
from mindtrace.registry.reference import Located, locate

if TYPE_CHECKING:
    from mindtrace.config.settings import Settings
    from mindtrace.data.datamodule import ImageDataModule

_BATCH = 512


@dataclass(frozen=True)
class EvaluationOutcome:
    """How a version does on test images; without name, version and artifact for a folder."""

    model_name: str | None
    version: int | None
    source: str
    test_digest: str  # of the images that count
    n: int
    accuracy: float
    loss: float  # mean cross entropy, nats
    bundle_digest: str
    artifact: str | None  # of the version's run, where all predictions are kept
    left_out: int  # test images that the version was trained on, or may have been
    note: str | None  # why


def evaluate(
    settings: Settings, ref: str, *, progress: Progress | None = None
) -> EvaluationOutcome:
    """Test a version, or a bundle's folder, on the test images that `settings.data` names."""
    progress = progress or Progress()
    located = locate(settings, ref)
    predictor = Predictor.open(located.folder, located.digest)
    progress.stage(f"reading {settings.data.source}")
    data = _images_for(settings, predictor)
    progress.stage(f"answering {len(data.split('test').labels)} images")
    whole = _predictions(predictor, data)
    ledger, note = _judged(located, whole)
    true = np.take_along_axis(ledger.probabilities, ledger.labels[:, None], axis=1)
    least = float(np.finfo(np.float32).tiny)
    run_id = None if located.row is None else located.row.run_id
    name = data.digests().test_digest
    outcome = EvaluationOutcome(
        model_name=located.model_name,
        version=located.version,
        source=data.source,
        test_digest=ledger.test_digest,
        n=len(ledger.labels),
        accuracy=float((ledger.probabilities.argmax(axis=1) == ledger.labels).mean()),
        loss=float(-np.log(np.maximum(true.astype(np.float64), least)).mean()),
        bundle_digest=predictor.digest,
        artifact=None if run_id is None else f"{EVALUATIONS}/{name}.npz",
        left_out=len(whole.labels) - len(ledger.labels),
        note=note,
    )
    if run_id is not None:
        _keep(settings, run_id, name, outcome, whole)
    return outcome


def _judged(located: Located, answers: TestPredictions) -> tuple[TestPredictions, str | None]:
    """The answers by which a version may be judged, and why others are left out."""
    side, whole = read_side(located), len(answers.labels)
    if side.trained_on is None:
        own, note = set(side.ledger.keys), UNKNOWN_TRAINING.format("the version")
        fair = [row for row, key in enumerate(answers.keys) if key in own]
    else:
        seen, note = side.trained_on, "the version was trained on the others"
        fair = [row for row, (digest, *_) in enumerate(answers.keys) if digest not in seen]
    note = f"{len(fair):,} of {whole:,} test images count: {note}"
    if not fair:
        hint = "name images that it was not trained on with --config"
        raise UsageError(note, hint=hint)
    return answers.rows(fair), None if len(fair) == whole else note


def _images_for(settings: Settings, predictor: Predictor) -> ImageDataModule:
    """The configuration's images, in the input that the version was trained with."""
    from mindtrace.data.datamodule import build_data
    from mindtrace.preprocess import InputRequirements

    card = predictor.model_config
    requirements = InputRequirements(**vars(card.spec))
    own = settings.data.model_copy(update={"image_size": None, "resize": "auto"})
    data = build_data(replace(settings, data=own), requirements)
    if data.class_names != card.class_names:
        raise UsageError(
            f"the images have classes {listed(data.class_names)}; "
            f"the version knows {listed(card.class_names)}"
        )
    if data.spec != card.spec:
        raise UsageError(
            f"the images come as {data.spec}; the version was trained with {card.spec}"
        )
    return data


def _predictions(predictor: Predictor, data: ImageDataModule) -> TestPredictions:
    split = data.split("test")
    pixels = split.images.permute(0, 2, 3, 1).contiguous().numpy()
    if predictor.model_config.spec.mode == "L":
        pixels = pixels[..., 0]
    parts = [predictor.run(pixels[at : at + _BATCH]) for at in range(0, len(pixels), _BATCH)]
    return TestPredictions(
        digest_rows(split.digests()), split.labels.numpy(), np.concatenate(parts)
    )


def _keep(
    settings: Settings, run_id: str, name: str, outcome: EvaluationOutcome, ledger: TestPredictions
) -> None:
    """Store all predictions and the figures as artifacts of the version's run."""
    from mindtrace.registry.store import store_errors

    store = open_store(settings)
    store.claim(run_id)
    now = datetime.now(UTC).isoformat("T", "milliseconds")
    text = json.dumps({**document(outcome), "evaluated_at": now}, indent=2) + "\n"
    with tempfile.TemporaryDirectory(prefix="mindtrace-") as folder:
        ledger.write(Path(folder, f"{name}.npz"))
        Path(folder, f"{name}.json").write_text(text, encoding="utf-8")
        with store_errors(store.uri):
            store.client.log_artifacts(run_id, folder, EVALUATIONS)
