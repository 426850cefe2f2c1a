"""Floor 8: what a training writes for programs, in words for the log of its job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mindtrace.jobs.child import object_in


def words(line: bytes) -> str:
    """A line of a child's stderr as people read it; empty for what they need not read.

    It can be encoded as UTF-8, also where a file's name in it cannot.
    """
    return _words(line).encode(errors="backslashreplace").decode()


def _words(line: bytes) -> str:
    fields = object_in(line)
    if isinstance(fields.get("error"), dict):
        hint = fields["error"].get("hint")
        said = f"error: {fields['error'].get('message')}\n"
        return f"{said}hint: {hint}\n" if hint else said
    told = _EVENTS.get(str(fields.get("event")))
    if told is not None:
        return f"{told(fields)}\n"
    return line.decode(errors="replace")


def _started(fields: Mapping[str, Any]) -> str:
    return f"training of {fields.get('max_epochs')} epochs begins"


def _epoch(fields: Mapping[str, Any]) -> str:
    parts = [f"epoch {fields.get('epoch')}/{fields.get('max_epochs')}"]
    metrics = fields.get("metrics")
    for name, value in metrics.items() if isinstance(metrics, dict) else ():
        parts.append(f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}")
    parts.append(f"{fields.get('seconds')} s")
    return "  ".join([*parts, "best"] if fields.get("best") else parts)


def _text(fields: Mapping[str, Any]) -> str:
    return str(fields.get("text"))


_EVENTS = {"started": _started, "epoch": _epoch, "stage": _text, "note": _text}
