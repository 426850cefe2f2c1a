"""Who is champion of a model: history, promote, rollback and compare."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from mindtrace.config.settings import Settings
from mindtrace.documents import document
from mindtrace.errors import (
    BundleError,
    ConflictError,
    NotFoundError,
    QueueFullError,
    StoreError,
    UsageError,
    VerdictError,
    listed,
)
from mindtrace.registry.champions import (
    PROMOTE,
    REFUSE,
    ROLLBACK,
    ChampionLog,
    HistoryEntry,
    champions,
    identity_of,
    promotion_to_undo,
    times_used,
)
from mindtrace.registry.names import CHAMPION
from mindtrace.registry.provenance import who
from mindtrace.registry.reader import open_reader, open_store
from mindtrace.registry.reference import (
    Located,
    Reference,
    default_model,
    find,
    locate,
    locate_version,
    require_model,
)
from mindtrace.system import ChildResult, run_child

if TYPE_CHECKING:
    from mindtrace.registry.comparison import Comparison, Side
    from mindtrace.registry.gate import Rule
    from mindtrace.registry.reader import ModelVersion, Reader

CHILD_TIMEOUT = 60.0  # seconds: a store that is away must not hold a request for ever
_TURN_TIMEOUT = 5.0  # seconds
_LONGEST_REASON = 1000  # MLflow's limit for a tag is above

# Each child imports MLflow, and of concurrent changes only one wins: one at a time.
_turn = threading.Lock()


@dataclass(frozen=True)
class Promotion:
    """What became of a request to promote."""

    model_name: str
    version: int  # the challenger
    champion: int | None  # before
    promoted: bool  # the challenger is champion now
    dry_run: bool
    forced: bool
    revision: int  # of the history now
    verdict: str | None  # of the gate; None where there was nothing to compare with
    reasons: tuple[str, ...]  # of the verdict
    reason: str | None  # of the caller
    times_used: int  # earlier decisions by this test set
    comparison: Comparison | None  # champion and challenger

    def document(self) -> dict[str, Any]:
        """The JSON document of `mindtrace registry promote`."""
        comparison = None if self.comparison is None else document(self.comparison)
        return document({**vars(self), "comparison": comparison})

    def require_passed(self) -> None:
        """Raise VerdictError if the gate said HOLD or REJECT and was not overruled."""
        if self.forced or self.verdict in (None, "PROMOTE"):
            return
        raise VerdictError(
            f"{self.verdict}: {self.model_name}/{self.version} does not replace "
            f"{self.model_name}/{self.champion}: {listed(self.reasons, 2)}",
            hint=f"mindtrace registry compare {self.model_name} {self.version} --html changes.html",
        )


def history(
    settings: Settings,
    name: str | None = None,
    *,
    limit: int | None = None,
    before: int | None = None,
) -> list[HistoryEntry]:
    """The history of a model, oldest first; the last `limit` entries before revision `before`."""
    _, log = _log_of(settings, name)
    entries = log.entries()[: None if before is None else max(0, before - 1)]
    return log.shown(entries if limit is None else entries[-limit:])


def promote(
    settings: Settings,
    ref: str,
    *,
    dry_run: bool = False,
    margin: float | None = None,
    force: bool = False,
    reason: str | None = None,
    if_revision: int | None = None,
) -> Promotion:
    """Make a version champion if the gate passes it; a refusal is logged and returned."""
    rule = _rule(settings, margin)
    if force and not (reason or "").strip():
        raise UsageError("force wants a reason for the history", hint="--force --reason TEXT")
    _check_reason(reason)
    reader = open_reader(settings)
    row = find(settings, reader, ref)
    _check_bundle(settings, reader, row)
    log = _champion_log(settings, reader, row.name)
    gate = cache(partial(_gate, settings, reader, row, rule, force))
    for entries in log.attempts(if_revision):
        logged, revision = log.champion(), len(entries)
        champion = logged or _champion_by_alias(reader, row.name)
        comparison = None if champion in (None, row.version) else gate(champion)
        if comparison is not None:
            earlier = [entry.to for entry in reversed(champions(entries)) if log.counts(entry)]
            comparison = _against_chain(comparison, gate, earlier)
        verdict = None if comparison is None else comparison.verdict
        refused = verdict not in (None, "PROMOTE") and not force
        if dry_run:
            break
        if logged == row.version:
            log.repair_alias(reader.version_of_alias(row.name, CHAMPION))
            break
        entry = log.append(
            expected=revision,
            action=REFUSE if refused else PROMOTE,
            to=row.version,
            by=who(),
            identity=identity_of(row),
            origin=None if champion == row.version else champion,
            reason=reason,
            verdict=verdict,
            test_digest=None if comparison is None else comparison.test_digest,
            forced=force,
        )
        if entry is not None:
            revision = entry.revision
            break
    return Promotion(
        model_name=row.name,
        version=row.version,
        champion=champion,
        promoted=champion == row.version or not (refused or dry_run),
        dry_run=dry_run,
        forced=force,
        revision=revision,
        verdict=verdict,
        reasons=_reasons(row, champion) if comparison is None else comparison.reasons,
        reason=reason,
        times_used=0 if comparison is None else times_used(entries, comparison.test_digest),
        comparison=comparison,
    )


def rollback(
    settings: Settings,
    name: str | None = None,
    *,
    reason: str | None = None,
    if_revision: int | None = None,
) -> HistoryEntry:
    """Restore the champion before the latest promotion not yet undone."""
    _check_reason(reason)
    reader, log = _log_of(settings, name)
    model_name = log.model_name
    wanted: HistoryEntry | None = None
    for entries in log.attempts(if_revision):
        undone = promotion_to_undo(entries, log.counts)
        if undone is None:
            if entries:
                log.repair_alias(reader.version_of_alias(model_name, CHAMPION))
            raise ConflictError(
                f"{model_name}: there is nothing to roll back",
                hint=f"mindtrace registry history {model_name}",
            )
        if wanted is not None and undone != wanted:
            # Another writer undid it, or promoted another version: the caller saw an older state.
            raise log.lost_race()
        wanted = undone
        row = find(settings, reader, Reference(name=model_name, version=undone.origin))
        _check_bundle(settings, reader, row)
        entry = log.append(
            expected=len(entries),
            action=ROLLBACK,
            to=row.version,
            by=who(),
            identity=identity_of(row),
            reason=reason,
        )
        if entry is not None:
            return entry
    raise log.lost_race()


def compare(settings: Settings, a: str, b: str, *, margin: float | None = None) -> Comparison:
    """Compare version b with version a on the test set that both answered."""
    return _compared(settings, a, b, margin)[0]


def compare_page(
    settings: Settings, a: str, b: str, *, margin: float | None = None
) -> tuple[Comparison, str]:
    """The same, and an HTML page with the images that changed."""
    from mindtrace.registry.comparison_page import comparison_page

    found, first, second, located = _compared(settings, a, b, margin)
    return found, comparison_page(settings, found, first, second, located)


def change_in_child(settings: Settings, verb: str, arguments: Sequence[str]) -> ChildResult:
    """Run `mindtrace registry VERB` as a child: MLflow costs a second and 150 MB to import."""
    from mindtrace.jobs.process import listed_environment

    # In the environment and not in the command line: a URI may hold a password.
    ours = {
        "DIR_PATHS__ROOT": str(settings.dirs.root),
        "REGISTRY__TRACKING_URI": settings.registry.tracking_uri,
        "REGISTRY__METRIC": settings.registry.metric,
        "REGISTRY__MARGIN": str(settings.registry.margin),
        "REGISTRY__CLASS_MARGIN": str(settings.registry.class_margin),
    }
    if not _turn.acquire(timeout=_TURN_TIMEOUT):
        raise QueueFullError("the registry is being changed already", hint="repeat in a moment")
    try:
        return run_child(
            ["registry", verb, "--json", *arguments],
            env=listed_environment(os.environ, ours),
            cwd=settings.dirs.root,
            timeout=CHILD_TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        raise StoreError(f"registry: {verb} did not end within {CHILD_TIMEOUT:.0f} s") from error
    finally:
        _turn.release()


def _champion_log(settings: Settings, reader: Reader, model_name: str) -> ChampionLog:
    return ChampionLog.of_reader(reader, model_name, partial(open_store, settings))


def _champion_by_alias(reader: Reader, model_name: str) -> int | None:
    """Where the history names nobody: MLflow's own page set it, or renamed the model."""
    number = reader.version_of_alias(model_name, CHAMPION)
    return None if number is None or reader.version(model_name, number) is None else number


