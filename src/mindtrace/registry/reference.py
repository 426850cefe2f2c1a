"""How a user names a version: `NAME`, `NAME@ALIAS`, `NAME/VERSION`, `VERSION`, a folder."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from mindtrace.bundle.manifest import MANIFEST
from mindtrace.errors import UsageError
from mindtrace.registry.names import CHAMPION, NAME

# More digits than a version will ever have are a name, or nothing.
_NUMBER = r"[1-9][0-9]{0,9}"
_FORM = re.compile(rf"(?P<name>{NAME})(?:@(?P<alias>{NAME})|/(?P<version>{_NUMBER}))?")
_FORMS = "NAME, NAME@ALIAS, NAME/VERSION, VERSION or a bundle folder"


@dataclass(frozen=True)
class Reference:
    """A parsed reference; exactly one of `folder`, `version` and `alias` is set.

    `name` is None where only a version, or nothing, was given.
    """

    name: str | None = None
    alias: str | None = None
    version: int | None = None
    folder: Path | None = None


def parse_reference(text: str | None) -> Reference:
    """Read a reference; None is the champion of the only model.

    Raises:
        UsageError: of no known form.
    """
    if text is None:
        return Reference(alias=CHAMPION)
    if text.startswith((".", "/", "~")) or _is_bundle(text):
        return Reference(folder=Path(os.path.expanduser(text)))  # noqa: PTH111 - never raises
    if re.fullmatch(_NUMBER, text):
        return Reference(version=int(text))
    match = _FORM.fullmatch(text)
    if match is None:
        raise UsageError(f"'{text}' names no version", hint=f"write {_FORMS}")
    if match["version"]:
        return Reference(name=match["name"], version=int(match["version"]))
    return Reference(name=match["name"], alias=match["alias"] or CHAMPION)


def _is_bundle(text: str) -> bool:
    try:
        return (Path(text) / MANIFEST).is_file()
    except (OSError, ValueError):
        # Too long for a path, or with characters that none can have.
        return False
