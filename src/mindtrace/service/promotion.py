"""Who is champion of a model: history, promote, rollback and compare."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from mindtrace import errors
from mindtrace.config.settings import Settings
from mindtrace.documents import document
from mindtrace.jobs import process
from mindtrace.registry.champions import PROMOTE, REFUSE, ROLLBACK, ChampionLog, HistoryEntry
from mindtrace.registry.names import CHAMPION
from mindtrace.registry.reader import ModelVersion, Reader, open_reader, open_store
from mindtrace.registry.reference import Reference, find, locate, locate_version, open_model
from mindtrace.system import ChildResult, own_command

if TYPE_CHECKING:
    from mindtrace.jobs.queue import RegistrationGuard
    from mindtrace.registry.comparison import Comparison
    from mindtrace.registry.gate import Rule

CHILD_TIMEOUT = 60.0  # seconds: a store that is away must not hold a request for ever
_TURN_TIMEOUT = 5.0  # seconds
_TRIES = 5  # of a job, where others change the champion meanwhile
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
        name = self.model_name
        hint = f"mindtrace registry compare {name} {self.version} --html changes.html"
        both = f"{name}/{self.version} does not replace {name}/{self.champion}"
        raise errors.VerdictError(
            f"{self.verdict}: {both}: {errors.listed(self.reasons, 2)}", hint=hint
        )


def history(
    settings: Settings,
    name: str | None = None,
    *,
    limit: int | None = None,
    before: int | None = None,
) -> list[HistoryEntry]:
    """Who made which version champion, oldest first; NotFoundError for an unknown model.

    The last `limit` entries before revision `before`.
    """
    log = ChampionLog(*open_model(settings, name))
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
    check: bool = True,
) -> Promotion:
    """Make a version champion, if the gate lets it pass; see `mindtrace registry promote`.

    VerdictError for HOLD and REJECT, which the history keeps, unless `force` (with a `reason`) or
    `dry_run` is given; without `check` they are returned. ConflictError where the history is not
    at `if_revision`.
    """
    rule = _rule(settings, margin)
    if force and not (reason or "").strip():
        raise errors.UsageError("force wants a reason for the history", hint="--reason TEXT")
    _check_reason(reason)
    reader = open_reader(settings)
    row = find(settings, reader, ref)
    _check_bundle(settings, reader, row)
    log, store = ChampionLog(reader, row.name), cache(partial(open_store, settings))
    gate = cache(partial(_gate, settings, reader, row, rule, force))
    for entries in log.attempts(if_revision):
        logged, revision = log.champion(), len(entries)
        champion, by_alias = logged, reader.version_of_alias(row.name, CHAMPION)
        if logged is None and by_alias and reader.version(row.name, by_alias) is not None:
            champion = by_alias  # MLflow's own page set it, or renamed the model
        comparison = None if champion in (None, row.version) else gate(champion)
        if comparison is not None:
            comparison = _against_chain(comparison, gate, [one.to for one in log.champions()])
        told = (None, None) if comparison is None else (comparison.verdict, comparison.test_digest)
        verdict, digest = told
        refused = verdict not in (None, "PROMOTE") and not force
        if dry_run:
            break
        if logged == row.version:
            log.repair_alias(store)
            break
        entry = log.append(
            store(),
            expected=revision,
            action=REFUSE if refused else PROMOTE,
            row=row,
            origin=None if champion == row.version else champion,
            reason=reason,
            verdict=verdict,
            test_digest=digest,
            forced=force,
        )
        if entry is not None:
            revision = entry.revision
            break
    outcome = Promotion(
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
        times_used=0 if digest is None else [one.test_digest for one in entries].count(digest),
        comparison=comparison,
    )
    if check and not dry_run:
        outcome.require_passed()
    return outcome


def promote_for_job(
    settings: Settings, model_name: str, version: int, guard: RegistrationGuard
) -> dict[str, Any] | None:
    """Decide as `[jobs] promote` says, once for a job, however many of its attempts get here."""
    policy, reason = settings.jobs.promote, f"job {guard.job_id}"
    if policy == "never":
        return None
    message = ""
    for _ in range(_TRIES):
        try:
            entries = history(settings, model_name)
            # Of an attempt that lost the job and its heir only one decides: both read the history
            # before they ask whether the job is theirs, and it must be the same afterwards.
            guard.require()
            for entry in entries:
                if (entry.to, entry.reason) == (version, reason):  # an attempt's that died
                    promoted = entry.action != REFUSE
                    return {"promoted": promoted, "verdict": entry.verdict, "message": None}
            found = promote(
                settings,
                f"{model_name}/{version}",
                force=policy == "always",
                reason=reason,
                if_revision=len(entries),
                check=False,
            )
            shown = found.reasons[0] if found.reasons else None
            return {"promoted": found.promoted, "verdict": found.verdict, "message": shown}
        except (errors.InterruptedByUser, errors.StoreError):
            raise  # the next attempt decides, or finds what this one decided
        except errors.MindtraceError as error:
            message = error.message
            if not isinstance(error, errors.ConflictError):
                break
    return {"promoted": False, "verdict": None, "message": message}


def rollback(
    settings: Settings,
    name: str | None = None,
    *,
    reason: str | None = None,
    if_revision: int | None = None,
) -> HistoryEntry:
    """Restore the champion before the latest promotion not yet undone.

    ConflictError where there is none, or somebody else changed the champion.
    """
    _check_reason(reason)
    reader, model_name = open_model(settings, name)
    log, store = ChampionLog(reader, model_name), cache(partial(open_store, settings))
    wanted: HistoryEntry | None = None
    for entries in log.attempts(if_revision):
        undone = log.promotion_to_undo()
        if undone is None:
            if entries:
                log.repair_alias(store)
            hint = f"mindtrace registry history {model_name}"
            raise errors.ConflictError(f"{model_name}: there is nothing to roll back", hint=hint)
        if wanted is not None and undone != wanted:
            # Another writer undid it, or promoted another version: the caller saw an older state.
            raise log.lost_race()
        wanted = undone
        row = find(settings, reader, Reference(name=model_name, version=undone.origin))
        _check_bundle(settings, reader, row)
        entry = log.append(store(), expected=len(entries), action=ROLLBACK, row=row, reason=reason)
        if entry is not None:
            return entry
    raise log.lost_race()


def compare(settings: Settings, a: str, b: str, *, margin: float | None = None) -> Comparison:
    """Version b beside version a, on the test images of both.

    UsageError where there are none, BundleError where a bundle is not what was registered.
    """
    return compare_with_page(settings, a, b, margin=margin)[0]


def compare_with_page(
    settings: Settings, a: str, b: str, *, margin: float | None = None
) -> tuple[Comparison, Callable[[], str]]:
    """The same, and what makes an HTML page with the images that changed."""
    from mindtrace.registry.comparison import compare, comparison_page
    from mindtrace.registry.evaluation import read_sides

    first = locate(settings, a)
    second = locate(settings, b, first.model_name)
    reader = open_reader(settings) if first.row or second.row else None
    sides = read_sides(reader, first, second)
    found = compare(*sides, _rule(settings, margin))
    return found, partial(comparison_page, settings, found, *sides, second)


def change_in_child(settings: Settings, verb: str, arguments: Sequence[str]) -> ChildResult:
    """Run `mindtrace registry VERB` as a child: MLflow costs a second and 150 MB to import."""
    registry, root = settings.registry, settings.dirs.root
    # In the environment and not in the command line: a URI may hold a password.
    ours = {
        "DIR_PATHS__ROOT": str(root),
        "REGISTRY__TRACKING_URI": registry.tracking_uri,
        "REGISTRY__METRIC": registry.metric,
        "REGISTRY__MARGIN": str(registry.margin),
        "REGISTRY__CLASS_MARGIN": str(registry.class_margin),
    }
    if not _turn.acquire(timeout=_TURN_TIMEOUT):
        hint = "repeat in a moment"
        raise errors.QueueFullError("the registry is being changed already", hint=hint)
    try:
        environ = process.listed_environment(os.environ, ours)
        command = own_command("registry", verb, "--json", *arguments)
        ended = process.run(command, folder=root, environ=environ, limit=CHILD_TIMEOUT)
    finally:
        _turn.release()
    if ended.status in (-signal.SIGKILL, 128 + signal.SIGTERM):
        raise errors.StoreError(f"registry: {verb} did not end within {CHILD_TIMEOUT:.0f} s")
    return ended


def _check_reason(reason: str | None) -> None:
    if reason is not None and len(reason) > _LONGEST_REASON:
        raise errors.UsageError(
            f"a reason has at most {_LONGEST_REASON} characters, not {len(reason)}"
        )


def _check_bundle(settings: Settings, reader: Reader, row: ModelVersion) -> None:
    """Raise BundleError unless the bundle is what was registered and answers its golden images."""
    from mindtrace.bundle.predictor import Predictor

    located = locate_version(settings, reader, row)
    Predictor.open(located.folder, located.digest)


def _gate(
    settings: Settings, reader: Reader, row: ModelVersion, rule: Rule, force: bool, champion: int
) -> Comparison | None:
    """Champion and challenger compared; None where they cannot be and `force` is given."""
    from mindtrace.registry.comparison import compare
    from mindtrace.registry.evaluation import read_sides

    try:
        before = find(settings, reader, Reference(name=row.name, version=champion))
        bundles = (locate_version(settings, reader, one) for one in (before, row))
        return compare(*read_sides(reader, *bundles), rule)
    except (errors.BundleError, errors.NotFoundError, errors.UsageError) as error:
        if force:
            return None
        error.hint = error.hint or "--force --reason TEXT  # promotes without comparing"
        raise


def _rule(settings: Settings, margin: float | None) -> Rule:
    """The gate's rule, with a margin of the caller's if it is not None."""
    from mindtrace.registry.gate import Rule

    ours = settings.registry
    if margin is None:
        margin = ours.margin
    if not 0 <= margin <= 1:
        raise errors.UsageError(f"margin {margin}: must be between 0 and 1")
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
        with contextlib.suppress(errors.BundleError, errors.NotFoundError, errors.UsageError):
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
        return (f"{row.label} is the champion",)
    return ("forced without comparing",)
