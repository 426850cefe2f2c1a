"""Values and mappings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def ifnone(val: T | None, default: T) -> T:
    """`val`, or `default` where `val` is None; other empty values stay."""
    return default if val is None else val


def flatten_dict(nested: Mapping[str, Any], parent_key: str = "", sep: str = ".") -> dict[str, Any]:
    """Make one level of many: `{"a": {"b": 1}}` becomes `{"a.b": 1}`.

    Args:
        nested: mappings in mappings; an empty one inside leaves no key.
        parent_key: what every key begins with, if not empty.
        sep: what stands between a key and the one above it.

    Returns:
        a new dict, in the order in which the leaves stand.
    """
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        path = f"{parent_key}{sep}{key}" if parent_key else key
        if isinstance(value, Mapping):
            flat.update(flatten_dict(value, path, sep))
        else:
            flat[path] = value
    return flat
