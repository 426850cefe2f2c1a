"""Small functions of the starter library; what they need is imported on first use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import lazy_loader

from mindtrace.utils.system import available_cores, num_cores

if TYPE_CHECKING:
    from mindtrace.utils.images import (
        ascii_to_pil as ascii_to_pil,
        pil_to_ascii as pil_to_ascii,
        pil_to_tensor as pil_to_tensor,
        tensor_to_pil as tensor_to_pil,
    )

_T = TypeVar("_T")

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={"images": ["ascii_to_pil", "pil_to_ascii", "pil_to_tensor", "tensor_to_pil"]},
)
__all__ += ["available_cores", "flatten_dict", "ifnone", "num_cores"]


def ifnone(val: _T | None, default: _T) -> _T:
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
