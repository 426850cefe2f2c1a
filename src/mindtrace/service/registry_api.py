"""The Python API: `mindtrace.train`, `mindtrace.load` and `mindtrace.Registry`."""

from __future__ import annotations

import builtins
import functools
import inspect
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from mindtrace import registry, service
from mindtrace.config.sections import KNOWN, images_at
from mindtrace.config.settings import Settings, load_settings
from mindtrace.progress import EpochReport, Progress
from mindtrace.service.predict import LoadedModel, load_model

if TYPE_CHECKING:
    from mindtrace.registry.evaluation import EvaluationOutcome
    from mindtrace.registry.reproduce import Reproduction
    from mindtrace.service.train import TrainOutcome

P = ParamSpec("P")
R = TypeVar("R")
_LOG = logging.getLogger("mindtrace")


def load(
    ref: str | None = None, *, config: Path | str | None = None, sets: Sequence[str] = ()
) -> LoadedModel:
    """Open a version, every byte and its golden images checked; needs no torch.

    Args:
        ref: `NAME`, `NAME@ALIAS`, `NAME/VERSION`, `VERSION`, a bundle's folder; None for the
            champion of the only model.
        config: an INI file; None for the one that `$MindtraceConfig` names.
        sets: `section.key=value`, above the INI.

    Raises:
        NotFoundError: no such version.
        BundleError: it is not what was registered.
        StoreError: the registry cannot be read.
        ConfigError: with all faults of the configuration.

    Example:
        `mindtrace.load("digits@champion").predict("digit.png").class_name`
    """
    return load_model(load_settings(config, sets=sets), ref)


def train(
    path: Path | str | None = None,
    *,
    config: Path | str | None = None,
    sets: Sequence[str] = (),
    settings: Settings | None = None,
    register: bool = True,
    resume: str | None = None,
    allow_leakage: bool = False,
    **options: Any,
) -> TrainOutcome:
    """Train a classifier and register it, as `mindtrace train` does.

    Epochs are logged to the logger `mindtrace` as INFO, what you should know as WARNING.

    Args:
        path: images: a folder with one sub-folder a class, or a table; None for `[data]`.
        config: an INI file; None for the one that `$MindtraceConfig` names.
        sets: `section.key=value`, above the INI.
        settings: instead of all of these and of `options`.
        register: False trains and tests only.
        resume: `last` or a run id: goes on with a training that was interrupted.
        allow_leakage: accept images in more than one split of yours.
        **options: keys of `[data]`, `[train]`, `[compute]` and `[registry]`, and `model`.

    Returns:
        model_name, version, metrics and digests.

    Raises:
        TypeError: an option that there is none of.
        ConfigError: with all faults of the configuration.
        DataError: images that cannot be read, or do not fit.
        TrainingError: it diverged, or its checkpoint cannot be written.

    Example:
        `mindtrace.train(source="digits", max_epochs=3, lr=0.01).metrics["test_acc"]`
    """
    if settings is None:
        given = {_place(name): str(value) for name, value in options.items() if value is not None}
        given = images_at(None if path is None else str(path)) | given
        settings = load_settings(config, sets=sets, overrides=given)
    return service.train.train(
        settings,
        progress=_LogProgress(),
        register=register,
        resume=resume,
        allow_leakage=allow_leakage,
    )


def _place(option: str) -> str:
    """`section.key` of a keyword argument."""
    if option == "model":
        return "model.name"
    for section in ("data", "model", "train", "compute", "registry"):
        if option in KNOWN[section] and option != "name":
            return f"{section}.{option}"
    raise TypeError(f"train() has no option '{option}'; mindtrace config init - has every key")


class _LogProgress(Progress):
    """Sends a training's progress to the logger `mindtrace`."""

    def note(self, text: str) -> None:
        _LOG.warning(text)

    def epoch(self, report: EpochReport) -> None:
        values = "  ".join(f"{name} {value:.4f}" for name, value in report.metrics.items())
        _LOG.info("epoch %d/%d  %s", report.epoch, report.max_epochs, values)


def _method(
    function: Callable[Concatenate[Settings, P], R],
) -> Callable[Concatenate[Registry, P], R]:
    """A function of settings as a method of the registry that has them."""

    def method(self: Registry, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return function(self.settings, *args, **kwargs)

    functools.update_wrapper(method, function)
    signature = inspect.signature(function)
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    shown = [itself, *[*signature.parameters.values()][1:]]
    method.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
    return method


class Registry:
    """The versions that a configuration's registry holds.

    Example:
        `[best] = Registry().list("mnist", where="test_acc > 0.97", sort="-val_acc", limit=1)`

    Attributes:
        settings: in force for every call.
    """

    def __init__(
        self,
        config: Path | str | None = None,
        *,
        sets: Sequence[str] = (),
        settings: Settings | None = None,
    ) -> None:
        """Read the configuration; nothing is opened yet.

        Args:
            config: an INI file; None for the one that `$MindtraceConfig` names.
            sets: `section.key=value`, above the INI.
            settings: instead of both.

        Raises:
            ConfigError: with all faults.
        """
        self.settings = settings or load_settings(config, sets=sets)

    names = _method(service.registry.list_models)
    list = _method(service.registry.list_versions)
    show = _method(service.registry.show_version)
    diff = _method(service.registry.diff)
    compare = _method(service.promotion.compare)
    promote = _method(service.promotion.promote)
    rollback = _method(service.promotion.rollback)
    history = _method(service.promotion.history)
    export = _method(registry.maintenance.export)
    verify = _method(registry.maintenance.verify)

    def verify_all(self) -> builtins.list[registry.maintenance.Verification]:
        """Check every version of every model, and all aliases."""
        return [*registry.maintenance.verify_all(self.settings)]

    def gc(
        self, name: str | None = None, *, keep: int, dry_run: bool = False
    ) -> builtins.list[registry.maintenance.Removal]:
        """Delete all but the newest `keep` (1 or more) versions that nothing names."""
        return builtins.list(
            registry.maintenance.gc(self.settings, name, keep=keep, dry_run=dry_run)
        )

    def evaluate(self, ref: str) -> EvaluationOutcome:
        """Test a version on the test images of the settings; UsageError for other classes."""
        return registry.evaluation.evaluate(self.settings, ref)

    def reproduce(self, ref: str | None = None, *, tolerance: float = 0.01) -> Reproduction:
        """Train a version again from its bundle; a verdict of DIVERGED is returned, not raised.

        ConfigError or DataError where it cannot be trained here.
        """
        return registry.reproduce.reproduce(self.settings, ref, tolerance=tolerance)
