"""Trains a model and registers it as a version."""

from __future__ import annotations

import atexit
import gc
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindtrace.bundle import manifest
from mindtrace.config.ini import values_of
from mindtrace.config.sections import KEYS, TRAVELLING
from mindtrace.config.settings import Settings
from mindtrace.config.urls import file_path, masked
from mindtrace.errors import InterruptedByUser, MindtraceError, NotFoundError, StoreError, listed
from mindtrace.progress import Progress
from mindtrace.registry.names import CHAMPION, model_name_of, require_writable
from mindtrace.registry.reader import ModelVersion, open_reader
from mindtrace.registry.reference import locate, settings_of_bundle
from mindtrace.system import Interrupts, auto_device, hide_gpus, interruptible

if TYPE_CHECKING:
    from mindtrace.bundle.bundle import ModelConfig
    from mindtrace.data.datamodule import ImageDataModule
    from mindtrace.jobs.queue import RegistrationGuard
    from mindtrace.models import ImageClassifier
    from mindtrace.registry.store import Run, Store
    from mindtrace.training.checkpoint import Identity
    from mindtrace.training.fit import TrainResult
    from mindtrace.training.report import ClassScore, Report


@dataclass(frozen=True, kw_only=True)
class TrainOutcome:
    """What a training came to; version and digests of what was not registered are None.

    `fit_s` is the time of `Trainer.fit`, `duration_s` that from the start of `train` to the end
    of the test, as its version has it. `reused` tells that a job found the same training
    registered already, and trained nothing.
    """

    model_name: str
    version: int | None = None
    champion: bool = False
    run_id: str
    metrics: Mapping[str, float]
    best_epoch: int
    epochs: int = 0
    steps: int = 0
    fit_s: float = 0.0
    duration_s: float
    config_digest: str
    data_digest: str
    test_digest: str
    weights_digest: str | None = None
    bundle_digest: str | None = None
    calibration_error: float = math.nan
    report: str | None = None  # where it is: a path, or a URI of the store
    classes: tuple[ClassScore, ...] = ()
    reused: bool = False


def prepare_process(settings: Settings) -> None:
    """Tune a process that only trains; call it before torch is imported."""
    device = settings.compute.device
    if (auto_device() if device == "auto" else device) == "cpu":
        hide_gpus()
    # Else the collector walks once more at the end over the million objects that torch and MLflow
    # keep: a second of a short training.
    atexit.register(gc.freeze)


def plan(
    settings: Settings,
    *,
    progress: Progress | None = None,
    resume: str | None = None,
    allow_leakage: bool = False,
) -> dict[str, Any]:
    """Check all that `train` checks before its first epoch; the training that would begin."""
    settings, resumed = begun(settings, resume)
    require_writable(settings.dirs.root, settings.dirs.checkpoints)
    settings, data, _ = _prepared(settings, progress or Progress(), resumed, allow_leakage)
    with suppress(NotFoundError):  # the first training makes the store
        open_reader(settings).names()
    compute = settings.compute
    return {
        "model_name": model_name_of(settings),
        "source": settings.data.source,
        "network": settings.model.name,
        "max_epochs": settings.train.max_epochs,
        "images": dict(data.digests().counts),
        "class_names": data.class_names,
        "device": compute.device,
        "precision": compute.precision,
        "threads": compute.threads,
        "tracking_uri": masked(settings.registry.tracking_uri),
    }


