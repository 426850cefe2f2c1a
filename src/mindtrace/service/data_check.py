"""`data check`: what is in the images of the settings, and whether they may be trained on."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mindtrace.config.settings import Settings
from mindtrace.errors import DataError, MindtraceError, VerdictError
from mindtrace.progress import Progress
from mindtrace.system import require_output, write_output

if TYPE_CHECKING:
    from mindtrace.data.check import DataCheck

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def check(
    settings: Settings,
    *,
    sheet: str | None = None,
    labels: bool = False,
    progress: Progress | None = None,
) -> DataCheck:
    """Decode all images of `[data]` in their own size; `sheet` is a picture to draw."""
    if sheet is not None:
        path = Path(sheet)
        require_output("--sheet", path, _FORMATS)
    from mindtrace.data.check import check
    from mindtrace.data.contact_sheet import contact_sheet
    from mindtrace.data.datamodule import build_data

    data = build_data(settings.replace(**{"data.image_size": None}))
    data.progress = progress = progress or Progress()
    progress.stage(f"reading {settings.data.source}")
    find_suspects = None
    if labels:
        from mindtrace.training.labels import suspect_labels

        find_suspects = partial(suspect_labels, settings, progress)
    found, images = check(data, find_suspects)
    if sheet is None:
        return found
    progress.stage("drawing the contact sheet")
    encoded = io.BytesIO()
    contact_sheet(data, images, found).save(encoded, _FORMATS[path.suffix.lower()])
    write_output("--sheet", path, encoded.getvalue())
    return replace(found, sheet=str(path))


def verdict(found: DataCheck, *, allow_leakage: bool = False) -> MindtraceError | None:
    """The error to end with: leakage, or what would spoil a training; None if all is well."""
    from mindtrace.data.check import leakage_error

    counts = (
        (len(found.unreadable), "unreadable file", "unreadable files"),
        (len(found.missing_classes), "missing class", "missing classes"),
        (len(found.added_classes), "added class", "added classes"),
    )
    faults = ", ".join(
        f"{count:,} {one if count == 1 else many}" for count, one, many in counts if count
    )
    error = leakage_error(found.leakage, found.group_leakage, found.made_by)
    if error is not None and not allow_leakage:
        also = f"; also {faults}" if faults else ""
        return VerdictError(error.message + also, hint=error.hint)
    if faults:
        hint = "correct or remove what is listed, then check again"
        return DataError(f"{faults} in {found.dir or found.source}", hint=hint)
    return None
