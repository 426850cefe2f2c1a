"""Room core: the three lowest layers of `Settings`: defaults, MLflow's variable, the INI.

A path or a text and the environment go in, layers come out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mindtrace.config.layers import (
    CONFIG_VARIABLE,
    Entry,
    Layer,
    Origin,
    located,
    read_ini,
    read_ini_file,
)
from mindtrace.config.schema import default_texts
from mindtrace.errors import Fault, listed, nearest


def default_layer() -> Layer:
    """What holds if nobody says anything."""
    layer = Layer()
    for (section, key), text in default_texts().items():
        layer.put(section, key, Entry(text, Origin("default")))
    return layer


def mlflow_layer(environ: Mapping[str, str], here: Path) -> Layer:
    """MLflow's own variable, honoured below everything that is meant for us."""
    layer = Layer()
    uri = environ.get("MLFLOW_TRACKING_URI")
    if uri:
        origin = Origin("environment MLFLOW_TRACKING_URI", literal=True, base=here)
        layer.put("registry", "tracking_uri", Entry(uri, origin))
    return layer


def ini_layer(
    path: Path | str | None, text: str | None, environ: Mapping[str, str], here: Path
) -> Layer:
    """The INI: `text` if there is one, else the file at `path` or the variable's file.

    A file that is missing is one fault.
    """
    if text is not None:
        return read_ini(text, "config", here)
    named = path if path is not None else environ.get(CONFIG_VARIABLE) or None
    if named is None:
        return Layer()
    try:
        return read_ini_file(Path(named), here)
    except FileNotFoundError:
        message = _missing(located(named, here))
        if path is None:
            message += f" (the variable {CONFIG_VARIABLE} names it)"
        return Layer(faults=[Fault(str(named), None, None, None, message)])


def _missing(file: Path) -> str:
    if not file.parent.is_dir():
        return f"no such file; there is no folder {file.parent}"
    others = sorted(other.name for other in file.parent.glob("*.ini"))
    close = nearest(file.name, others)
    meant = f", did you mean '{close}'?" if close else ";"
    return f"no such file{meant} INIs beside it: {listed(others)}"