def train(
    settings: Settings,
    *,
    progress: Progress | None = None,
    register: bool = True,
    guard: RegistrationGuard | None = None,
    parent: str | None = None,
    warm_start: bool = False,
    resume: str | None = None,
    allow_leakage: bool = False,
    run_name: str | None = None,
) -> TrainOutcome:
    """Train, test the best weights, register them as a version; of a job with its `guard`."""
    began = datetime.now(UTC)
    progress = progress or Progress()
    settings, resumed = begun(settings, resume)
    name = model_name_of(settings)
    root, checkpoints = settings.dirs.root, settings.dirs.checkpoints
    require_writable(root, checkpoints)
    with interruptible() as interrupts:
        progress.stage("loading")
        from mindtrace.registry import publish
        from mindtrace.registry.callbacks import RunCallback
        from mindtrace.registry.store import Store
        from mindtrace.training.callbacks import StopOnRequest
        from mindtrace.training.fit import fit

        if guard is not None:
            # An earlier attempt of the job may have registered, and died right after.
            store = Store(settings.registry.tracking_uri, root)
            found = publish.find_registered(store, name, publish.having(job_id=guard.job_id))
            if found is not None:
                return _outcome_of_earlier(found, reused=False)
        if warm_start and parent:
            settings = _with_weights_of(settings, parent)
        settings, data, model = _prepared(settings, progress, resumed, allow_leakage)
        store = Store(settings.registry.tracking_uri, root)
        if guard is not None and not guard.force:
            key = publish.config_digest(settings), data.digests().data_digest
            found = publish.find_identical(store, name, *key)
            if found is not None:
                return _outcome_of_earlier(found, reused=True)
        if not checkpoints.exists():  # the first training here
            progress.note(f"everything is kept in {root}; [DIR_PATHS] ROOT names another folder")
        job_id = None if guard is None else guard.job_id
        opened = _opened_run(store, settings, name, data, interrupts, job_id, resumed, run_name)
        with opened as (run, folder):
            run.note = progress.note
            with interrupts.deferred():
                result = fit(
                    settings,
                    data,
                    model=model,
                    callbacks=[RunCallback(run), StopOnRequest(interrupts.wanted)],
                    progress=progress,
                    checkpoints=folder,
                    resume=resume is not None,
                )
            result = replace(result, started_at=began)
            run.flush()  # here, where a signal may still end it
            progress.stage("writing the report")
            report = _log_report(run, result)
            for text in report.warnings:
                progress.note(f"warning: {text}")
            published = None
            if register:
                progress.stage(f"registering {name}")
                with interrupts.held():
                    published = _register(run, name, settings, result, guard, parent)
                for note in _remarks(settings, published, data.class_names):
                    progress.note(note)
        shutil.rmtree(folder, ignore_errors=True)  # the checkpoint of a training that ended well
    digests = result.data.digests()
    page = run.store.resolved(f"runs:/{run.run_id}/report/report.html")
    return TrainOutcome(
        model_name=name,
        run_id=run.run_id,
        metrics=result.metrics,
        best_epoch=result.best_epoch,
        epochs=result.epochs,
        steps=result.steps,
        fit_s=result.fit_s,
        duration_s=(result.ended_at - began).total_seconds(),
        config_digest=publish.config_digest(settings),
        data_digest=digests.data_digest,
        test_digest=digests.test_digest,
        calibration_error=report.calibration_error,
        report=str(file_path(page) or page),
        classes=report.classes,
        **({} if published is None else _registered(published)),
    )


def _outcome_of_earlier(found: ModelVersion, *, reused: bool) -> TrainOutcome:
    """The outcome of a job whose version was registered before."""
    names, tags = ("config_digest", "data_digest", "test_digest"), found.own_tags
    digests: dict[str, Any] = {name: tags.get(name, "") for name in names}
    return TrainOutcome(
        model_name=found.name,
        run_id=found.run_id or "",
        metrics=found.best_metrics,
        best_epoch=int(tags.get("best_epoch", 0)),
        duration_s=float(tags.get("duration_s", 0)),
        reused=reused,
        **digests,
        **_registered(found),
    )


def _registered(found: ModelVersion) -> dict[str, Any]:
    digests = {name: found.own_tags.get(name, "") for name in ("weights_digest", "bundle_digest")}
    return {"version": found.version, "champion": CHAMPION in found.aliases, **digests}


