"""The Python API of the registry: `mindtrace.load` and `mindtrace.Registry`."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mindtrace.config.settings import Settings, load_settings
from mindtrace.registry.maintenance import Exported, Removal, export, gc
from mindtrace.service import promotion, registry
from mindtrace.service.predict import load_model

if TYPE_CHECKING:
    from mindtrace.bundle.predictor import Predictor
    from mindtrace.registry.champions import HistoryEntry
    from mindtrace.registry.comparison import Comparison
    from mindtrace.registry.evaluation import EvaluationOutcome
    from mindtrace.registry.reproduce import Reproduction
    from mindtrace.registry.verify import Verification
    from mindtrace.service.promotion import Promotion
    from mindtrace.service.registry import Difference, VersionDetail, VersionSummary


def load(
    ref: str | None = None, *, config: Path | str | None = None, sets: Sequence[str] = ()
) -> Predictor:
    """Open a version, every byte and its golden images checked.

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
        `mindtrace.load("mnist@champion").predict(Path("digit.png").read_bytes())`
    """
    return load_model(load_settings(config, sets=sets), ref).predictor


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
