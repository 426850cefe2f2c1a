"""Words that the writer and the readers of the registry share; light."""

from __future__ import annotations

CHAMPION = "champion"
ARTIFACTS = "mlartifacts"
BUNDLE = "bundle"
# Of the tags that are ours; of those among them that are metrics of the best epoch.
PREFIX = "mindtrace."
METRIC = "metric."

_LOG_SUFFIX = "~history"


def log_name(model_name: str) -> str:
    """The companion model that holds the history of `model_name`.

    `~` is in no name that we accept, so it can be nobody's model.
    """
    return model_name + _LOG_SUFFIX


def is_log(model_name: str) -> bool:
    """Whether a registered model is a companion, to be kept out of lists."""
    return model_name.endswith(_LOG_SUFFIX)
