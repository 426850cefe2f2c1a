"""Floor 9: from a client's wishes to a job that trains.

In: INI text or sections and keys, and the settings of the server. Out: a `Job`, or every
fault of the wishes at once. A client may set what makes a training; paths, addresses,
commands and whatever else belongs to the machine stay the server's own.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindtrace.core.layers import read_ini
from mindtrace.core.masking import masked, shown
from mindtrace.core.schema import KNOWN
from mindtrace.core.settings import PUBLISHED_KEYS, Settings, load_settings
from mindtrace.errors import ConfigError, Fault, listed

if TYPE_CHECKING:
    from mindtrace.jobs.job import Job
    from mindtrace.jobs.queue import JobQueue
    from mindtrace.jobs.runner import Runner

FILE = "config"
_HINT = "GET /openapi.json lists what a request may set, with examples"
# What of the server's own configuration a training needs.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KNOWN = {section.lower(): {key.lower() for key in keys} for section, keys in KNOWN.items()}
_PUBLISHED = {name.lower() for name in PUBLISHED_KEYS}
_STARTS = ("none", "default")
_SECTIONS = ("DIR_PATHS", "data", "model", "train", "registry", "compute")


@dataclass(frozen=True)
class Wish:
    """One key that a client sets; `line` is None where it was not INI text."""

    section: str
    key: str
    text: str
    line: int | None = None


@dataclass(frozen=True)
class Overlay:
    """All that a client sets, and what was wrong with how it was written."""

    wishes: tuple[Wish, ...] = ()
    faults: tuple[Fault, ...] = ()

    @classmethod
    def from_ini(cls, text: str) -> Overlay:
        """Read INI text; `${...}` in it means itself."""
        layer = read_ini(text, FILE, base=Path())
        return cls(
            tuple(
                Wish(section, key, entry.text, entry.origin.line)
                for (section, key), entry in layer.entries.items()
            ),
            tuple(layer.faults),
        )

    @classmethod
    def from_mapping(cls, sections: Mapping[str, Any]) -> Overlay:
        """Read `{"train": {"max_epochs": 1}}`; values are strings, numbers, true, false, null."""
        wishes: list[Wish] = []
        faults: list[Fault] = []
        for section, keys in sections.items():
            if not isinstance(keys, Mapping):
                faults.append(_fault(section, None, f"[{shown(section)}]: must be an object"))
                continue
            for key, value in keys.items():
                text = _text(value)
                if text is None:
                    message = f"[{shown(section)}] {shown(key)}: must be a single value"
                    faults.append(_fault(section, key, message))
                else:
                    wishes.append(Wish(section, key, text))
        return cls(tuple(wishes), tuple(faults))

    def digest(self) -> str:
        """SHA-256 over what is set, the same for INI text and JSON; 64 hexadecimal digits."""
        rows = sorted([w.section.lower(), w.key.lower(), w.text] for w in self.wishes)
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def job_settings(settings: Settings, overlay: Overlay) -> Settings:
    """The settings of a job: the server's own, and the client's over them.

    Raises:
        ConfigError: with every fault, and the names of keys that no request may set.
    """
    faults = [*overlay.faults]
    sets: list[str] = []
    lines: dict[tuple[str, str], int | None] = {}
    for wish in overlay.wishes:
        place = (wish.section.lower(), wish.key.lower())
        reason = _refusal(wish) or ("given twice, keep one" if place in lines else None)
        lines.setdefault(place, wish.line)
        if reason is None:
            sets.append(f"{wish.section}.{wish.key}={wish.text}")
        else:
            message = f"[{shown(wish.section)}] {shown(wish.key)}: {reason}"
            faults.append(_fault(wish.section, wish.key, message, wish.line))
    try:
        merged = load_settings(
            text=settings.to_ini(_SECTIONS),
            sets=sets,
            environ=secrets(settings),
            cwd=settings.dirs.root,
        )
    except ConfigError as error:
        faults += [_placed(fault, lines) for fault in error.faults]
    if faults:
        raise ConfigError(faults, hint=_HINT)
    return merged


def submit(settings: Settings, overlay: Overlay, *, idempotency_key: str | None = None) -> Job:
    """Put a retraining into the queue.

    Args:
        settings: of the server.
        overlay: what the client sets.
        idempotency_key: the same key and wishes give the same job.

    Raises:
        ConfigError: see `job_settings`.
        UsageError: the key was used with other wishes.
        QueueFullError: enough jobs wait.
    """
    merged = job_settings(settings, overlay)
    key = None if idempotency_key is None else hashlib.sha256(idempotency_key.encode()).hexdigest()
    return queue(settings).submit(
        merged.to_ini(_SECTIONS), request_digest=overlay.digest(), key_digest=key
    )


def get_job(settings: Settings, job_id: str) -> Job:
    """A job as it is now.

    Raises:
        NotFoundError: there is no such job.
    """
    return queue(settings).get(job_id)


def list_jobs(settings: Settings, limit: int = 20, before: str | None = None) -> Sequence[Job]:
    """Jobs, newest first; older than the job `before`, if that is given."""
    return queue(settings).list(limit, before)


def cancel_job(settings: Settings, job_id: str) -> Job:
    """Ask for the end of a job.

    Raises:
        NotFoundError: there is no such job.
        ConflictError: it has ended.
    """
    return queue(settings).cancel(job_id)


def runner(settings: Settings) -> Runner:
    """Runs the jobs of these settings' ROOT once it is woken; to be stopped at the end."""
    from mindtrace.jobs.child import listed_environment
    from mindtrace.jobs.runner import Runner

    return Runner(queue(settings), listed_environment(os.environ, secrets(settings)))


def queue(settings: Settings) -> JobQueue:
    """The jobs of these settings' ROOT."""
    from mindtrace.jobs.queue import JobQueue

    return JobQueue(settings.dirs.root / "jobs", settings.jobs.max_queued)


def secrets(settings: Settings) -> dict[str, str]:
    """Values with passwords, as environment variables: no file ever holds them."""
    values = {
        "REGISTRY__TRACKING_URI": settings.registry.tracking_uri,
        "DATA__MIRROR": settings.data.mirror,
    }
    return {name: text for name, text in values.items() if text and masked(text) != text}


def _refusal(wish: Wish) -> str | None:
    """Why a request may not set this; None if it may, or if nobody knows the name."""
    if not (_NAME.fullmatch(wish.section) and _NAME.fullmatch(wish.key)):
        return "not a name"
    section, key = wish.section.lower(), wish.key.lower()
    if f"{section}.{key}" in _PUBLISHED:
        is_path = (section, key) == ("model", "weights") and wish.text.strip() not in _STARTS
        return "a request may set none or default only" if is_path else None
    settable = sorted(
        name.partition(".")[2] for name in _PUBLISHED if name.startswith(f"{section}.")
    )
    if section in _KNOWN and (key in _KNOWN[section] or not settable):
        instead = f"; in [{section}] it may set {listed(settable, 12)}" if settable else ""
        return f"a request may not set this{instead}"
    return None


def _placed(fault: Fault, lines: Mapping[tuple[str, str], int | None]) -> Fault:
    """A fault at the line where the client wrote it."""
    place = ((fault.section or "").lower(), (fault.key or "").lower())
    return _fault(fault.section, fault.key, fault.message, lines.get(place))


def _fault(section: str | None, key: str | None, message: str, line: int | None = None) -> Fault:
    return Fault(FILE, line, section, key, message)


def _text(value: object) -> str | None:
    """A JSON value as INI text; None if it is no single value."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, str | int | float) else None
