"""The service layer that the command line, HTTP and Python callers share.

`from mindtrace import service` loads a module of it with its first use: `service.train.plan`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mindtrace.registry import evaluation, maintenance, reproduce
    from mindtrace.service import data_check, jobs, predict, promotion, registry, serve, train

__all__ = ["data_check", "jobs", "predict", "promotion", "registry", "serve", "train"]
__all__ += ["evaluation", "maintenance", "reproduce"]
_BELOW = ("evaluation", "maintenance", "reproduce")  # services of the registry's own


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mindtrace.service' has no attribute '{name}'")
    return import_module(f"mindtrace.{'registry' if name in _BELOW else 'service'}.{name}")
