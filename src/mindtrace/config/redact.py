"""An old name of `mindtrace.config.urls`, until nobody imports it."""

from mindtrace.config.urls import masked, shown

__all__ = ["masked", "shown"]
