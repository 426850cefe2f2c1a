"""The verb verify: is what lies there what was registered, and does it still answer so?"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from mindtrace.config.settings import Settings
from mindtrace.documents import document
from mindtrace.errors import NotFoundError, StoreError, VerdictError

if TYPE_CHECKING:
    from mindtrace.registry.reader import ModelVersion, Reader

State = Literal["verified", "damaged", "no bundle"]
_PAGE = 1000


@dataclass(frozen=True)
class Verification:
    """What was found of one version, or of the aliases of a model.

    Attributes:
        model_name: None for a bundle that was named by its folder.
        version: None for the aliases of the model, and for a folder.
        subject: `NAME/VERSION`, `NAME (aliases)` or the folder.
        bundle_digest: as registered.
        state: `no bundle` is a version that plain MLflow registered.
        faults: a line each.
    """

    model_name: str | None
    version: int | None
    subject: str
    bundle_digest: str | None
    state: State
    faults: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """The JSON document of `mindtrace registry verify`."""
        return document({**vars(self), "faults": list(self.faults)})


def verify(settings: Settings, ref: str | None = None) -> list[Verification]:
    """Check one version and the aliases of its model; or a bundle's folder.

    Args:
        settings: which registry.
        ref: None for the champion.

    Raises:
        NotFoundError: no such version.
        StoreError: the registry cannot be read.
    """
    from mindtrace.registry.reader import open_reader
    from mindtrace.registry.reference import find, parse_reference

    reference = parse_reference(ref)
    if reference.folder is not None:
        from mindtrace.registry.integrity import bundle_faults

        if not reference.folder.is_dir():
            raise NotFoundError("bundle folder", str(reference.folder))
        faults = bundle_faults(reference.folder, None, {})
        return [_verification(None, None, str(reference.folder), None, faults)]
    reader = open_reader(settings)
    row = find(settings, reader, reference)
    return [_version(settings, reader, row), _aliases(reader, row.name)]


def verify_all(settings: Settings, name: str | None = None) -> Iterator[Verification]:
    """Check every version of one model, or of all, and the aliases; one by one.

    Raises:
        NotFoundError: no such model, or no registry.
        StoreError: the registry cannot be read.
    """
    from mindtrace.registry.reader import open_reader

    reader = open_reader(settings)
    names = reader.names()
    if name is not None and name not in names:
        raise NotFoundError("model", name, names)
    for model_name in names if name is None else [name]:
        after: int | None = None
        while rows := reader.versions(model_name, _PAGE, after=after):
            for row in rows:
                yield _version(settings, reader, row)
            after = rows[-1].version
        yield _aliases(reader, model_name)


def demand_verified(found: Sequence[Verification], *, named: bool) -> None:
    """Raise unless all is as it was registered.

    Args:
        found: what `verify` or `verify_all` gave.
        named: whether a version was asked for by name: then it must have a bundle.

    Raises:
        VerdictError: it is not.
    """
    wrong = [one for one in found if one.state == "damaged" or (named and one.state == "no bundle")]
    if wrong:
        first = wrong[0]
        told = "; ".join(first.faults) or "it has no bundle: mindtrace did not register it"
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise VerdictError(
            f"{first.subject}: {told}{more}",
            hint="restore the files from a copy, or train and register again",
        )


def _version(settings: Settings, reader: Reader, row: ModelVersion) -> Verification:
    from mindtrace.config.urls import file_path
    from mindtrace.registry.integrity import bundle_faults
    from mindtrace.registry.names import PREFIX

    digest = row.tags.get(PREFIX + "bundle_digest")
    subject = f"{row.name}/{row.version}"
    if digest is None or row.location is None:
        return Verification(row.name, row.version, subject, digest, "no bundle", ())
    folder = file_path(row.location)
    if folder is not None:
        faults = bundle_faults(folder, digest, row.tags)
        return _verification(row.name, row.version, subject, digest, faults)
    # Fetched anew: a copy from an earlier day proves nothing of what the store has now.
    aside = settings.dirs.root / "staging" / f"verify-{uuid4().hex}"
    try:
        aside.parent.mkdir(parents=True, exist_ok=True)
        reader.fetch(row.location, aside)
        faults = bundle_faults(aside, digest, row.tags)
    except StoreError as error:
        faults = [f"its files cannot be had: {error.message}"]
    except OSError as error:
        raise StoreError(f"cannot keep files in {aside.parent}: {error.strerror}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return _verification(row.name, row.version, subject, digest, faults)


def _aliases(reader: Reader, model_name: str) -> Verification:
    from mindtrace.registry.integrity import alias_faults

    faults = alias_faults(reader, model_name)
    return _verification(model_name, None, f"{model_name} (aliases)", None, faults)


def _verification(
    model_name: str | None,
    version: int | None,
    subject: str,
    digest: str | None,
    faults: Sequence[str],
) -> Verification:
    state: State = "damaged" if faults else "verified"
    return Verification(model_name, version, subject, digest, state, tuple(faults))
