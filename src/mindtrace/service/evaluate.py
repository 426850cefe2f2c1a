"""The verb evaluate: a version in, how it does on the test images of a configuration out."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindtrace.config.settings import Settings
from mindtrace.documents import document
from mindtrace.errors import UsageError, listed
from mindtrace.progress import Progress

if TYPE_CHECKING:
    from mindtrace.bundle.predictions import TestPredictions
    from mindtrace.bundle.predictor import Predictor
    from mindtrace.data.base import ImageDataModule

_BATCH = 512


@dataclass(frozen=True)
class EvaluationOutcome:
    """How a version does on a test set.

    Attributes:
        model_name: None for a bundle that was named by its folder, as is `version`.
        version: its number.
        source: of the images.
        test_digest: of the test set.
        n: its images.
        accuracy: fraction of right answers.
        loss: mean cross entropy, in nats.
        bundle_digest: of what answered.
        artifact: of the version's run, where its answers are kept; None for a folder.
    """

    model_name: str | None
    version: int | None
    source: str
    test_digest: str
    n: int
    accuracy: float
    loss: float
    bundle_digest: str
    artifact: str | None

    def document(self) -> dict[str, Any]:
        """The JSON document of `mindtrace registry evaluate`."""
        return document(vars(self))


def evaluate(
    settings: Settings, ref: str, *, progress: Progress | None = None
) -> EvaluationOutcome:
    """Run a version over the test split that `settings` describe, as predict would.

    The images are brought into the version's own input. Its answers are kept with its run
    as `evaluations/<test_digest>.npz`, a ledger, and the figures beside it as JSON.

    Args:
        settings: `[data]` says which images, `[registry]` where the version is.
        ref: the version, or a bundle's folder.
        progress: hears of it.

    Raises:
        NotFoundError: no such version.
        BundleError: its bundle is not what was registered.
        UsageError: the images have other classes, or cannot be had in its size.
        DataError: the images cannot be used.
        StoreError: the registry cannot be read or written.
    """
    progress = progress or Progress()
    from mindtrace.bundle.predictor import Predictor
    from mindtrace.registry.reference import locate

    located = locate(settings, ref)
    predictor = Predictor.open(located.folder, located.digest)
    progress.stage(f"reading {settings.data.source}")
    data = _images_for(settings, predictor)
    progress.stage(f"answering {len(data.split('test').labels)} images")
    ledger = _answers(predictor, data)
    accuracy, loss = _scores(ledger)
    row = located.row
    outcome = EvaluationOutcome(
        model_name=row.name if row else None,
        version=row.version if row else None,
        source=data.source,
        test_digest=data.digests().test_digest,
        n=len(ledger.labels),
        accuracy=accuracy,
        loss=loss,
        bundle_digest=predictor.digest,
        artifact=None,
    )
    if row is None or row.run_id is None:
        return outcome
    from mindtrace.registry.evaluations import EVALUATIONS

    artifact = f"{EVALUATIONS}/{outcome.test_digest}.npz"
    kept = dataclasses.replace(outcome, artifact=artifact)
    _keep(settings, row.run_id, kept, ledger)
    return kept


def _images_for(settings: Settings, predictor: Predictor) -> ImageDataModule:
    """The configuration's images, in the input that the version was trained with."""
    from mindtrace.data.build import build_data
    from mindtrace.preprocess import InputRequirements

    card = predictor.model_config
    demand = InputRequirements(**{**vars(card.spec), "min_side": None})
    own = settings.data.model_copy(update={"image_size": None})
    data = build_data(dataclasses.replace(settings, data=own), demand)
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


def _answers(predictor: Predictor, data: ImageDataModule) -> TestPredictions:
    import numpy as np

    from mindtrace.bundle.predictions import TestPredictions

    split = data.split("test")
    pixels = split.images.permute(0, 2, 3, 1).contiguous().numpy()
    if predictor.model_config.spec.mode == "L":
        pixels = pixels[..., 0]
    parts = [predictor.run(pixels[at : at + _BATCH]) for at in range(0, len(pixels), _BATCH)]
    digests = np.frombuffer(b"".join(split.digests()), np.uint8).reshape(-1, 32)
    return TestPredictions(digests, split.labels.numpy(), np.concatenate(parts))


def _scores(ledger: TestPredictions) -> tuple[float, float]:
    """Accuracy, and mean cross entropy in nats."""
    import numpy as np

    right = ledger.probabilities.argmax(axis=1) == ledger.labels
    true = np.take_along_axis(ledger.probabilities, ledger.labels[:, None], axis=1)
    least = float(np.finfo(np.float32).tiny)
    loss = -np.log(np.maximum(true.astype(np.float64), least)).mean()
    return float(right.mean()), float(loss)


def _keep(
    settings: Settings, run_id: str, outcome: EvaluationOutcome, ledger: TestPredictions
) -> None:
    from mindtrace.registry.evaluations import EVALUATIONS
    from mindtrace.registry.store import Store, store_errors

    store = Store(settings.registry.tracking_uri, settings.dirs.root)
    told = {**outcome.document(), "evaluated_at": datetime.now(UTC).isoformat("T", "milliseconds")}
    with tempfile.TemporaryDirectory(prefix="mindtrace-") as name:
        folder = Path(name)
        ledger.write(folder / f"{outcome.test_digest}.npz")
        text = json.dumps(told, indent=2) + "\n"
        (folder / f"{outcome.test_digest}.json").write_text(text, encoding="utf-8")
        with store_errors(store.uri):
            store.client.log_artifacts(run_id, name, EVALUATIONS)
