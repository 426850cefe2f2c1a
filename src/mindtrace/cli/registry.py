"""`mindtrace registry`: list, compare, promote and check registered versions."""

from __future__ import annotations

import operator
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindtrace import registry, service
from mindtrace.cli.command import REF_OR_CHAMPION, Call, argument, command, flag, group, option
from mindtrace.cli.completion import models, versions
from mindtrace.cli.console import Cell, Console, Pair
from mindtrace.documents import document as document_of
from mindtrace.errors import UsageError
from mindtrace.system import write_output

if TYPE_CHECKING:
    from mindtrace.registry.comparison import Comparison
    from mindtrace.registry.maintenance import Verification

_METRICS = ("val_acc", "test_acc", "test_loss")
_DIGESTS = ("data_digest", "test_digest", "bundle_digest")
_COLUMNS = ("model_name", "version", "aliases", *_METRICS, "created_at", "run_id", *_DIGESTS)
# A version that plain MLflow registered has no bundle: `-`.
_BUNDLE = "bundle"
_ON_TERMINAL = ("model_name", "version", "aliases", *_METRICS[:2], "created_at (UTC)", _BUNDLE)
_HISTORY = ("revision", "at", "by", "action", "from", "to", "verdict", "reason", "forced", "gone")
_COMPARED = (
    *("a", "b", "test_digest", "n", "acc_a", "acc_b", "diff", "ci", "mcnemar_p"),
    *("wrong_to_right", "right_to_wrong", "minimum_detectable", "verdict", "reasons"),
    *("left_out", "notes", "metric", "score_a", "score_b"),
)
_DIGEST_SHOWN = 12  # characters, on a terminal

REF = argument("REF", "NAME (its champion), NAME@ALIAS, NAME/VERSION or a bundle folder.", versions)
NAME = argument("NAME", "The model; may be left out if there is only one.", models, default=None)
NAME_OR_ALL = argument("NAME", "One model; the default is all of them.", models, default=None)
MARGIN = option("M", "The loss that still counts as equal; the default is [registry] margin.")
REASON = option("TEXT", "Why; kept in the history.")
IF_REVISION = option("N", "Only if the history is still at revision N; else exit 5.", min=0)

app = group("List, compare, promote and check registered versions.")


@command(app, "registry list", "registry list digits --where 'val_acc > 0.97'", name="list")
def list_versions(
    call: Call,
    name: str | None = NAME_OR_ALL,
    where: str | None = option(
        "QUERY", "Only these, as in 'val_acc > 0.97 and not alias = champion'; see above."
    ),
    sort: str | None = option("FIELDS", "The order, as in -val_acc,version; - is descending."),
    limit: int = option("N", "At most N versions; 0 shows all.", default=20, min=0),
    columns: str | None = option("FIELDS", "These columns, as in version,val_acc,aliases."),
) -> None:
    """List versions, the newest first.

    A QUERY compares fields with values by = != > >= < <= and joins comparisons with and,
    or, not and parentheses; a value with blanks needs quotes. Fields are model_name,
    version, alias, created_at (ISO 8601, UTC), run_id; the metrics of the weights, such as
    val_acc and test_acc; data_digest, test_digest, bundle_digest, weights_digest,
    config_digest, seed, best_epoch, duration_s, parent, job_id, who, git_commit, platform;
    and metrics.NAME, params.NAME (params.train.lr), tags.NAME. A missing value equals
    nothing and comes last in any order.
    """
    settings, console, versions = call.settings(), call.console, service.registry
    count = partial(versions.count_versions, settings, name, where)
    if columns is not None:
        names, table = versions.list_columns(settings, columns, name, limit, where=where, sort=sort)
        console.results((dict(zip(names, row, strict=True)) for row in table), names, table)
        _note_rest(console, len(table), limit, count)
        return
    listed = versions.list_versions(settings, name, limit, where=where, sort=sort)
    found = [document_of(version) for version in listed]
    if console.terminal and where is None:  # the champions too, however old
        champions = versions.list_versions(settings, name, 0, where="alias = champion")
        found += [one for one in map(document_of, champions) if one not in found]
    if found or not console.terminal:
        shown = _ON_TERMINAL if console.terminal else _COLUMNS
        rows = [[_cell(fields, column) for column in shown] for fields in found]
        console.results(found, shown, rows)
        _note_rest(console, len(listed), limit, count)
    if not found and not console.json:
        console.note("no versions yet" if where is None else "no version matches")
        if where is None:
            console.next_step("mindtrace train")


