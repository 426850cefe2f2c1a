"""The verb train: settings in, a registered version out.

Everything that can be refused is refused before the first epoch: configuration,
images, store. The MLflow run that was opened gets a true end whatever happens.
"""

from __future__ import annotations

import atexit
import gc
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mindtrace.config.redact import masked
from mindtrace.config.settings import Settings
from mindtrace.progress import Progress
from mindtrace.registry.names import model_name_of
from mindtrace.service.train_outcome import TrainOutcome, TrainPlan
from mindtrace.system import Interrupts, auto_device, hide_gpus, interruptible

if TYPE_CHECKING:
    from mindtrace.data.base import ImageDataModule
    from mindtrace.jobs.ticket import Ticket
    from mindtrace.registry.earlier import Earlier
    from mindtrace.registry.store import Run, Store
    from mindtrace.training.fit import TrainResult


def own_this_process(settings: Settings) -> None:
    """For a process that only trains, before torch is imported.

    It hides GPUs that will not be used. And it keeps the garbage collector from walking,
    again and again and once more at the end, over the million objects that torch and
    MLflow keep for good: two seconds of a short training.
    """
    device = settings.compute.device
    if (auto_device() if device == "auto" else device) == "cpu":
        hide_gpus()
    gc.set_threshold(50_000, 20, 100)
    atexit.register(gc.freeze)


def plan(settings: Settings) -> TrainPlan:
    """Check all that a training needs, images included, and train nothing.

    Raises:
        MindtraceError: what `train` would raise before its first epoch.
    """
    from mindtrace.data.build import build_data
    from mindtrace.models import network_demand
    from mindtrace.training.compute import resolve

    name = model_name_of(settings)
    data = build_data(settings, network_demand(settings.model))
    settings = resolve(settings, data.spec, len(data.class_names))
    return TrainPlan(
        model_name=name,
        source=settings.data.source,
        network=settings.model.name,
        max_epochs=settings.train.max_epochs,
        images=data.digests().counts,
        class_names=data.class_names,
        device=settings.compute.device,
        precision=settings.compute.precision,
        threads=settings.compute.threads,
        tracking_uri=masked(settings.registry.tracking_uri),
    )


def train(
    settings: Settings,
    *,
    progress: Progress | None = None,
    register: bool = True,
    ticket: Ticket | None = None,
    parent: str | None = None,
    warm_start: bool = False,
    resume: str | None = None,
) -> TrainOutcome:
    """Train, test the best weights, register them as a version.

    Args:
        settings: what to train.
        progress: hears of it.
        register: False trains and logs the run, but makes no version.
        ticket: of the job that asked for it.
        parent: the version it started from, `NAME/VERSION`.
        warm_start: begin with the weights of `parent`.
        resume: `last` or a run id: go on from its checkpoint.

    Raises:
        ConfigError, DataError, StoreError: before the first epoch.
        NotFoundError: no checkpoint to resume from.
        UsageError: `resume` with another configuration; with the differences.
        TrainingError: the loss is no number any more.
        InterruptedByUser: SIGINT or SIGTERM; the run is KILLED, nothing is registered.
    """
    began = time.perf_counter()
    progress = progress or Progress()
    name = model_name_of(settings)
    with interruptible() as interrupts:
        progress.stage("loading")
        from mindtrace.registry.store import Store
        from mindtrace.service import train_run

        found = _made_by(ticket, settings, name)
        if found is not None:
            return TrainOutcome.of_earlier(found, time.perf_counter() - began, reused=False)
        settings, data = _prepared(
            _warm(settings, parent) if warm_start and parent else settings, progress
        )
        store = Store(settings.registry.tracking_uri, settings.dirs.root)
        found = _same_as(ticket, store, settings, name, data)
        if found is not None:
            return TrainOutcome.of_earlier(found, time.perf_counter() - began, reused=True)
        job_id = None if ticket is None else ticket.job_id
        with train_run.opened(
            store, settings, name, data, interrupts=interrupts, job_id=job_id, resume=resume
        ) as (run, folder):
            result = _fitted(run, folder, settings, data, interrupts, progress, resume)
            progress.stage("writing the report")
            findings = train_run.report(run, result)
            published = None
            if register:
                progress.stage(f"registering {name}")
                with interrupts.held():
                    published = train_run.register(run, name, settings, result, ticket, parent)
        _forget_checkpoints(folder)
    return TrainOutcome.of_training(
        name, settings, run.run_id, result, findings, published, time.perf_counter() - began
    )


def _made_by(ticket: Ticket | None, settings: Settings, name: str) -> Earlier | None:
    """What an earlier attempt of the job registered, and died before it could say so."""
    if ticket is None:
        return None
    from mindtrace.registry import earlier
    from mindtrace.registry.store import Store

    store = Store(settings.registry.tracking_uri, settings.dirs.root)
    return earlier.of_job(store, name, ticket.job_id)


def _same_as(
    ticket: Ticket | None, store: Store, settings: Settings, name: str, data: ImageDataModule
) -> Earlier | None:
    """The version of the same training, which a job need not repeat."""
    if ticket is None or ticket.force:
        return None
    from mindtrace.registry import earlier
    from mindtrace.registry.register import config_digest

    return earlier.like(store, name, config_digest(settings), data.digests().data_digest)


def _prepared(settings: Settings, progress: Progress) -> tuple[Settings, ImageDataModule]:
    """The images in memory, and the settings with every `auto` resolved."""
    from mindtrace.data.build import build_data
    from mindtrace.models import network_demand
    from mindtrace.training.compute import resolve

    progress.stage(f"reading {settings.data.source}")
    data = build_data(settings, network_demand(settings.model))
    data.progress = progress
    data.prepare_data()
    data.setup()
    for note in data.notes:
        progress.note(note)
    return resolve(settings, data.spec, len(data.class_names)), data


def _fitted(
    run: Run,
    folder: Path,
    settings: Settings,
    data: ImageDataModule,
    interrupts: Interrupts,
    progress: Progress,
    resume: str | None,
) -> TrainResult:
    from mindtrace.registry.callbacks import RunCallback
    from mindtrace.training.callbacks import StopOnRequest
    from mindtrace.training.fit import fit

    with interrupts.deferred():
        return fit(
            settings,
            data,
            callbacks=[RunCallback(run), StopOnRequest(interrupts.wanted)],
            progress=progress,
            checkpoints=folder,
            resume=resume is not None,
        )


def _forget_checkpoints(folder: Path) -> None:
    from mindtrace.training import checkpoint

    checkpoint.remove(folder)


def _warm(settings: Settings, parent: str) -> Settings:
    """The same training, begun with the weights of a registered version."""
    from mindtrace.bundle import manifest
    from mindtrace.bundle.folder import WEIGHTS
    from mindtrace.registry.reference import locate

    located = locate(settings, parent)
    manifest.check(located.folder, located.digest)
    return settings.replace(**{"model.weights": str(located.folder / WEIGHTS)})
