"""The verb promote: champion against challenger.

In: a reference and what the caller insists on. Out: what the gate said and what became of
it. Deciding imports no MLflow; a dry run and the champion itself need nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mindtrace.config.settings import Settings
from mindtrace.documents import document
from mindtrace.errors import BundleError, NotFoundError, UsageError, VerdictError, listed
from mindtrace.service.history import ATTEMPTS, ChampionLog, check_reason, crowd, version_row

if TYPE_CHECKING:
    from mindtrace.registry.compare import Comparison
    from mindtrace.registry.reader import ModelVersion, Reader


@dataclass(frozen=True)
class Promotion:
    """What became of a wish to promote.

    Attributes:
        model_name: of the model.
        version: the challenger.
        champion: who was champion before, or None.
        promoted: whether the challenger is champion now.
        dry_run: whether nothing was to be changed.
        forced: whether the gate was only asked.
        revision: of the history now.
        verdict: the gate's; None where there was nothing to compare with.
        reasons: of the verdict, one line each.
        reason: the caller's.
        times_used: how many earlier decisions this test set was used for.
        comparison: champion and challenger, or None.
    """

    model_name: str
    version: int
    champion: int | None
    promoted: bool
    dry_run: bool
    forced: bool
    revision: int
    verdict: str | None
    reasons: tuple[str, ...]
    reason: str | None
    times_used: int
    comparison: Comparison | None

    def document(self) -> dict[str, Any]:
        """The JSON document of `mindtrace registry promote`."""
        comparison = None if self.comparison is None else self.comparison.document()
        return document({**vars(self), "reasons": list(self.reasons), "comparison": comparison})

    def demand(self) -> None:
        """Raise unless the gate lets the challenger pass, or was told to.

        Raises:
            VerdictError: HOLD or REJECT.
        """
        if self.forced or self.verdict in (None, "PROMOTE"):
            return
        raise VerdictError(
            f"{self.verdict}: {self.model_name}/{self.version} does not replace "
            f"{self.model_name}/{self.champion}: {listed(self.reasons, 2)}",
            hint=f"mindtrace registry compare {self.model_name} {self.version} --html changes.html",
        )


def promote(
    settings: Settings,
    ref: str,
    *,
    dry_run: bool = False,
    margin: float = 0.01,
    force: bool = False,
    reason: str | None = None,
    if_revision: int | None = None,
) -> Promotion:
    """Make a version champion, if the gate lets it pass.

    A refusal is written into the history and returned; `Promotion.demand` raises it.

    Args:
        settings: which registry.
        ref: the challenger.
        dry_run: decide, change nothing.
        margin: how much worse is still as good.
        force: promote whatever the gate says; wants a reason.
        reason: kept in the history.
        if_revision: only if the history is at this revision.

    Raises:
        NotFoundError: no such version.
        BundleError: its bundle, or the champion's, is not what was registered.
        UsageError: it cannot be compared with the champion, or an argument is wrong.
        ConflictError: the history is at another revision than `if_revision`.
        StoreError: the registry cannot be read or written.
    """
    _check(margin, force, reason)
    from mindtrace.bundle.predictor import Predictor
    from mindtrace.registry.history import PROMOTE, REFUSE, champion, times_used
    from mindtrace.registry.reader import open_reader
    from mindtrace.registry.reference import locate_version

    reader = open_reader(settings)
    row = version_row(settings, reader, ref)
    located = locate_version(settings, reader, row)
    Predictor.open(located.folder, located.digest)
    writer = ChampionLog(settings, reader, row.name)
    compared: dict[int, Comparison | None] = {}
    for _ in range(ATTEMPTS):
        entries = writer.entries(if_revision)
        before = champion(entries)
        comparison = None
        if before is not None and before != row.version:
            if before not in compared:
                compared[before] = _gate(settings, reader, row, before, margin, force)
            comparison = compared[before]
        refused = comparison is not None and comparison.verdict != "PROMOTE" and not force
        used = 0 if comparison is None else times_used(entries, comparison.test_digest)
        revision = len(entries)
        if before == row.version:
            if not dry_run:
                writer.repair(before)
        elif not dry_run:
            entry = writer.append(
                revision, REFUSE if refused else PROMOTE, row, reason, comparison, if_revision
            )
            if entry is None:
                continue
            revision = entry.revision
        return Promotion(
            model_name=row.name,
            version=row.version,
            champion=before,
            promoted=before == row.version or not (refused or dry_run),
            dry_run=dry_run,
            forced=force,
            revision=revision,
            verdict=None if comparison is None else comparison.verdict,
            reasons=_reasons(row, before) if comparison is None else comparison.reasons,
            reason=reason,
            times_used=used,
            comparison=comparison,
        )
    raise crowd(row.name)


def _gate(
    settings: Settings, reader: Reader, row: ModelVersion, before: int, margin: float, force: bool
) -> Comparison | None:
    """Champion and challenger; None where force makes up for what cannot be compared."""
    from mindtrace.registry.compare import compare
    from mindtrace.registry.evaluations import read_sides
    from mindtrace.registry.reference import locate_version

    try:
        champion = version_row(settings, reader, f"{row.name}/{before}")
        bundles = (locate_version(settings, reader, one) for one in (champion, row))
        return compare(*read_sides(reader, *bundles), margin)
    except (BundleError, NotFoundError, UsageError) as error:
        if force:
            return None
        error.hint = error.hint or "--force --reason TEXT promotes without comparing"
        raise


def _reasons(row: ModelVersion, before: int | None) -> tuple[str, ...]:
    if before is None:
        return (f"{row.name} had no champion",)
    if before == row.version:
        return (f"{row.name}/{row.version} is the champion",)
    return ("forced without comparing",)


def _check(margin: float, force: bool, reason: str | None) -> None:
    if not 0 <= margin <= 1:
        raise UsageError(f"margin {margin}: must be between 0 and 1")
    if force and not (reason or "").strip():
        raise UsageError("force wants a reason for the history", hint="--force --reason TEXT")
    check_reason(reason)