def _log_of(settings: Settings, name: str | None) -> tuple[Reader, ChampionLog]:
    """The log of a registered model, for None of the only one, and the reader of its registry."""
    reader = open_reader(settings)
    model_name = default_model(settings, reader) if name is None else name
    require_model(reader, model_name)
    return reader, _champion_log(settings, reader, model_name)


def _check_reason(reason: str | None) -> None:
    if reason is not None and len(reason) > _LONGEST_REASON:
        raise UsageError(f"a reason has at most {_LONGEST_REASON} characters, not {len(reason)}")


def _check_bundle(settings: Settings, reader: Reader, row: ModelVersion) -> None:
    """Raise BundleError unless the bundle is what was registered and answers its golden images."""
    from mindtrace.bundle.predictor import Predictor

    located = locate_version(settings, reader, row)
    Predictor.open(located.folder, located.digest)


def _gate(
    settings: Settings, reader: Reader, row: ModelVersion, rule: Rule, force: bool, champion: int
) -> Comparison | None:
    """Champion and challenger compared; None where they cannot be and `force` is given."""
    from mindtrace.registry.comparison import compare, read_sides

    try:
        before = find(settings, reader, Reference(name=row.name, version=champion))
        bundles = (locate_version(settings, reader, one) for one in (before, row))
        return compare(*read_sides(reader, *bundles), rule)
    except (BundleError, NotFoundError, UsageError) as error:
        if force:
            return None
        error.hint = error.hint or "--force --reason TEXT promotes without comparing"
        raise


