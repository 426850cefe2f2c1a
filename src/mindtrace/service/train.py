"""Trains a model and registers it as a version."""

from __future__ import annotations

import atexit
import gc
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindtrace.config.settings import Settings
from mindtrace.config.urls import masked
from mindtrace.documents import document
from mindtrace.errors import InterruptedByUser
from mindtrace.progress import Progress
from mindtrace.registry.names import model_name_of
from mindtrace.system import Interrupts, auto_device, hide_gpus, interruptible

if TYPE_CHECKING:
    from mindtrace.config.settings import Settings
    from mindtrace.registry.publish import Earlier, Published
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
        from mindtrace.registry.publish import config_digest

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


if TYPE_CHECKING:
    from mindtrace.data.base import ImageDataModule
    from mindtrace.jobs.guard import RegistrationGuard
    from mindtrace.registry.publish import Earlier
    from mindtrace.registry.store import Run, Store
    from mindtrace.training.fit import TrainResult


def prepare_process(settings: Settings) -> None:
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
    from mindtrace.models import input_requirements
    from mindtrace.training.fit import resolve_compute

    name = model_name_of(settings)
    data = build_data(settings, input_requirements(settings.model))
    settings = resolve_compute(settings, data.spec, len(data.class_names))
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
    guard: RegistrationGuard | None = None,
    parent: str | None = None,
    warm_start: bool = False,
    resume: str | None = None,
) -> TrainOutcome:
    """Train, test the best weights, register them as a version.

    Args:
        settings: what to train.
        progress: hears of it.
        register: False trains and logs the run, but makes no version.
        guard: of the job that asked for it.
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

        found = _made_by(guard, settings, name)
        if found is not None:
            return TrainOutcome.of_earlier(found, time.perf_counter() - began, reused=False)
        settings, data = _prepared(
            _warm(settings, parent) if warm_start and parent else settings, progress
        )
        store = Store(settings.registry.tracking_uri, settings.dirs.root)
        found = _same_as(guard, store, settings, name, data)
        if found is not None:
            return TrainOutcome.of_earlier(found, time.perf_counter() - began, reused=True)
        job_id = None if guard is None else guard.job_id
        with _opened_run(
            store, settings, name, data, interrupts=interrupts, job_id=job_id, resume=resume
        ) as (run, folder):
            result = _fitted(run, folder, settings, data, interrupts, progress, resume)
            progress.stage("writing the report")
            findings = _report(run, result)
            published = None
            if register:
                progress.stage(f"registering {name}")
                with interrupts.held():
                    published = _register(run, name, settings, result, guard, parent)
        _forget_checkpoints(folder)
    return TrainOutcome.of_training(
        name, settings, run.run_id, result, findings, published, time.perf_counter() - began
    )


def _made_by(guard: RegistrationGuard | None, settings: Settings, name: str) -> Earlier | None:
    """What an earlier attempt of the job registered, and died before it could say so."""
    if guard is None:
        return None
    from mindtrace.registry.publish import find_by_job
    from mindtrace.registry.store import Store

    store = Store(settings.registry.tracking_uri, settings.dirs.root)
    return find_by_job(store, name, guard.job_id)


def _same_as(
    guard: RegistrationGuard | None,
    store: Store,
    settings: Settings,
    name: str,
    data: ImageDataModule,
) -> Earlier | None:
    """The version of the same training, which a job need not repeat."""
    if guard is None or guard.force:
        return None
    from mindtrace.registry.publish import config_digest, find_identical

    return find_identical(store, name, config_digest(settings), data.digests().data_digest)


def _prepared(settings: Settings, progress: Progress) -> tuple[Settings, ImageDataModule]:
    """The images in memory, and the settings with every `auto` resolved."""
    from mindtrace.data.build import build_data
    from mindtrace.models import input_requirements
    from mindtrace.training.fit import resolve_compute

    progress.stage(f"reading {settings.data.source}")
    data = build_data(settings, input_requirements(settings.model))
    data.progress = progress
    data.prepare_data()
    data.setup()
    for note in data.notes:
        progress.note(note)
    return resolve_compute(settings, data.spec, len(data.class_names)), data


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
    from mindtrace.bundle.bundle import WEIGHTS_FILE
    from mindtrace.registry.reference import locate

    located = locate(settings, parent)
    manifest.check(located.folder, located.digest)
    return settings.replace(**{"model.weights": str(located.folder / WEIGHTS_FILE)})


if TYPE_CHECKING:
    from mindtrace.data.base import ImageDataModule
    from mindtrace.jobs.guard import RegistrationGuard
    from mindtrace.registry.publish import Published
    from mindtrace.registry.store import Run, Store
    from mindtrace.system import Interrupts
    from mindtrace.training.fit import TrainResult
    from mindtrace.training.report import Report


@contextmanager
def _opened_run(
    store: Store,
    settings: Settings,
    name: str,
    data: ImageDataModule,
    *,
    interrupts: Interrupts,
    job_id: str | None,
    resume: str | None,
) -> Iterator[tuple[Run, Path]]:
    """A run, and its folder of checkpoints; what leaves the block decides how it ends.

    Args:
        store: where the run is.
        settings: with every `auto` resolved.
        name: of the model.
        data: the images, set up.
        interrupts: held while the run has nobody yet who ends it.
        job_id: of the job that asked for the training.
        resume: `last` or a run id: that run, and its checkpoints.

    Raises:
        NotFoundError: no checkpoint to resume from.
        UsageError: `resume` with another configuration.
        StoreError: the store is away.
    """
    from mindtrace.registry.callbacks import run_finished_or_failed

    with ExitStack() as whole:
        with interrupts.held():
            run, folder = _begun(store, settings, name, data, job_id, resume)
            whole.enter_context(run_finished_or_failed(run))
        whole.enter_context(_told_how_to_resume(run.run_id, folder))
        yield run, folder


def _begun(
    store: Store,
    settings: Settings,
    name: str,
    data: ImageDataModule,
    job_id: str | None,
    resume: str | None,
) -> tuple[Run, Path]:
    """A run and its folder of checkpoints: new ones, or those that `resume` names."""
    from mindtrace.registry.callbacks import run_failed_on_error
    from mindtrace.registry.store import resume_run
    from mindtrace.training import checkpoint

    config, digest = settings.to_ini(), data.digests().data_digest
    if resume is None:
        run = _start_run(store, settings, name, job_id)
        with run_failed_on_error(run):
            _log_params(run, settings)
            wanted = checkpoint.Identity(run.run_id, name, config, digest)
            return run, checkpoint.begin(settings.dirs.checkpoints, wanted)
    folder, found = checkpoint.find(settings.dirs.checkpoints, resume)
    checkpoint.require_same(found, checkpoint.Identity(found.run_id, name, config, digest))
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
    from mindtrace.registry.store import start_run

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
    from mindtrace.training.plots import write_report
    from mindtrace.training.report import report as found_by

    names = result.data.class_names
    findings = found_by(result.test, names)
    with tempfile.TemporaryDirectory(prefix="mindtrace-") as folder:
        write_report(Path(folder), findings, result.course, result.data.split("test"), names)
        run.log_folder(Path(folder), "report")
    return findings


def _register(
    run: Run,
    name: str,
    settings: Settings,
    result: TrainResult,
    guard: RegistrationGuard | None,
    parent: str | None,
) -> Published:
    """Make the version; once for a job, however many attempts come that far.

    Raises:
        InterruptedByUser: the job is another attempt's by now.
        BundleError, StoreError: nothing was registered.
    """
    from mindtrace.registry.publish import Training, find_by_job
    from mindtrace.registry.publish import register as publish

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
        job_id=None if guard is None else guard.job_id,
    )
    if guard is None:
        return publish(run, name, training)
    guard.require()
    found = find_by_job(run.store, name, guard.job_id)
    if found is not None:
        return found.published
    return publish(run, name, training, before_register=guard.require)
