"""From a finished training to a registered version, for `train` and for the callback.

In: the model with its best weights, its images and answers, the configuration, the
run. Out: a `Published` version with everything known of where it comes from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mindtrace.config.settings import Settings
from mindtrace.data.base import ImageDataModule
from mindtrace.models import ImageClassifier
from mindtrace.registry.names import METRIC
from mindtrace.registry.provenance import code_digest, environment, git_state, times, who
from mindtrace.registry.publish import Published, publish
from mindtrace.registry.store import Run
from mindtrace.training.export import contents
from mindtrace.training.report import Evaluation


@dataclass(frozen=True)
class Training:
    """What a registration needs to know of a training.

    Attributes:
        model: with its best weights, on the CPU.
        data: its images.
        test: its answers to the test images.
        metrics: of the best epoch and the test.
        best_epoch: from 1.
        settings: with every `auto` resolved.
        started_at: UTC.
        ended_at: UTC.
        parent: the version it started from, or None.
        job_id: the job that asked for it, or None.
    """

    model: ImageClassifier
    data: ImageDataModule
    test: Evaluation
    metrics: Mapping[str, float]
    best_epoch: int
    settings: Settings
    started_at: datetime
    ended_at: datetime
    parent: str | None = None
    job_id: str | None = None


def register(
    run: Run,
    model_name: str,
    training: Training,
    *,
    last_look: Callable[[], None] | None = None,
) -> Published:
    """Register what `run` trained.

    Args:
        run: open, with all its epochs.
        model_name: the registered model.
        training: what to register.
        last_look: called right before the version is made; what it raises prevents that.

    Raises:
        BundleError: its bundle does not give the answers of its training.
        StoreError: the store is away; nothing was registered.
    """
    run.log_metrics(
        {name: value for name, value in training.metrics.items() if name.startswith("test_")},
        step=training.best_epoch,
    )
    run.flush()
    return publish(
        run.store,
        model_name=model_name,
        run_id=run.run_id,
        contents=contents(training.model, training.data, training.test, training.settings.to_ini()),
        metadata=metadata(training),
        by=who(),
        last_look=last_look,
    )


def metadata(training: Training) -> dict[str, str]:
    """The tags of a version, without our prefix; digests of the bundle come later."""
    digests = training.data.digests()
    optional = {"parent": training.parent, "job_id": training.job_id}
    return {
        **environment(),
        **times(training.started_at, training.ended_at),
        **git_state(Path.cwd()),
        "who": who(),
        "seed": str(training.settings.train.seed),
        "best_epoch": str(training.best_epoch),
        "config_digest": config_digest(training.settings),
        "code_digest": code_digest(),
        "data_digest": digests.data_digest,
        "test_digest": digests.test_digest,
        **{key: value for key, value in optional.items() if value is not None},
        **{METRIC + name: repr(float(value)) for name, value in training.metrics.items()},
    }


def config_digest(settings: Settings) -> str:
    """SHA-256 of the configuration that travels in the bundle, 64 hexadecimal digits."""
    return hashlib.sha256(settings.to_ini().encode()).hexdigest()
