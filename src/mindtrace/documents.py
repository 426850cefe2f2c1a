"""The one number that every JSON document of mindtrace begins with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCHEMA_VERSION = 1


def document(fields: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` behind `schema_version`, in their own order."""
    return {"schema_version": SCHEMA_VERSION, **fields}
