"""Store URLs: the local files behind them."""

from __future__ import annotations

import re
from pathlib import Path


def sqlite_path(url: str) -> Path | None:
    """The file of a `sqlite:///` URL; None for any other store."""
    prefix = "sqlite:///"
    return Path(url[len(prefix) :]) if url.startswith(prefix) else None


def file_path(uri: str) -> Path | None:
    """The local path of a `file:` URI or a plain path; None for any other place."""
    if uri.startswith("file:"):
        return Path(_unquoted(uri.removeprefix("file:").removeprefix("//")))
    return None if "://" in uri or uri.startswith("runs:/") else Path(uri)


def _unquoted(text: str) -> str:
    return re.sub(
        r"(?:%[0-9A-Fa-f]{2})+",
        lambda run: bytes.fromhex(run[0].replace("%", "")).decode("utf-8", "surrogateescape"),
        text,
    )
