"""The MLflow run of a training: opened, given its report and its version, truly ended.

In: the store, the settings with every `auto` resolved, the images. Out: a run that says
what is being trained, and that never stays RUNNING when its training is over.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mindtrace.config.settings import Settings
from mindtrace.errors import InterruptedByUser

if TYPE_CHECKING:
    from mindtrace.data.base import ImageDataModule
    from mindtrace.jobs.ticket import Ticket
    from mindtrace.registry.publish import Published
    from mindtrace.registry.store import Run, Store
    from mindtrace.system import Interrupts
    from mindtrace.training.fit import TrainResult
    from mindtrace.training.report import Report


@contextmanager
def opened(
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
    from mindtrace.registry.callbacks import run_ends_truly

    with ExitStack() as whole:
        with interrupts.held():
            run, folder = _begun(store, settings, name, data, job_id, resume)
            whole.enter_context(run_ends_truly(run))
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
    from mindtrace.registry.callbacks import run_ends_if_it_fails
    from mindtrace.registry.store import resume_run
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


def report(run: Run, result: TrainResult) -> Report:
    """Pictures and numbers of the test, kept with the run."""
    from mindtrace.training.pictures import write_report
    from mindtrace.training.report import report as found_by

    names = result.data.class_names
    findings = found_by(result.test, names)
    with tempfile.TemporaryDirectory(prefix="mindtrace-") as folder:
        write_report(Path(folder), findings, result.course, result.data.split("test"), names)
        run.log_folder(Path(folder), "report")
    return findings


def register(
    run: Run,
    name: str,
    settings: Settings,
    result: TrainResult,
    ticket: Ticket | None,
    parent: str | None,
) -> Published:
    """Make the version; once for a job, however many attempts come that far.

    Raises:
        InterruptedByUser: the job is another attempt's by now.
        BundleError, StoreError: nothing was registered.
    """
    from mindtrace.registry import earlier
    from mindtrace.registry.register import Training
    from mindtrace.registry.register import register as publish

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
        return publish(run, name, training)
    with ticket.registering() as permit:
        found = earlier.of_job(run.store, name, ticket.job_id)
        if found is not None:
            return found.published
        return publish(run, name, training, last_look=permit.demand)
