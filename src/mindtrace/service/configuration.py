"""Room service: what `mindtrace config` is about; a file or settings go in.

Out come the values in force, a checked file's settings, or a file to begin with.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mindtrace.core.settings import Row, Settings, load_settings
from mindtrace.core.template import template_ini


def show(settings: Settings) -> list[Row]:
    """Every value in force, without passwords, and where it came from."""
    return settings.rows()


def check(path: Path | str, *, sets: Sequence[str] = ()) -> Settings:
    """Check the INI at `path` by itself: the environment plays no part.

    Args:
        path: the INI.
        sets: `section.key=value`, laid over it.

    Returns:
        the settings that the file alone makes.

    Raises:
        ConfigError: with every fault; a missing file is one.
    """
    return load_settings(path, sets=sets, environ={})


def template() -> str:
    """An INI with every key, its default, what it takes and what it does."""
    return template_ini()
