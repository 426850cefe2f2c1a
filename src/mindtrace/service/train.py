"""The verb train: settings in, a registered version out.

Everything that can be refused is refused before the first epoch: configuration,
images, store. The MLflow run that was opened gets a true end whatever happens.
"""

from __future__ import annotations

import atexit
import gc
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mindtrace.core.interrupts import interruptible
from mindtrace.core.machine import auto_device, hide_gpus
from mindtrace.core.masking import masked
from mindtrace.core.progress import Progress
from mindtrace.core.settings import Settings
from mindtrace.errors import InterruptedByUser
from mindtrace.registry.names import model_name_of
from mindtrace.service.train_outcome import TrainOutcome, TrainPlan

if TYPE_CHECKING:
    from mindtrace.data.base import ImageDataModule
    from mindtrace.jobs.ticket import Ticket
    from mindtrace.registry.publish import Published
    from mindtrace.registry.store import Store
    from mindtrace.registry.tracking import Run
    from mindtrace.training.fit import TrainResult
    from mindtrace.training.report import Report


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
        from mindtrace.data.build import build_data
        from mindtrace.models import network_demand
        from mindtrace.registry import earlier
        from mindtrace.registry.callbacks import RunCallback, run_ends_truly
        from mindtrace.registry.register import config_digest
        from mindtrace.registry.store import Store
        from mindtrace.training import checkpoint
        from mindtrace.training.callbacks import StopOnRequest
        from mindtrace.training.compute import resolve
        from mindtrace.training.fit import fit

        if ticket is not None:
            # An earlier attempt may have registered, and died before it could say so.
            store = Store(settings.registry.tracking_uri, settings.dirs.root)
            found = earlier.of_job(store, name, ticket.job_id)
            if found is not None:
                return TrainOutcome.of_earlier(found, time.perf_counter() - began, reused=False)
        settings = _warm(settings, parent) if warm_start and parent else settings
        progress.stage(f"reading {settings.data.source}")
        data = build_data(settings, network_demand(settings.model))
        data.progress = progress
        data.prepare_data()
        data.setup()
        for note in data.notes:
            progress.note(note)
        settings = resolve(settings, data.spec, len(data.class_names))
        store = Store(settings.registry.tracking_uri, settings.dirs.root)
        if ticket is not None and not ticket.force:
            found = earlier.like(store, name, config_digest(settings), data.digests().data_digest)
            if found is not None:
                return TrainOutcome.of_earlier(found, time.perf_counter() - began, reused=True)
        job_id = None if ticket is None else ticket.job_id
        with ExitStack() as whole:
            with interrupts.held():  # a run that is there has somebody who ends it
                run, folder = _begun(store, settings, name, data, job_id, resume)
                whole.enter_context(run_ends_truly(run))
            whole.enter_context(_told_how_to_resume(run.run_id, folder))
            beside = [RunCallback(run), StopOnRequest(interrupts.wanted)]
            with interrupts.deferred():
                result = fit(
                    settings,
                    data,
                    callbacks=beside,
                    progress=progress,
                    checkpoints=folder,
                    resume=resume is not None,
                )
            progress.stage("writing the report")
            findings = _report(run, result)
            published = None
            if register:
                progress.stage(f"registering {name}")
                with interrupts.held():
                    published = _register(run, name, settings, result, ticket, parent)
        checkpoint.remove(folder)
    digests = data.digests()
    return TrainOutcome(
        model_name=name,
        version=published.version if published else None,
        champion=published.champion if published else False,
        run_id=run.run_id,
        metrics=result.metrics,
        best_epoch=result.best_epoch,
        epochs=result.epochs,
        steps=result.steps,
        fit_s=result.fit_s,
        duration_s=time.perf_counter() - began,
        config_digest=config_digest(settings),
        data_digest=digests.data_digest,
        test_digest=digests.test_digest,
        weights_digest=published.weights_digest if published else None,
        bundle_digest=published.bundle_digest if published else None,
        calibration_error=findings.calibration_error,
        classes=findings.classes,
    )


