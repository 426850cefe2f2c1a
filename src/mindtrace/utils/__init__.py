"""Small functions of the starter library; what they need is imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mindtrace.utils.mappings import flatten_dict, ifnone
from mindtrace.utils.system import available_cores, num_cores

if TYPE_CHECKING:
    from mindtrace.utils.images import ascii_to_pil, pil_to_ascii, pil_to_tensor, tensor_to_pil

__all__ = [
    "ascii_to_pil",
    "available_cores",
    "flatten_dict",
    "ifnone",
    "num_cores",
    "pil_to_ascii",
    "pil_to_tensor",
    "tensor_to_pil",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mindtrace.utils' has no attribute '{name}'")
    from mindtrace.utils import images

    return getattr(images, name)


def __dir__() -> list[str]:
    return __all__
