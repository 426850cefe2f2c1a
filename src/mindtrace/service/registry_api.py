"""The Python API: `mindtrace.train`, `mindtrace.load` and `mindtrace.Registry`."""

from __future__ import annotations

import builtins
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindtrace.config.sections import KNOWN, images_at
from mindtrace.config.settings import Settings, load_settings
from mindtrace.progress import EpochReport, Progress
from mindtrace.registry.maintenance import Exported, Removal, export, gc
from mindtrace.service import promotion, registry
from mindtrace.service.predict import LoadedModel, load_model

if TYPE_CHECKING:
    from mindtrace.registry.champions import HistoryEntry
    from mindtrace.registry.comparison import Comparison
    from mindtrace.registry.evaluation import EvaluationOutcome
    from mindtrace.registry.reproduce import Reproduction
    from mindtrace.registry.verify import Verification
    from mindtrace.service.promotion import Promotion
    from mindtrace.service.registry import Difference, VersionDetail, VersionSummary
    from mindtrace.service.train import TrainOutcome

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
    from mindtrace.service.train import train as service

    if settings is None:
        given = {_place(name): str(value) for name, value in options.items() if value is not None}
        given = images_at(None if path is None else str(path)) | given
        settings = load_settings(config, sets=sets, overrides=given)
    return service(
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
    raise TypeError(f"train() has no option '{option}'; mindtrace config show lists the keys")


class _LogProgress(Progress):
    """Sends a training's progress to the logger `mindtrace`."""

    def note(self, text: str) -> None:
        _LOG.warning(text)

    def epoch(self, report: EpochReport) -> None:
        values = "  ".join(f"{name} {value:.4f}" for name, value in report.metrics.items())
        _LOG.info("epoch %d/%d  %s", report.epoch, report.max_epochs, values)


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

    def names(self) -> builtins.list[str]:
        """Registered models, sorted."""
        return registry.list_models(self.settings)

    def list(
        self,
        name: str | None = None,
        *,
        where: str | None = None,
        sort: str | None = None,
        limit: int = 20,
        after: int | None = None,
    ) -> builtins.list[VersionSummary]:
        """Versions, newest first unless `sort` says else; see `mindtrace registry list`.

        UsageError where `where` or `sort` cannot be read, NotFoundError for an unknown model.
        """
        return registry.list_versions(
            self.settings, name, limit, where=where, sort=sort, after=after
        )

    def show(self, ref: str) -> VersionDetail:
        """All that is known of one version; NotFoundError where there is none."""
        return registry.show_version(self.settings, ref)

    def diff(self, a: str, b: str) -> Difference:
        """What differs in configuration, data, environment and metrics; or NotFoundError."""
        return registry.diff(self.settings, a, b)

    def evaluate(self, ref: str) -> EvaluationOutcome:
        """Test a version on the test images of the settings; UsageError for other classes."""
        from mindtrace.registry.evaluation import evaluate

        return evaluate(self.settings, ref)

    def export(self, ref: str, folder: Path | str) -> Exported:
        """Write a version's bundle into a new or empty folder, else UsageError.

        BundleError where it is not what was registered.
        """
        return export(self.settings, ref, Path(folder))

    def verify(self, ref: str | None = None) -> builtins.list[Verification]:
        """Check one version (the champion for None) and the aliases of its model.

        What is wrong stands in the `faults` of what comes back; nothing is raised for it.
        """
        from mindtrace.registry.verify import verify

        return verify(self.settings, ref)

    def verify_all(self) -> builtins.list[Verification]:
        """Check every version of every model, and all aliases."""
        from mindtrace.registry.verify import verify_all

        return builtins.list(verify_all(self.settings))

    def gc(
        self, name: str | None = None, *, keep: int, dry_run: bool = False
    ) -> builtins.list[Removal]:
        """Delete all but the newest `keep` (1 or more) versions that nothing names."""
        return builtins.list(gc(self.settings, name, keep=keep, dry_run=dry_run))

    def compare(self, a: str, b: str, *, margin: float | None = None) -> Comparison:
        """Version b beside version a, on the test set that both answered.

        UsageError where there is none, BundleError where a bundle is not what was registered.
        """
        return promotion.compare(self.settings, a, b, margin=margin)

    def promote(
        self,
        ref: str,
        *,
        dry_run: bool = False,
        margin: float | None = None,
        force: bool = False,
        reason: str | None = None,
        if_revision: int | None = None,
    ) -> Promotion:
        """Make a version champion, if the gate lets it pass; see `mindtrace registry promote`.

        VerdictError for HOLD and REJECT, unless `force` (with a `reason`) or `dry_run` is given;
        ConflictError where the history is not at `if_revision`.
        """
        outcome = promotion.promote(
            self.settings,
            ref,
            dry_run=dry_run,
            margin=margin,
            force=force,
            reason=reason,
            if_revision=if_revision,
        )
        if not dry_run:
            outcome.require_passed()
        return outcome

    def rollback(
        self,
        name: str | None = None,
        *,
        reason: str | None = None,
        if_revision: int | None = None,
    ) -> HistoryEntry:
        """Put the champion before the latest promotion not yet undone back.

        ConflictError where there is none, or somebody else changed the champion.
        """
        return promotion.rollback(self.settings, name, reason=reason, if_revision=if_revision)

    def history(self, name: str | None = None) -> builtins.list[HistoryEntry]:
        """Who made which version champion, oldest first; NotFoundError for an unknown model."""
        return promotion.history(self.settings, name)

    def reproduce(self, ref: str | None = None, *, tolerance: float = 0.01) -> Reproduction:
        """Train a version again from its bundle; a verdict of DIVERGED is returned, not raised.

        ConfigError or DataError where it cannot be trained here.
        """
        from mindtrace.registry.reproduce import reproduce

        return reproduce(self.settings, ref, tolerance=tolerance)