def _begun(
    store: Store,
    settings: Settings,
    name: str,
    data: ImageDataModule,
    job_id: str | None,
    resume: str | None,
) -> tuple[Run, Path]:
    """A run and its folder of checkpoints: new ones, or those that `resume` names."""
    from mindtrace.registry.callbacks import run_ends_if_it_fails
    from mindtrace.registry.tracking import resume_run
    from mindtrace.training import checkpoint

    config, digest = settings.to_ini(), data.digests().data_digest
    if resume is None:
        run = _start_run(store, settings, name, job_id)
        with run_ends_if_it_fails(run):
            _log_params(run, settings)
            wanted = checkpoint.Identity(run.run_id, name, config, digest)
            return run, checkpoint.begin(settings.dirs.checkpoints, wanted)
    folder, found = checkpoint.find(settings.dirs.checkpoints, resume)
    checkpoint.demand_same(found, checkpoint.Identity(found.run_id, name, config, digest))
    return resume_run(store, found.run_id), folder


@contextmanager
def _told_how_to_resume(run_id: str, folder: Path) -> Iterator[None]:
    from mindtrace.training.checkpoint import LAST

    try:
        yield
    except InterruptedByUser as error:
        if (folder / LAST).exists():
            error.hint = f"the same command with --resume {run_id} goes on from the last epoch"
        raise


def _start_run(store: Store, settings: Settings, name: str, job_id: str | None) -> Run:
    from mindtrace.registry.names import PREFIX
    from mindtrace.registry.provenance import environment
    from mindtrace.registry.tracking import start_run

    tags = {PREFIX + key: value for key, value in environment().items()}
    if job_id is not None:
        tags[PREFIX + "job_id"] = job_id
    return start_run(store, settings.registry.experiment_name or name, None, tags)


def _log_params(run: Run, settings: Settings) -> None:
    travelling = ("data", "model", "train", "compute")
    run.log_params(
        {
            f"{row.section}.{row.key}": row.value
            for row in settings.rows()
            if row.section in travelling and row.key != "mirror"
        }
    )


def _report(run: Run, result: TrainResult) -> Report:
    """Pictures and numbers of the test, kept with the run."""
    from mindtrace.training.pictures import write_report
    from mindtrace.training.report import report

    names = result.data.class_names
    findings = report(result.test, names)
    with tempfile.TemporaryDirectory(prefix="mindtrace-") as folder:
        write_report(Path(folder), findings, result.course, result.data.split("test"), names)
        run.log_folder(Path(folder), "report")
    return findings


def _register(
    run: Run,
    name: str,
    settings: Settings,
    result: TrainResult,
    ticket: Ticket | None,
    parent: str | None,
) -> Published:
    from mindtrace.registry import earlier
    from mindtrace.registry.register import Training, register

    training = Training(
        model=result.model,
        data=result.data,
        test=result.test,
        metrics=result.metrics,
        best_epoch=result.best_epoch,
        settings=settings,
        started_at=result.started_at,
        ended_at=result.ended_at,
        parent=parent,
        job_id=None if ticket is None else ticket.job_id,
    )
    if ticket is None:
        return register(run, name, training)
    with ticket.registering() as permit:
        found = earlier.of_job(run.store, name, ticket.job_id)
        if found is not None:
            return found.published
        return register(run, name, training, last_look=permit.demand)


def _warm(settings: Settings, parent: str) -> Settings:
    """The same training, begun with the weights of a registered version."""
    from mindtrace.bundle import manifest
    from mindtrace.bundle.folder import WEIGHTS
    from mindtrace.registry.lookup import locate

    located = locate(settings, parent)
    manifest.check(located.folder, located.digest)
    return settings.replace(**{"model.weights": str(located.folder / WEIGHTS)})
