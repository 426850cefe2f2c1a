"""The small model and the real server of the application's tests."""

from __future__ import annotations

from tests.application.conftest import bundle, module_settings, serve

__all__ = ["bundle", "module_settings", "serve"]