def _with_weights_of(settings: Settings, parent: str) -> Settings:
    """The same training, begun with the weights of a registered version."""
    from mindtrace.bundle.bundle import WEIGHTS_FILE

    located = locate(settings, parent)
    manifest.check(located.folder, located.digest)
    return settings.replace(**{"model.weights": str(located.folder / WEIGHTS_FILE)})


def begun(settings: Settings, resume: str | None) -> tuple[Settings, Identity | None]:
    """The configuration of an interrupted training, under what the user says now."""
    if resume is None:
        return settings, None
    from mindtrace.training import checkpoint

    identity = checkpoint.find(settings.dirs.checkpoints, resume)
    values: dict[str, Any] = {"registry.model_name": identity.model_name}
    if "data.resize" not in values_of(identity.config):
        values["data.resize"] = "stretch"  # what was done before there was a choice
    for section, key in KEYS:
        if section not in (*TRAVELLING, "registry") or not settings.given(section, key):
            continue
        value = getattr(getattr(settings, section), key)
        # What was `auto` is as that training resolved it, by whatever rule.
        if section != "compute" or value not in ("auto", None):
            values[f"{section}.{key}"] = value
    made = settings_of_bundle(settings, identity.config)
    return made.replace(**values), identity


def _prepared(
    settings: Settings, progress: Progress, resumed: Identity | None, allow_leakage: bool
) -> tuple[Settings, ImageDataModule, ImageClassifier]:
    """Resolved settings, images in memory and the network, all checked."""
    from mindtrace.data import check
    from mindtrace.data.datamodule import build_data
    from mindtrace.models.networks import input_requirements, resolve_network
    from mindtrace.training import checkpoint
    from mindtrace.training.fit import build, resolve_compute

    settings, warning = resolve_network(settings)
    settings = resolve_compute(settings)
    progress.stage(f"reading {settings.data.source}")
    rule = None if resumed is None else resumed.split_rule
    data = build_data(settings, input_requirements(settings.model), rule)
    data.progress = progress
    data.prepare_data()
    data.setup()
    images = check.listed_images(data, alone=False)
    same = check.duplicates_of(images)
    error = check.leakage_error(same, check.parted_groups(images, data.made_by), data.made_by)
    notes = (*data.notes, *check.remarks(same, data.made_by))
    if error is not None and not allow_leakage:
        for note in notes:
            progress.note(note)
        raise error
    if resumed is not None:
        digest, name = data.digests().data_digest, model_name_of(settings)
        wanted = checkpoint.Identity(resumed.run_id, name, settings.to_ini(), digest)
        checkpoint.require_same(resumed, wanted)
    model = build(settings, data)
    if warning is not None:
        progress.note(f"warning: {warning}")
        model.model_config = replace(model.model_config, pretrained={"warning": warning})
    progress.note(_summary(settings, model.model_config))
    for note in notes:
        progress.note(note)
    return settings, data, model


def _summary(settings: Settings, card: ModelConfig) -> str:
    """The first line of a training: network, weights, size, resize rule and recipe."""
    weights, spec = settings.model.weights, card.spec
    if "source" in card.pretrained:
        weights = f"of {card.pretrained['source']} (licence {card.pretrained['license']})"
    parts = [f"network {card.architecture}", f"weights {weights}"]
    parts += ["frozen"] if settings.model.freeze else []
    parts.append(f"{spec.width} x {spec.height} px, {spec.resize} ({spec.interpolation})")
    parts += ["recipe photo"] if settings.recipe() else []
    return ", ".join(parts)


