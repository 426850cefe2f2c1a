"""Old names of what is in `retrain_request`, until nobody imports them."""

from __future__ import annotations

from typing import Any

from mindtrace.config.sections import STARTS
from mindtrace.config.settings import Settings
from mindtrace.service.retrain_request import SECTIONS, RetrainRequest, values_digest

__all__ = ["SECTIONS", "STARTS", "Overlay", "laid_over"]


class Overlay(RetrainRequest):
    """The keys of a request, without its options."""

    def digest(self) -> str:
        """SHA-256 of the keys."""
        return values_digest(self.values)

    def sections(self) -> dict[str, Any]:
        """The keys as JSON."""
        return self.document()


def laid_over(settings: Settings, overlay: Overlay) -> Settings:
    """The settings of a training."""
    from mindtrace.service.jobs import secrets

    return overlay.laid_over(settings, secrets(settings))
