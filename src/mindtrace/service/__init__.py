"""The service layer that the command line, HTTP and Python callers share; loaded on first use."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mindtrace.service import data_check, jobs, predict, promotion, registry, serve, train

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, ["data_check", "jobs", "predict", "promotion", "registry", "serve", "train"]
)