@contextmanager
def _opened_run(
    store: Store,
    settings: Settings,
    name: str,
    data: ImageDataModule,
    interrupts: Interrupts,
    job_id: str | None,
    resumed: Identity | None,
    run_name: str | None,
) -> Iterator[tuple[Run, Path]]:
    """An MLflow run and its checkpoint folder; the run ends as the block ends."""
    from mindtrace.registry import provenance
    from mindtrace.registry.callbacks import run_finished_or_failed
    from mindtrace.registry.publish import close_abandoned
    from mindtrace.registry.store import resume_run, start_run
    from mindtrace.training import checkpoint

    config, digest = settings.to_ini(), data.digests().data_digest
    run_name = run_name or provenance.run_name(settings, name)
    tags = provenance.run_tags(settings, name, job_id, "mindtrace train")
    params = {
        f"{row.section}.{row.key}": row.value
        for row in settings.rows()
        if row.section in TRAVELLING and row.key != "mirror"
    }
    with ExitStack() as stack:
        lock = stack.enter_context(ExitStack())  # until the run has ended
        # A signal must not come while the run exists and nothing would end it.
        with interrupts.held():
            if dead := checkpoint.abandoned(settings.dirs.checkpoints):
                # Killed, or without space to say how they ended.
                close_abandoned(store, dead)
            if resumed is not None:
                folder = settings.dirs.checkpoints / resumed.run_id
                lock.enter_context(checkpoint.held(folder))
                run = resume_run(store, resumed.run_id)
                stack.enter_context(run_finished_or_failed(run))
                identity = replace(resumed, config=config)  # it may say more epochs
            else:
                run = start_run(store, settings.registry.experiment_name or name, run_name, tags)
                stack.enter_context(run_finished_or_failed(run))
                run.log_params(params)
                run.log_dataset(settings.data, data.digests())
                identity = checkpoint.Identity(run.run_id, name, config, digest, data.split_rule)
                folder = settings.dirs.checkpoints / run.run_id
                lock.enter_context(checkpoint.held(folder))
            checkpoint.write_identity(folder, identity)
        try:
            with stack.pop_all():
                yield run, folder
        except (InterruptedByUser, StoreError) as error:
            if (folder / checkpoint.LAST).exists():
                first = f"{error.hint}; then this" if error.hint else "this"
                error.hint = f"--resume {run.run_id}  # {first} goes on from the last epoch"
            raise


def _log_report(run: Run, result: TrainResult) -> Report:
    """Make the report of the test and its plots, and keep them with the run."""
    from mindtrace.registry.store import upload
    from mindtrace.training.plots import write_report
    from mindtrace.training.report import report

    names, test = result.data.class_names, result.data.split("test")
    trained = result.data.split("train").labels.bincount(minlength=len(names)).numpy()
    found = report(result.test, names, trained, test.files)
    with tempfile.TemporaryDirectory(prefix="mindtrace-") as folder:
        write_report(Path(folder), found, result.course, test, names)
        upload(run.store, run.run_id, Path(folder), "report")
    return found


def _remarks(settings: Settings, row: ModelVersion, class_names: Sequence[str]) -> Iterator[str]:
    """What the user must know of a new version."""
    from mindtrace.bundle.bundle import ModelConfig
    from mindtrace.registry.publish import warning_of

    if (warning := warning_of(row)) is not None:
        yield warning
    name, before = row.name, tuple(class_names)
    if CHAMPION not in row.aliases:
        with suppress(MindtraceError, OSError):
            before = ModelConfig.read(locate(settings, f"{name}@champion").folder).class_names
    if tuple(class_names) != before:  # no gate compares the two
        added = listed([one for one in class_names if one not in before])
        gone = listed([one for one in before if one not in class_names])
        yield (
            f"the classes are not those of the champion (added: {added}; gone: {gone}): only "
            f"`mindtrace registry promote {row.label} --force --reason TEXT` "
            "makes this version champion"
        )


def _register(
    run: Run,
    name: str,
    settings: Settings,
    result: TrainResult,
    guard: RegistrationGuard | None,
    parent: str | None,
) -> ModelVersion:
    """Make the version; once for a run or a job, however many processes get here."""
    from mindtrace.registry.publish import find_registered, having, register

    publish = partial(register, run, name, settings, result, parent=parent)
    if guard is None:
        return find_registered(run.store, name, f"run_id = '{run.run_id}'") or publish()
    guard.require()
    found = find_registered(run.store, name, having(job_id=guard.job_id))
    return found or publish(job_id=guard.job_id, before_register=guard.require)