@command(app, "registry show digits", "registry show digits/2 --json", name="show")
def show_version(call: Call, ref: str = REF) -> None:
    """Show everything that is known of one version."""
    call.console.result(service.registry.show_version(call.reading(ref), ref))


@command(app, "registry compare digits/1 2", "registry compare digits/1 2 --html changes.html")
def compare(
    call: Call,
    a: str = argument("A", "A version: NAME (its champion), NAME/VERSION, ...", versions),
    b: str = argument("B", "The other version; a number is one of A's model.", versions),
    html: Path | None = option("FILE", "Write a page with the images whose answer changed."),
    margin: float | None = MARGIN,
) -> None:
    """Compare two versions image by image, on the test images of both.

    Images that one of them was trained on are left out. Prints the difference of their
    accuracies with its interval, what changed by class, and whether B might replace A.
    """
    console = call.console
    comparison, page = service.promotion.compare_with_page(call.settings(), a, b, margin=margin)
    if html is not None:
        write_output("--html", html, page().encode())
    console.result(comparison, _comparison_pairs(comparison, short=console.terminal))
    if console.terminal:
        columns = ("class", "images", "acc_a", "acc_b", "diff")
        rows = [
            [one.class_name, one.n, one.acc_a, one.acc_b, _signed(one.diff)]
            for one in comparison.per_class
        ]
        console.table(columns, rows)
    if html is not None and not console.json:
        console.note(f"wrote {html}")


@command(app, "registry promote digits/2", "registry promote digits/2 --dry-run")
def promote(
    call: Call,
    ref: str = argument("REF", "The challenger: NAME/VERSION or VERSION.", versions),
    dry_run: bool = flag("--dry-run", "Print what would happen, change nothing."),
    margin: float | None = MARGIN,
    force: bool = flag("--force", "Promote whatever the gate says; needs --reason."),
    reason: str | None = REASON,
    if_revision: int | None = IF_REVISION,
) -> None:
    """Make a version champion, if it is as good as the champion.

    PROMOTE if it is better, or not worse than the margin; REJECT if it or a class is worse; HOLD
    if the test images cannot tell, or if it falls behind one of the last ten champions. HOLD and
    REJECT change nothing, are kept in the history and exit with 3.
    """
    outcome = service.promotion.promote(
        call.settings(),
        ref,
        dry_run=dry_run,
        margin=margin,
        force=force,
        reason=reason,
        if_revision=if_revision,
        check=False,
    )
    names = ("model_name", "version", "champion", "promoted", "dry_run", "forced", "revision")
    pairs: list[Pair] = [(name, getattr(outcome, name)) for name in names]
    if outcome.comparison is None:
        pairs += [("verdict", outcome.verdict), ("reasons", "; ".join(outcome.reasons))]
    else:
        pairs.append(("times_used", outcome.times_used))
        pairs += _comparison_pairs(outcome.comparison, short=call.console.terminal)
    current = outcome.version if outcome.promoted else outcome.champion
    reference = outcome.model_name if current is None else f"{outcome.model_name}/{current}"
    call.console.result(outcome.document(), pairs, quiet=reference)
    outcome.require_passed()


