"""MLflow for a Lightning trainer: a run's metrics, its end, and the public callback."""

import copy
import logging
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_info
from pytorch_lightning.utilities.exceptions import SIGTERMException

from mindtrace.config.settings import Settings, load_settings
from mindtrace.data.datamodule import ImageDataModule
from mindtrace.errors import InterruptedByUser, StoreError
from mindtrace.models import ImageClassifier
from mindtrace.registry.names import CHAMPION, model_name_of
from mindtrace.registry.provenance import run_name, run_tags
from mindtrace.registry.publish import register, warning_of
from mindtrace.registry.reader import ModelVersion
from mindtrace.registry.store import Run, Store, start_run
from mindtrace.training.callbacks import BestWeights
from mindtrace.training.fit import TrainResult
from mindtrace.training.report import evaluate
from mindtrace.utils import flatten_dict

_LOG = logging.getLogger("mindtrace")
_STOPPED = (KeyboardInterrupt, InterruptedByUser, SIGTERMException)
_DATA = (
    *("batch_size", "num_val", "test_fraction", "split_seed", "image_size", "dir", "augment"),
    "group",
)
_PRECISIONS = {"32-true": "32", "bf16-mixed": "bf16"}
_DEVICES = ("cpu", "cuda", "mps")


@contextmanager
def run_finished_or_failed(run: Run) -> Iterator[None]:
    """End the run as the block ends: FINISHED, KILLED or FAILED."""
    try:
        yield
    except BaseException as error:
        _end_after(error, run)
        raise
    run.end("FINISHED")


def _end_after(error: BaseException, run: Run) -> None:
    """End a run that this error ended; the caller must see `error`, also without a store."""
    try:
        run.end("KILLED" if isinstance(error, _STOPPED) else "FAILED")
    except StoreError as away:
        error.add_note(f"nor could its run be ended: {away}")


class RunCallback(pl.Callback):
    """Sends each epoch's metrics to a run, in one batch."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Send what was logged; a database has no place for NaN or infinity."""
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        self._run.log_metrics(finite, step=trainer.current_epoch + 1)


