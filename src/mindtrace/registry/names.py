"""Names that the writers and the readers of the registry share."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from mindtrace.config.sections import PHOTO_SOURCES

if TYPE_CHECKING:
    from mindtrace.config.settings import Settings

# Of a registered model, and of an alias.
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
CHAMPION = "champion"
LATEST = "latest"  # an alias that MLflow keeps for itself
ARTIFACTS = "mlartifacts"
BUNDLE = "bundle"
# Of the tags that are ours; of those among them that are metrics of the best epoch.
PREFIX = "mindtrace."
METRIC = "metric."

_LOG_SUFFIX = "~history"


def model_name_of(settings: Settings) -> str:
    """Under which name a training registers: `[registry] model_name`, else its source's."""
    if settings.registry.model_name is not None:
        return settings.registry.model_name
    if settings.data.source not in PHOTO_SOURCES or settings.data.dir is None:
        return settings.data.source
    place = Path(os.path.normpath(settings.data.dir))
    name = place.stem if settings.data.source == "table" else place.name
    if re.fullmatch(NAME, name):
        return name
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("._-")[:64] or "images"


def log_name(model_name: str) -> str:
    """The companion model with the history of `model_name`; `~` is in no name that we accept."""
    return model_name + _LOG_SUFFIX


def is_log(model_name: str) -> bool:
    """Whether a registered model is a companion, to be kept out of lists."""
    return model_name.endswith(_LOG_SUFFIX)