@command(app, "registry rollback", "registry rollback digits --reason 'blurred images'")
def rollback(
    call: Call,
    name: str | None = NAME,
    reason: str | None = REASON,
    if_revision: int | None = IF_REVISION,
) -> None:
    """Restore the previous champion; repeated calls go further back."""
    change = service.promotion.rollback
    entry = change(call.settings(), name, reason=reason, if_revision=if_revision)
    fields = entry.document()
    pairs = [(column, fields[column]) for column in ("model_name", *_HISTORY)]
    call.console.result(fields, pairs, quiet=f"{entry.model_name}/{entry.to}")


@command(app, "registry history", "registry history digits --limit 3 --json")
def history(
    call: Call,
    name: str | None = NAME,
    limit: int = option("N", "At most N entries, the newest first.", default=20, min=1),
) -> None:
    """List who made which version champion, when and why."""
    settings = call.settings() if name else call.reading(None)
    entries = service.promotion.history(settings, name, limit=limit)
    found = [entry.document() for entry in reversed(entries)]
    if call.console.terminal:  # to the minute, without the name, and with marks in words
        columns: tuple[str, ...] = ("revision", "at (UTC)", *_HISTORY[2:-2])
        rows = [[fields[column] for column in _HISTORY[:-2]] for fields in found]
        for row, fields in zip(rows, found, strict=True):
            marks = ("forced", fields["forced"]), ("version is gone", fields["gone"])
            row[3] = ", ".join([row[3], *(word for word, holds in marks if holds)])
    else:
        columns = ("model_name", *_HISTORY)
        rows = [[fields[column] for column in columns] for fields in found]
    call.console.results(found, columns, rows)


@command(app, "registry diff digits/1 2", "registry diff digits/1 digits@champion")
def diff(
    call: Call,
    a: str = argument("A", "A version, or a bundle folder.", versions),
    b: str = argument("B", "Another; a number is a version of A's model.", versions),
) -> None:
    """Show how two versions differ in configuration, data, environment and metrics."""
    found = service.registry.diff(call.settings(), a, b)
    call.console.results([found.document()], ("part", "name", found.a, found.b), found.rows())


@command(app, "registry evaluate digits/2", "registry evaluate digits/2 --config new.ini")
def evaluate(call: Call, ref: str = REF) -> None:
    """Test a version on the test images of --config that it was not trained on.

    The images are preprocessed as for predictions. The answers are kept with the version's run,
    as evaluations/TEST_DIGEST.npz.
    """
    settings = call.reading(ref)
    call.console.result(registry.evaluation.evaluate(settings, ref))


@command(app, "registry alias digits/2 staging", "registry alias digits staging --json")
def alias(
    call: Call,
    ref: str = REF,
    name: str = argument("NAME", "The alias, such as staging; champion is set by promote."),
) -> None:
    """Give a version an alias, which leaves the version that had it."""
    row = registry.maintenance.set_alias(call.settings(), ref, name)
    call.console.result({"model_name": row.name, "version": row.version, "alias": name})


@command(app, "registry delete digits/2", "registry delete digits@staging")
def delete(call: Call, ref: str = REF) -> None:
    """Delete a version and its bundle, but never the champion (exit 5).

    Its run, its metrics and the history stay.
    """
    call.console.result(registry.maintenance.delete(call.settings(), ref))


@command(app, "registry report digits", "registry report digits/2 report/")
def report(
    call: Call,
    ref: str = REF,
    folder: str | None = argument(
        "DIR", "A new or empty folder; the default is NAME-VERSION-report.", default=None
    ),
) -> None:
    """Write the report of a version's training into a folder."""
    page = service.registry.write_report(call.reading(ref), ref, folder)
    call.console.result({"report": page}, quiet=page)


@command(app, "registry export digits bundle/", "registry export digits/2 bundle/")
def export(
    call: Call, ref: str = REF, folder: str = argument("DIR", "A new or empty folder.")
) -> None:
    """Write a version's bundle into a folder and check it."""
    done = registry.maintenance.export(call.reading(ref), ref, folder)
    call.console.text(done, f"{done.folder}\n")
    call.console.next_step(f"mindtrace serve --model {shlex.quote(done.folder)}")