class MlflowLightningCallback(pl.Callback):
    """Tracks a training with MLflow and registers its best weights, as `mindtrace train` does.

    Example:
        `Trainer(max_epochs=10, callbacks=[MlflowLightningCallback("mnist")])`

    Attributes:
        run_id: of the MLflow run, once the training has begun.
        published: the registered version, once it has ended; None if there is none.
    """

    def __init__(
        self,
        experiment_name: str = "default_experiment",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        job_id: str | None = None,
        log_system_metrics: bool = True,
        **kwargs: Any,
    ) -> None:
        """Remember what to track; nothing is opened before the training begins.

        Args:
            experiment_name: of MLflow.
            run_name: None names it by model, network and seed.
            tracking_uri: None for `[registry] tracking_uri`.
            job_id: kept as a tag.
            log_system_metrics: processor, memory and disk, sampled by MLflow.
            **kwargs: hyperparameters to log; nested ones are flattened with dots.
        """
        self.experiment_name = experiment_name
        self.run_name = run_name
        self.tracking_uri = tracking_uri
        self.job_id = job_id
        self.log_system_metrics = log_system_metrics
        self.hyperparameters = flatten_dict(kwargs)
        self.run_id: str | None = None
        self.published: ModelVersion | None = None
        self._run: Run | None = None
        self._monitor: Any = None
        self._started_at = datetime.now(UTC)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Open the run and log what the training was asked to do."""
        if stage != "fit" or not trainer.is_global_zero:
            return
        self._started_at = datetime.now(UTC)
        self.run_id = self.published = None
        self._settings = settings_from_trainer(load_settings(), trainer, pl_module)
        # Now, not after the last epoch: an invalid name is refused at once.
        self._model_name = model_name_of(self._settings)
        self._best = BestWeights(self._settings.train.monitor)
        uri = self.tracking_uri or self._settings.registry.tracking_uri
        source = sys.argv[0] or "python"
        tags = run_tags(self._settings, self._model_name, self.job_id, source)
        name, data = self.run_name, getattr(trainer, "datamodule", None)
        if not (isinstance(pl_module, ImageClassifier) and isinstance(data, ImageDataModule)):
            tags["mlflow.note.content"] = f"{type(pl_module).__name__}, which no settings describe"
        elif name is None:
            name = run_name(self._settings, self._model_name)
        store = Store(uri, self._settings.dirs.root)
        run = start_run(store, self.experiment_name, name, tags)
        self._run, self.run_id = run, run.run_id
        params = {"max_epochs": trainer.max_epochs, **flatten_dict(pl_module.hparams)}
        batch_size = getattr(data, "batch_size", None)
        params |= {} if batch_size is None else {"batch_size": batch_size}
        run.log_params({**params, **self.hyperparameters})
        run.log_text(self._settings.to_ini(), "config.ini")
        if self.log_system_metrics:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self._monitor = SystemMetricsMonitor(run.run_id, tracking_uri=store.uri)
            self._monitor.start()

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the weights that were validated."""
        if self._run is not None:
            self._best.on_validation_epoch_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Send the epoch's metrics and keep its weights if they are the best so far."""
        if self._run is not None:
            RunCallback(self._run).on_train_epoch_end(trainer, pl_module)
            self._best.on_train_epoch_end(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Register the best weights, then end the run."""
        if self._run is None:
            return
        run = self._closed()
        with run_finished_or_failed(run):
            self.published = self._register(trainer, pl_module, run)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """End the run as the training ended."""
        if self._run is not None:
            _end_after(exception, self._closed())

    def _register(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, run: Run
    ) -> ModelVersion | None:
        data = getattr(trainer, "datamodule", None)
        reason = _why_unregistered(trainer, pl_module, data, self._best.epoch)
        if reason is not None:
            _LOG.warning("run %s is logged, no version is registered: %s", run.run_id, reason)
            return None
        assert isinstance(data, ImageDataModule) and isinstance(pl_module, ImageClassifier)
        run.log_dataset(self._settings.data, data.digests())
        # A copy with the best weights: the caller's own model is left as it ended.
        card = replace(pl_module.model_config, spec=data.spec, class_names=data.class_names)
        best = ImageClassifier(copy.deepcopy(pl_module.network), card)
        self._best.restore(best)
        best.cpu()
        test = evaluate(best, data, "test")
        ended_at = datetime.now(UTC)
        result = TrainResult(
            model=best,
            data=data,
            metrics={**self._best.metrics, **test.metrics},
            test=test,
            course=(),
            best_epoch=self._best.epoch,
            epochs=trainer.current_epoch,
            steps=trainer.global_step,
            fit_s=(ended_at - self._started_at).total_seconds(),
            started_at=self._started_at,
            ended_at=ended_at,
        )
        made = register(run, self._model_name, self._settings, result, job_id=self.job_id)
        if (warning := warning_of(made)) is not None:
            _LOG.warning(warning)
        champion = ", the champion" if CHAMPION in made.aliases else ""
        rank_zero_info(f"registered {made.label}{champion}")
        return made

    def _closed(self) -> Run:
        """The open run, which nothing writes to any more."""
        assert self._run is not None
        run, self._run = self._run, None
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None
        return run


def _why_unregistered(
    trainer: pl.Trainer, module: pl.LightningModule, data: object, best_epoch: int
) -> str | None:
    """Why the digests of `data` would not be those of what was trained, or None."""
    is_ours = isinstance(data, ImageDataModule) and type(data).__module__.startswith("mindtrace.")
    if not is_ours or not isinstance(module, ImageClassifier):
        return "only a model and a data module of this package name images and classes"
    assert isinstance(data, ImageDataModule)
    fed = (trainer.num_training_batches, sum(trainer.num_val_batches))
    whole = (len(data.train_dataloader()), len(data.val_dataloader()))
    if getattr(trainer, "fast_dev_run", False) or fed != whole:
        return "the trainer limits the batches, so it was not fed these images"
    return None if best_epoch else "no epoch was trained and validated"


def settings_from_trainer(
    settings: Settings, trainer: pl.Trainer, module: pl.LightningModule
) -> Settings:
    """`settings` with what trainer, model and images really are, as far as they show it."""
    found: dict[str, Any] = {"compute.threads": torch.get_num_threads()}
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        found["train.max_epochs"] = trainer.max_epochs
    device = trainer.strategy.root_device.type
    if device in _DEVICES:
        found["compute.device"] = device
    if trainer.precision in _PRECISIONS:
        found["compute.precision"] = _PRECISIONS[trainer.precision]
    data = getattr(trainer, "datamodule", None)
    if isinstance(data, ImageDataModule):
        found["data.source"] = data.source
        # A folder that the configuration names does not belong to a source without one.
        found["data.dir"] = None
        found["data.resize"] = data.spec.resize
        found |= {f"data.{key}": getattr(data, key) for key in _DATA if hasattr(data, key)}
    if isinstance(module, ImageClassifier):
        arguments = module.model_config.arguments
        found["model.name"] = module.model_config.architecture
        if settings.model.weights == "auto":
            found["model.weights"] = "none"
        found["train.lr"], found["train.schedule"] = module.lr, module.schedule
        if "dropout" in arguments:
            found["model.dropout"] = arguments["dropout"]
        if len(arguments.get("dim", ())) == 3:
            found["model.hidden"] = arguments["dim"][1]
    return settings.replace(**found)
