"""Checks of registered versions and what is done with their files."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mindtrace.config.settings import Settings
from mindtrace.errors import NotFoundError, UsageError, VerdictError
from mindtrace.progress import Progress
from mindtrace.registry.maintenance import Exported, Removal, delete_old_versions, export_bundle
from mindtrace.registry.reader import open_reader, open_store
from mindtrace.registry.reference import find, locate, parse_reference, require_model

if TYPE_CHECKING:
    from mindtrace.registry.evaluation import EvaluationOutcome
    from mindtrace.registry.reader import Reader
    from mindtrace.registry.reproduce import Reproduction
    from mindtrace.registry.verify import Verification

TOLERANCE = 0.01
_PAGE = 1000


def verify(settings: Settings, ref: str | None = None) -> list[Verification]:
    """Check one version, the champion for None, and the aliases of its model; or a folder."""
    from mindtrace.registry import verify as mechanism

    reference = parse_reference(ref)
    if reference.folder is not None:
        if not reference.folder.is_dir():
            raise NotFoundError("bundle folder", str(reference.folder))
        return [mechanism.verify_folder(reference.folder)]
    reader = open_reader(settings)
    row = find(settings, reader, reference)
    staging = settings.dirs.root / "staging"
    return [
        mechanism.verify_version(reader, row, staging),
        mechanism.verify_aliases(reader, row.name),
    ]


def verify_all(settings: Settings, name: str | None = None) -> Iterator[Verification]:
    """Check every version of one model, or of all, and the aliases; one by one."""
    from mindtrace.registry import verify as mechanism

    reader = open_reader(settings)
    for model_name in _names(reader, name):
        after: int | None = None
        while rows := reader.versions(model_name, _PAGE, after=after):
            for row in rows:
                yield mechanism.verify_version(reader, row, settings.dirs.root / "staging")
            after = rows[-1].version
        yield mechanism.verify_aliases(reader, model_name)


def require_verified(found: Sequence[Verification], *, named: bool) -> None:
    """Raise VerdictError unless all is as registered; a version asked for by name has a bundle."""
    wrong = [one for one in found if one.state == "damaged" or (named and one.state == "no bundle")]
    if wrong:
        first = wrong[0]
        faults = "; ".join(first.faults) or "it has no bundle: mindtrace did not register it"
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise VerdictError(
            f"{first.subject}: {faults}{more}",
            hint="restore the files from a copy, or train and register again",
        )


def evaluate(
    settings: Settings, ref: str, *, progress: Progress | None = None
) -> EvaluationOutcome:
    """Test a version, or a bundle's folder, on the test images that `settings` describe."""
    from mindtrace.registry import evaluation

    return evaluation.evaluate(settings, locate(settings, ref), progress or Progress())


def reproduce(
    settings: Settings,
    ref: str | None = None,
    *,
    tolerance: float = TOLERANCE,
    progress: Progress | None = None,
) -> Reproduction:
    """Train a version again as its bundle says, and compare; nothing is registered."""
    if not 0 <= tolerance <= 1:
        raise UsageError(f"tolerance {tolerance}: must be between 0 and 1")
    from mindtrace.registry.reproduce import train_again

    return train_again(settings, locate(settings, ref), tolerance, progress or Progress())


def gc(
    settings: Settings, name: str | None = None, *, keep: int, dry_run: bool = False
) -> Iterator[Removal]:
    """Delete all but the newest `keep` versions of each model that nothing names, one by one."""
    if keep < 1:
        raise UsageError(f"keep = {keep}: must be 1 or more")
    reader = open_reader(settings)
    store = functools.cache(functools.partial(open_store, settings))
    copies = settings.dirs.root / "bundles"
    for model_name in _names(reader, name):
        yield from delete_old_versions(reader, store, copies, model_name, keep, dry_run)


def export(settings: Settings, ref: str, folder: Path) -> Exported:
    """Write a version's bundle, checked, into a new or empty folder; all of it or nothing."""
    return export_bundle(locate(settings, ref), folder)


def _names(reader: Reader, name: str | None) -> Sequence[str]:
    """One model, or all."""
    if name is None:
        return reader.names()
    require_model(reader, name)
    return [name]