@command(app, "registry verify digits/2", "registry verify --all")
def verify(
    call: Call,
    ref: str | None = REF_OR_CHAMPION,
    all_: bool = flag("--all", "Every version of every model."),
) -> None:
    """Check that a version is what was registered.

    Checks the digests of all files, the golden images through the real prediction path, foreign
    files, pickles, and aliases that point to a missing version or contradict the history. Exit
    code 3 if anything is wrong.
    """
    if all_ and ref is not None:
        raise UsageError("give REF or --all, not both", hint="mindtrace registry verify --help")
    settings = call.settings() if all_ else call.reading(ref)

    def cells(one: Verification) -> Sequence[Cell]:
        digest = "-" if one.bundle_digest is None else one.bundle_digest[:_DIGEST_SHOWN]
        return (one.subject, one.state, digest, "; ".join(one.faults))

    maintenance = registry.maintenance
    checks = maintenance.verify_all(settings) if all_ else maintenance.verify(settings, ref)
    columns = ("subject", "state", "bundle_digest", "faults")
    maintenance.require_verified([*call.console.stream(checks, columns, cells)], named=not all_)


@command(app, "registry gc --keep 5 --dry-run", "registry gc digits --keep 5")
def gc(
    call: Call,
    name: str | None = NAME_OR_ALL,
    keep: int = option("N", "Keep the newest N of each model.", default=..., min=1),
    dry_run: bool = flag("--dry-run", "Print what would be deleted, delete nothing."),
) -> None:
    """Delete old versions and their bundles.

    Versions with an alias or in the last ten entries of the history stay, and so do
    versions that mindtrace did not register. Runs and their metrics stay.
    """
    removals = registry.maintenance.gc(call.settings(), name, keep=keep, dry_run=dry_run)
    columns = ("model_name", "version", "created_at", "removed")
    cells = operator.attrgetter(*columns)
    count = sum(1 for _ in call.console.stream(removals, columns, cells))
    if dry_run:
        call.console.note(f"{count} would be deleted; run without --dry-run to delete them")


def _note_rest(console: Console, shown: int, limit: int, count: Callable[[], int]) -> None:
    """How many there are, if the limit left some out."""
    if 0 < limit <= shown and not console.json and (total := count()) > shown:
        console.note(f"{shown} of {total}, --limit 0 shows all")


def _cell(fields: Mapping[str, Any], column: str) -> Cell:
    if column in _METRICS:
        metric: float | None = fields["metrics"].get(column)
        return metric
    if column in (_BUNDLE, "bundle_digest"):
        digest: str | None = fields["bundle_digest"]
        return "-" if digest is None else digest[: _DIGEST_SHOWN if column == _BUNDLE else None]
    value = fields.get(column.removesuffix(" (UTC)"))
    if column == "aliases":
        return ",".join(value or ())
    return value if isinstance(value, str | int | float | None) else str(value)


def _comparison_pairs(comparison: Comparison, *, short: bool) -> list[Pair]:
    """A comparison as names and values; on a terminal (`short`) without the classes."""
    low, high = comparison.ci
    texts = {name: "; ".join(vars(comparison)[name]) for name in ("reasons", "notes")}
    cells = vars(comparison) | texts | {"ci": f"{low}, {high}"}
    if short:
        cells["test_digest"] = comparison.test_digest[:_DIGEST_SHOWN]
        cells["diff"] = _signed(comparison.diff)
        cells["ci"] = f"{_signed(low)} to {_signed(high)}"
    pairs: list[Pair] = [(name, cells[name]) for name in _COMPARED]
    if not short:
        pairs += [(f"per_class.{one.class_name}", one.diff) for one in comparison.per_class]
    return pairs


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.4f}"
