"""Answers of a version to test images: those in its bundle, and those that `evaluate` adds."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mindtrace.bundle import manifest
from mindtrace.bundle.bundle import MODEL_FILE, PREDICTIONS_FILE, ModelConfig
from mindtrace.bundle.predictions import TestPredictions, digest_rows
from mindtrace.bundle.predictor import Predictor
from mindtrace.documents import document
from mindtrace.errors import BundleError, StoreError, UsageError, listed
from mindtrace.preprocess import ImageSpec, InputRequirements
from mindtrace.progress import Progress
from mindtrace.registry.reader import Reader, open_store
from mindtrace.registry.reference import Located, locate

if TYPE_CHECKING:
    from mindtrace.config.settings import Settings
    from mindtrace.data.datamodule import ImageDataModule

# Folder of a run with the predictions that `evaluate` kept.
EVALUATIONS = "evaluations"
# A note on a version that was made before training images were kept.
UNKNOWN_TRAINING = "{} keeps no digests of its training images: only its own test set counts"
_BATCH = 512


@dataclass(frozen=True, eq=False)
class Side:
    """A version's answers to its test set and others, in the order of (image digest, label)."""

    name: str  # NAME/VERSION, or the bundle's folder
    class_names: tuple[str, ...]
    ledger: TestPredictions

    @cached_property
    def answers(self) -> NDArray[np.int64]:
        """The likeliest class of each image, (images,)."""
        return np.asarray(self.ledger.probabilities.argmax(axis=1), np.int64)

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Whether each answer is the true class, (images,)."""
        return np.asarray(self.answers == self.ledger.labels)

    @cached_property
    def trained_on(self) -> frozenset[bytes] | None:
        """The digests of its training images; None of a version made before they were kept."""
        train = self.ledger.train_digests
        return None if train is None else frozenset(row.tobytes() for row in train)


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


def read_sides(reader: Reader | None, a: Located, b: Located) -> tuple[Side, Side]:
    """Both versions' predictions, with those that `evaluate` kept on the other's test set."""
    first, second = read_side(a), read_side(b)
    digests = [side.ledger.test_digest for side in (first, second)]
    if digests[0] == digests[1] or reader is None:
        return first, second
    first = _with_evaluation(reader, a, first, digests[1])
    return first, _with_evaluation(reader, b, second, digests[0])


def read_side(located: Located) -> Side:
    """The predictions of a bundle, every byte of the bundle checked."""
    needed, name = (MODEL_FILE, PREDICTIONS_FILE), located.name
    files = manifest.check(located.folder, located.digest, needed)
    try:
        card = ModelConfig.from_json(files[MODEL_FILE].decode())
        ledger = TestPredictions.parse(files[PREDICTIONS_FILE])
    except ValueError as error:
        raise BundleError(name, str(error)) from error
    n, classes = len(ledger.labels), len(card.class_names)
    if n == 0 or ledger.digests.shape != (n, 32) or ledger.probabilities.shape != (n, classes):
        raise BundleError(name, "its predictions do not fit its classes")
    return Side(name, card.class_names, ordered(ledger))


def ordered(ledger: TestPredictions) -> TestPredictions:
    """Sorted by (digest, label); equal images have equal answers, so their order is no matter."""
    words = np.ascontiguousarray(ledger.digests).view(">u8")
    return ledger.rows(np.lexsort((ledger.labels, *words.T[::-1])))


def images_for(
    settings: Settings, spec: ImageSpec, split_rule: str | None = None
) -> ImageDataModule:
    """The images of a configuration in the input of a network that is trained already."""
    from mindtrace.data.datamodule import build_data

    # Its size may come from a rule that has changed since.
    own = settings.data.model_copy(update={"image_size": None, "resize": "auto"})
    return build_data(replace(settings, data=own), InputRequirements(**vars(spec)), split_rule)


def evaluate(
    settings: Settings, ref: str, *, progress: Progress | None = None
) -> EvaluationOutcome:
    """Test a version on the test images of the settings that it was not trained on; UsageError."""
    progress = progress or Progress()
    located = locate(settings, ref)
    predictor = Predictor.open(located.folder, located.digest)
    card = predictor.model_config
    progress.stage(f"reading {settings.data.source}")
    data = images_for(settings, card.spec)
    if data.class_names != card.class_names:
        known = f"the version knows {listed(card.class_names)}"
        raise UsageError(f"the images have classes {listed(data.class_names)}; {known}")
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
        hint = "--config FILE  # names images that it was not trained on"
        raise UsageError(note, hint=hint)
    return answers.rows(fair), None if len(fair) == whole else note


def _predictions(predictor: Predictor, data: ImageDataModule) -> TestPredictions:
    split = data.split("test")
    pixels = split.images.permute(0, 2, 3, 1).contiguous().numpy()
    if predictor.model_config.spec.mode == "L":
        pixels = pixels[..., 0]
    parts = [predictor.run(pixels[at : at + _BATCH]) for at in range(0, len(pixels), _BATCH)]
    digests = digest_rows(split.digests())
    return TestPredictions(digests, split.labels.numpy(), np.concatenate(parts))


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


def _with_evaluation(reader: Reader, located: Located, side: Side, test_digest: str) -> Side:
    """A version's predictions, and those on another test set if it was evaluated on it."""
    # Of a version that does not say what it was trained on, other images prove nothing.
    known = side.ledger.train_digests is not None
    content = _kept(reader, located, f"{test_digest}.npz") if known else None
    if content is None:
        return side
    try:
        ledger = TestPredictions.parse(content)
    except ValueError as error:
        raise BundleError(side.name, f"its evaluation: {error}") from error
    # The manifest does not cover this file: it counts only if its images have the digest.
    shape = (len(ledger.labels), len(side.class_names))
    if ledger.test_digest != test_digest or ledger.probabilities.shape != shape:
        raise BundleError(side.name, f"its evaluation on {test_digest[:12]} is about other images")
    own = set(side.ledger.keys)
    more = ledger.rows([row for row, key in enumerate(ledger.keys) if key not in own])
    names = ("digests", "labels", "probabilities")
    both = {
        name: np.concatenate([getattr(one, name) for one in (side.ledger, more)]) for name in names
    }
    return replace(side, ledger=ordered(replace(side.ledger, **both)))


def _kept(reader: Reader, located: Located, name: str) -> bytes | None:
    """A file of the folder beside the bundle in the version's run; None if there is none."""
    beside = None if located.row is None else located.row.beside(EVALUATIONS)
    if beside is None:
        return None
    try:
        with tempfile.TemporaryDirectory(prefix="mindtrace-") as folder:
            reader.fetch(beside, Path(folder) / EVALUATIONS)
            return (Path(folder) / EVALUATIONS / name).read_bytes()
    except (FileNotFoundError, StoreError):
        return None
