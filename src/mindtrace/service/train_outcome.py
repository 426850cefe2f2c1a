"""What the verb train has to say, before and after: values, and the documents of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mindtrace.documents import document

if TYPE_CHECKING:
    from mindtrace.config.settings import Settings
    from mindtrace.registry.earlier import Earlier
    from mindtrace.registry.publish import Published
    from mindtrace.training.fit import TrainResult
    from mindtrace.training.report import ClassScore, Report


@dataclass(frozen=True)
class TrainOutcome:
    """What `train` has to say; the version and its digests are None if none was registered.

    `fit_s` is the wall time of `Trainer.fit`, `duration_s` that of the whole verb. `reused`
    is whether a job found its version registered by another, and nothing was trained.
    """

    model_name: str
    version: int | None
    champion: bool
    run_id: str
    metrics: Mapping[str, float]
    best_epoch: int
    epochs: int
    steps: int
    fit_s: float
    duration_s: float
    config_digest: str
    data_digest: str
    test_digest: str
    weights_digest: str | None
    bundle_digest: str | None
    calibration_error: float
    classes: tuple[ClassScore, ...]
    reused: bool = False

    def document(self) -> dict[str, Any]:
        """The JSON document of `mindtrace train`."""
        classes = [dict(vars(score)) for score in self.classes]
        return document({**vars(self), "metrics": dict(self.metrics), "classes": classes})

    @classmethod
    def of_training(
        cls,
        name: str,
        settings: Settings,
        run_id: str,
        result: TrainResult,
        findings: Report,
        published: Published | None,
        duration_s: float,
    ) -> TrainOutcome:
        """What was trained just now."""
        from mindtrace.registry.register import config_digest

        digests = result.data.digests()
        return cls(
            model_name=name,
            version=published.version if published else None,
            champion=published.champion if published else False,
            run_id=run_id,
            metrics=result.metrics,
            best_epoch=result.best_epoch,
            epochs=result.epochs,
            steps=result.steps,
            fit_s=result.fit_s,
            duration_s=duration_s,
            config_digest=config_digest(settings),
            data_digest=digests.data_digest,
            test_digest=digests.test_digest,
            weights_digest=published.weights_digest if published else None,
            bundle_digest=published.bundle_digest if published else None,
            calibration_error=findings.calibration_error,
            classes=findings.classes,
        )

    @classmethod
    def of_earlier(cls, found: Earlier, duration_s: float, *, reused: bool) -> TrainOutcome:
        """A version that was there before, in the place of one that was trained."""
        return cls(
            model_name=found.published.model_name,
            version=found.published.version,
            champion=found.published.champion,
            run_id=found.run_id,
            metrics=found.metrics,
            best_epoch=found.best_epoch,
            epochs=0,
            steps=0,
            fit_s=0.0,
            duration_s=duration_s,
            config_digest=found.digests["config_digest"],
            data_digest=found.digests["data_digest"],
            test_digest=found.digests["test_digest"],
            weights_digest=found.published.weights_digest,
            bundle_digest=found.published.bundle_digest,
            calibration_error=math.nan,
            classes=(),
            reused=reused,
        )


@dataclass(frozen=True)
class TrainPlan:
    """What `train --dry-run` found: the training that would begin."""

    model_name: str
    source: str
    network: str
    max_epochs: int
    images: Mapping[str, int]
    class_names: tuple[str, ...]
    device: str
    precision: str
    threads: int | None
    tracking_uri: str

    def document(self) -> dict[str, Any]:
        """The JSON document of `mindtrace train --dry-run`."""
        return document(
            {**vars(self), "images": dict(self.images), "class_names": list(self.class_names)}
        )
