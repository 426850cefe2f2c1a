"""Train a version again from its bundle, and say how near the second training comes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load

from mindtrace.bundle import bundle, manifest
from mindtrace.bundle.predictions import TestPredictions, digest_rows
from mindtrace.config.settings import Settings
from mindtrace.errors import UsageError, VerdictError, listed
from mindtrace.progress import Progress
from mindtrace.registry.evaluation import Side, images_for, ordered, read_side
from mindtrace.registry.provenance import environment, git_state
from mindtrace.registry.reference import Located, locate, settings_of_bundle
from mindtrace.system import interruptible
from mindtrace.utils.system import available_cores

if TYPE_CHECKING:
    from mindtrace.data.datamodule import ImageDataModule
    from mindtrace.training.fit import TrainResult

EXACT, NUMERIC, DIVERGED = "EXACT", "NUMERIC", "DIVERGED"
# Of a probability. Sums in another order differ by 1e-7 at first, and more each epoch.
TOLERANCE = 0.01
_DIGESTS = ("data_digest", "test_digest")


@dataclass(frozen=True)
class Deviation:
    """Something that is not here as it was at the training; None is unknown or absent."""

    what: str
    registered: str | None
    here: str | None


@dataclass(frozen=True)
class Reproduction:
    """How near a second training came; without name and version for a bundle's folder."""

    model_name: str | None
    version: int | None
    # EXACT: the same weights. NUMERIC: the same probabilities within the tolerance. Else DIVERGED.
    verdict: str
    registered_digest: str  # of the weights
    weights_digest: str
    max_difference: float | None  # of a probability; None on other test images
    changed_answers: int | None  # test images with another answer
    tolerance: float
    differences: tuple[Deviation, ...]
    metrics: Mapping[str, float]
    fit_s: float

    def require_reproduced(self) -> None:
        """Raise VerdictError for DIVERGED."""
        if self.verdict == DIVERGED:
            name = f"{self.model_name}/{self.version}" if self.model_name else "the bundle"
            what = listed([one.what for one in self.differences])
            raise VerdictError(f"DIVERGED: {name} was not made again; different here: {what}")


def reproduce(
    settings: Settings,
    ref: str | None = None,
    *,
    tolerance: float = TOLERANCE,
    progress: Progress | None = None,
) -> Reproduction:
    """Train as the bundle says, with the folders of `settings`; nothing is registered."""
    if not 0 <= tolerance <= 1:
        raise UsageError(f"tolerance {tolerance}: must be between 0 and 1")
    progress = progress or Progress()
    located = locate(settings, ref)
    registered = read_side(located)
    card = bundle.ModelConfig.read(located.folder)
    if card.replaced_by is not None:
        raise UsageError(
            f"its network is torchvision's {card.architecture}; timm's {card.replaced_by}"
            " replaces it, and gives other weights",
            hint=f"mindtrace train --model {card.replaced_by}",
        )
    made = settings_of_bundle(settings, (located.folder / bundle.CONFIG_FILE).read_text("utf-8"))
    with interruptible() as interrupts:
        progress.stage("loading")
        from mindtrace.models.networks import resolve_network
        from mindtrace.training.callbacks import StopOnRequest
        from mindtrace.training.fit import devices, fit, resolve_compute

        progress.stage(f"reading {made.data.source}")
        made, _ = resolve_network(made)
        data = images_for(made, card.spec, bundle.read_data(located.folder)["split_rule"])
        recorded = made.compute.device
        if recorded not in devices():
            made = made.replace(**{"compute.device": settings.compute.device})
        made = resolve_compute(made)
        with interrupts.deferred():
            stop = StopOnRequest(interrupts.wanted)
            result = fit(made, data, callbacks=[stop], progress=progress)
    content = manifest.check_one(located.folder, bundle.WEIGHTS_FILE, located.digest)
    expected = bundle.weights_digest(load(content))
    found = bundle.weights_digest(result.model.weights())
    largest, changed = _distance(registered, result, data)
    verdict = DIVERGED
    if found == expected:
        verdict = EXACT
    elif largest is not None and largest <= tolerance:
        verdict = NUMERIC
    return Reproduction(
        model_name=located.model_name,
        version=located.version,
        verdict=verdict,
        registered_digest=expected,
        weights_digest=found,
        max_difference=largest,
        changed_answers=changed,
        tolerance=tolerance,
        differences=tuple(_deviations(located, data, made, recorded)),
        metrics=result.metrics,
        fit_s=result.fit_s,
    )


def _distance(
    registered: Side, result: TrainResult, data: ImageDataModule
) -> tuple[float | None, int | None]:
    """Largest difference of a probability and count of other answers; None if not comparable."""
    digests = digest_rows(data.split("test").digests())
    now = ordered(TestPredictions(digests, result.test.labels, result.test.probabilities))
    then = registered.ledger
    same = np.array_equal(now.digests, then.digests) and np.array_equal(now.labels, then.labels)
    if not same or now.probabilities.shape != then.probabilities.shape:
        return None, None
    changed = now.probabilities.argmax(axis=1) != then.probabilities.argmax(axis=1)
    return float(np.abs(now.probabilities - then.probabilities).max()), int(changed.sum())


def _deviations(
    located: Located, data: ImageDataModule, made: Settings, device: str
) -> list[Deviation]:
    """Versions, processor, threads, code and data, where they are not what they were."""
    recorded, digests = bundle.read_data(located.folder), data.digests()
    then = {name: str(recorded.get(name)) for name in _DIGESTS}
    now = {name: str(getattr(digests, name)) for name in _DIGESTS}
    names = list(_DIGESTS)
    if located.row is not None:
        tags, here = located.row.own_tags, environment()
        then, now = {**tags, **then}, {**here, **git_state(), **now}
        names += [name for name in (*here, "git_commit", "git_dirty") if name in tags]
    found = [
        Deviation(name, then.get(name), now.get(name))
        for name in names
        # Uncommitted changes may be others each time.
        if then.get(name) != now.get(name) or (name, then[name]) == ("git_dirty", "true")
    ]
    if made.compute.device != device:
        found.append(Deviation("device", device, made.compute.device))
    threads, cores = made.compute.threads or 1, available_cores()
    if threads > cores:
        found.append(Deviation("threads", str(threads), f"{cores} cores"))
    return found