def _rule(settings: Settings, margin: float | None) -> Rule:
    """The gate's rule, with a margin of the caller's if it is not None."""
    from mindtrace.registry.gate import Rule

    ours = settings.registry
    if margin is None:
        margin = ours.margin
    if not 0 <= margin <= 1:
        raise UsageError(f"margin {margin}: must be between 0 and 1")
    return Rule(ours.metric, margin, ours.class_margin)


def _against_chain(
    found: Comparison, gate: Callable[[int], Comparison | None], earlier: Sequence[int]
) -> Comparison:
    """HOLD instead of PROMOTE for what is worse than the best of the last champions."""
    from mindtrace.registry.gate import CHAIN, HOLD, PROMOTE, falls_behind, points

    if found.verdict != PROMOTE:
        return found
    best = found
    for version in [*dict.fromkeys(earlier)][:CHAIN]:
        # One that is gone, damaged or about other images says nothing.
        with contextlib.suppress(BundleError, NotFoundError, UsageError):
            other = gate(version)
            best = other if other is not None and other.score_a > best.score_a else best
    if not falls_behind(best.ci, best.margin):
        return found
    low, high = best.ci
    reason = (
        f"not worse than {found.a}, but worse than {best.a}, champion before it, by more than "
        f"{points(best.margin)}: the difference lies between {low:+.4f} and {high:+.4f}"
    )
    return replace(found, verdict=HOLD, reasons=(reason,))


def _reasons(row: ModelVersion, champion: int | None) -> tuple[str, ...]:
    if champion is None:
        return (f"{row.name} had no champion",)
    if champion == row.version:
        return (f"{row.name}/{row.version} is the champion",)
    return ("forced without comparing",)


def _compared(
    settings: Settings, a: str, b: str, margin: float | None
) -> tuple[Comparison, Side, Side, Located]:
    """The comparison, both versions' predictions, and b's bundle; b may be one of a's model."""
    from mindtrace.registry.comparison import compare, read_sides

    first = locate(settings, a)
    second = locate(settings, b, first.model_name)
    reader = open_reader(settings) if first.row or second.row else None
    sides = read_sides(reader, first, second)
    return compare(*sides, _rule(settings, margin)), *sides, second
