"""Store URLs: the local files behind them."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote


def sqlite_path(url: str) -> Path | None:
    """The file of a `sqlite:///` URL; None for any other store."""
    prefix = "sqlite:///"
    return Path(url[len(prefix) :]) if url.startswith(prefix) else None


def file_path(uri: str) -> Path | None:
    """The local path of a `file:` URI or a plain path; None for any other place."""
    if uri.startswith("file:"):
        path = uri.removeprefix("file:").removeprefix("//localhost").removeprefix("//")
        return Path(unquote(path, errors="surrogateescape"))
    # Not `://`: MLflow's own schemes have one slash, as in `mlflow-artifacts:/1/2`.
    return None if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", uri) else Path(uri)
