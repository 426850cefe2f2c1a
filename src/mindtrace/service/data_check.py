"""The verb data check: settings in, what is in the images and what is wrong with them out."""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mindtrace.config.settings import Settings
from mindtrace.documents import document
from mindtrace.errors import DataError, MindtraceError, UsageError, VerdictError
from mindtrace.progress import Progress

if TYPE_CHECKING:
    from mindtrace.data.base import ImageDataModule
    from mindtrace.data.check import CheckedImage, DataCheck, Twins

_PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


class Finding(NamedTuple):
    """One thing that is wrong: `kind` is leakage, conflict, unreadable and so on."""

    kind: str
    split: str
    class_name: str
    path: str | None
    message: str


@dataclass(frozen=True)
class DataReport:
    """What `data check` has to say; `sheet` is the picture that was written."""

    check: DataCheck
    sheet: str | None

    def document(self) -> dict[str, Any]:
        """The JSON document of `mindtrace data check`."""
        found = self.check
        twins = found.twins
        return document(
            {
                "source": found.source,
                "dir": None if found.folder is None else str(found.folder),
                "images": len(found.images),
                "class_names": list(found.class_names),
                "counts": found.counts(),
                "sizes": [
                    {"height": height, "width": width, "images": count}
                    for (height, width), count in found.sizes.items()
                ],
                "modes": dict(found.modes),
                "formats": dict(found.formats),
                "unreadable": [
                    {**_place(image), "message": image.error} for image in found.unreadable
                ],
                "missing_classes": [gap._asdict() for gap in found.missing],
                "added_classes": [gap._asdict() for gap in found.added],
                "leakage": [_group(one) for one in twins if one.leak],
                "conflicts": [_group(one) for one in twins if one.contradict],
                "duplicates": [_group(one) for one in twins if not one.leak and not one.contradict],
                "notes": list(found.notes),
                "data_digest": found.data_digest,
                "test_digest": found.test_digest,
                "sheet": self.sheet,
            }
        )

    def findings(self) -> list[Finding]:
        """All that is wrong, the worst first; duplicates within a split come last."""
        found = self.check
        twins = found.twins
        return [
            *_of_twins("leakage", [one for one in twins if one.leak]),
            *_of_twins("conflict", [one for one in twins if one.contradict]),
            *(
                Finding("unreadable", image.split, image.class_name, image.path, image.error)
                for image in found.unreadable
            ),
            *(
                Finding("missing", *gap, None, f"{gap.split} has no image of this class")
                for gap in found.missing
            ),
            *(
                Finding("added", *gap, None, "train does not have this class")
                for gap in found.added
            ),
            *_of_twins("duplicate", [one for one in twins if not one.leak and not one.contradict]),
        ]

    def error(self) -> MindtraceError | None:
        """The verdict: None if these images may be trained on without a second thought."""
        found = self.check
        faults = _numbered(
            (len(found.unreadable), "unreadable file", "unreadable files"),
            (len(found.missing), "missing class", "missing classes"),
            (len(found.added), "added class", "added classes"),
            (
                sum(one.contradict for one in found.twins),
                "image with two class names",
                "images with two class names",
            ),
        )
        leaks = [one for one in found.twins if one.leak]
        if leaks:
            first, second = _first_leak(leaks[0])
            what = "1 image is" if len(leaks) == 1 else f"{len(leaks):,} images are"
            also = f"; also {faults}" if faults else ""
            return VerdictError(
                f"leakage: {what} in more than one split, {_named(first)} = {_named(second)}{also}",
                hint="leave each image in one split; --json lists all",
            )
        if faults:
            return DataError(
                f"{faults} in {found.folder or found.source}",
                hint="mend or remove what is listed, then check again; --json lists all",
            )
        return None


def check(
    settings: Settings, *, sheet: str | None = None, progress: Progress | None = None
) -> DataReport:
    """Look at the images of `[data]`, all of them.

    Args:
        settings: whose images; other sizes than their own play no part.
        sheet: a picture to draw: some images of each class.
        progress: hears of it.

    Raises:
        DataFolderError, DownloadError: there are no images to look at.
        UsageError: `sheet` cannot be written, or no split can be made.
    """
    if sheet is not None:
        _demand_writable(Path(sheet))
    from mindtrace.data import check as checking
    from mindtrace.data.build import build_data

    data = build_data(settings.replace(**{"data.image_size": None}))
    data.progress = progress or Progress()
    data.progress.stage(f"reading {settings.data.source}")
    found = checking.check(data)
    if sheet is not None:
        data.progress.stage("drawing the contact sheet")
        _write_sheet(data, found, Path(sheet))
    return DataReport(found, sheet)


def _demand_writable(path: Path) -> None:
    if path.suffix.lower() not in _PICTURES:
        raise UsageError(
            f"--sheet {path}: not the name of a picture",
            hint=f"pictures end in {' '.join(_PICTURES)}",
        )
    if not path.parent.is_dir():
        raise UsageError(f"--sheet {path}: no such folder: {path.parent}")


def _write_sheet(data: ImageDataModule, found: DataCheck, path: Path) -> None:
    from mindtrace.data.sheet import contact_sheet

    encoded = io.BytesIO()
    contact_sheet(data, found).save(encoded, _PICTURES[path.suffix.lower()])
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        aside.write_bytes(encoded.getvalue())
        aside.replace(path)
    except OSError as error:
        raise UsageError(f"--sheet {path}: {error.strerror}") from error
    finally:
        aside.unlink(missing_ok=True)


def _place(image: CheckedImage) -> dict[str, str]:
    return {"split": image.split, "path": image.path, "class_name": image.class_name}


def _group(twins: Twins) -> dict[str, Any]:
    return {
        "digest": twins.images[0].digest.hex(),
        "images": [_place(image) for image in twins.images],
    }


def _of_twins(kind: str, groups: Sequence[Twins]) -> Iterator[Finding]:
    for group in groups:
        first, *others = group.images
        message = f"the same pixels as {', '.join(map(_named, others))}"
        yield Finding(kind, first.split, first.class_name, first.path, message)


def _named(image: CheckedImage) -> str:
    """The path, and the split where the path does not begin with it."""
    return image.path if image.path.startswith(image.split) else f"{image.path} ({image.split})"


def _first_leak(twins: Twins) -> tuple[CheckedImage, CheckedImage]:
    first = twins.images[0]
    return first, next(image for image in twins.images if image.split != first.split)


def _numbered(*counts: tuple[int, str, str]) -> str:
    """`1 unreadable file, 2 missing classes`; nothing for what is not there."""
    return ", ".join(
        f"{count:,} {one if count == 1 else many}" for count, one, many in counts if count
    )
