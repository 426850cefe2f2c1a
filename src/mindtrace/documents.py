"""JSON documents: each begins with the version of its schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SCHEMA_VERSION = 1


def document(result: Mapping[str, Any] | DataclassInstance) -> dict[str, Any]:
    """`result`, a mapping or a dataclass, as a JSON document; its order of fields is kept."""
    fields = asdict(result) if is_dataclass(result) else result
    return {"schema_version": SCHEMA_VERSION, **fields}
