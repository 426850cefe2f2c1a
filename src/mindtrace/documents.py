"""JSON documents: each begins with the version of its schema."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

SCHEMA_VERSION = 1


def document(result: Any) -> dict[str, Any]:
    """`result`, a mapping or a dataclass, as a JSON document; its order of fields is kept."""
    fields = result if isinstance(result, Mapping) else asdict(result)
    return {"schema_version": SCHEMA_VERSION, **fields}
