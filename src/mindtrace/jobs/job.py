"""A retraining job: what was asked, how far it is, and how it ended."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum, auto
from pathlib import Path
from typing import Any

from mindtrace.documents import document

STATE, EPOCH, END = "state", "epoch", "end"  # the names of events

JOB_ID = r"^[0-9]{8}T[0-9]{12}-[0-9a-f]{8}$"
KEY = r"^[!-~]{1,255}$"  # of a client's own key for a job: visible ASCII
FLAGS = ("warm_start", "force", "allow_leakage")  # of a Request, and of `mindtrace train`
_TIME = "%Y%m%dT%H%M%S%f"


class State(StrEnum):
    """The states of a job, in this order."""

    QUEUED = auto()
    RUNNING = auto()
    SUCCEEDED = auto()
    FAILED = auto()
    CANCELLED = auto()


ENDED = frozenset(State) - {State.QUEUED, State.RUNNING}


@dataclass(frozen=True)
class Request:
    """What to train: INI text without passwords, and what the version starts from."""

    config: str
    parent: str | None = None  # NAME/VERSION
    warm_start: bool = False
    force: bool = False
    promote: str | None = None  # never, gate or always; None, of old releases, is never
    allow_leakage: bool = False

    @classmethod
    def from_fields(cls, found: Mapping[str, Any]) -> Request:
        """Read stored fields; those that a newer release added are ignored."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in found.items() if name in known})


@dataclass(frozen=True)
class Job:
    """A job as it is now; times are UTC, ISO 8601."""

    job_id: str
    state: str
    submitted_at: str
    cancelling: bool = False
    # Workers record what follows.
    started_at: str | None = None
    ended_at: str | None = None
    attempts: int = 0
    epoch: int | None = None
    max_epochs: int | None = None
    val_acc: float | None = None
    model_name: str | None = None
    version: int | None = None
    reused: bool = False
    promotion: Mapping[str, Any] | None = None
    error: Mapping[str, str] | None = None
    # Used by workers only.
    begun: bool = False  # an attempt began, and neither ended nor was put back
    lost: int = 0  # attempts whose process or worker was killed
    log_size: int = 0  # bytes

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    def document(self) -> dict[str, Any]:
        """The job as every interface shows it."""
        shown = {name: getattr(self, name) for name in _BEFORE}
        shown |= {
            "ended_at": self.ended_at if self.ended else None,
            "attempts": self.attempts,
            "cancelling": self.cancelling and not self.ended,
            "progress": {name: getattr(self, name) for name in _PROGRESS},
        }
        return document(shown | {name: getattr(self, name) for name in _AFTER})

    def record(self) -> dict[str, Any]:
        """What workers record of it."""
        return {name: getattr(self, name) for name in _RECORDED}

    @classmethod
    def from_record(
        cls, job_id: str, state: str, record: Mapping[str, Any], *, cancelling: bool = False
    ) -> Job:
        """A job of DBOS's state and our record; unknown fields are ignored."""
        submitted = datetime.strptime(job_id.partition("-")[0], _TIME).replace(tzinfo=UTC)
        known = {name: record[name] for name in _RECORDED if name in record}
        return cls(job_id, state, iso_time(submitted), cancelling, **known)


_BEFORE = ("job_id", "state", "submitted_at", "started_at")
_PROGRESS = ("epoch", "max_epochs", "val_acc")
_AFTER = ("model_name", "version", "reused", "promotion", "error")
_RECORDED = [field.name for field in fields(Job)][4:]


@dataclass(frozen=True)
class Event:
    """An event of a job: `state`, `epoch` or `end`; ids are dense, from 1."""

    id: int
    name: str
    data: Mapping[str, Any]


def new_job_id() -> str:
    """An unguessable id that sorts by time: `20250131T235959123456-0a1b2c3d`."""
    return f"{datetime.now(UTC):{_TIME}}-{secrets.token_hex(4)}"


def is_job_id(text: str) -> bool:
    """Whether `text` can be a job's id; asked before it becomes part of a path."""
    return re.fullmatch(JOB_ID, text) is not None


def iso_time(time: datetime) -> str:
    """ISO 8601, in milliseconds."""
    return time.isoformat(timespec="milliseconds")


def database_file(url: str | None, root: Path) -> Path | None:
    """The SQLite file that `[jobs] database_url` names; None for PostgreSQL."""
    if url is None:
        return root / "jobs.db"
    if url.startswith("sqlite"):
        return Path(url.partition(":///")[2].partition("?")[0])
    return None
