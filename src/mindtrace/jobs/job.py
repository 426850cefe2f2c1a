"""A retraining job: what it was asked to do, how far it is, and how it ended."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mindtrace.documents import document

QUEUED, RUNNING = "queued", "running"
SUCCEEDED, FAILED, CANCELLED = "succeeded", "failed", "cancelled"
STATES = (QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED)
ENDED = frozenset({SUCCEEDED, FAILED, CANCELLED})
STATE, EPOCH, END = "state", "epoch", "end"  # the names of events

JOB_ID = r"^[0-9]{8}T[0-9]{12}-[0-9a-f]{8}$"
KEY = r"^[!-~]{1,255}$"  # of a client's own key for a job: visible ASCII
_ID = re.compile(JOB_ID)
_KEY = re.compile(KEY)
_TIME = "%Y%m%dT%H%M%S%f"
_FILE = "jobs.db"


@dataclass(frozen=True)
class Request:
    """What to train: INI text without passwords, and what the version starts from."""

    config: str
    parent: str | None = None  # NAME/VERSION
    warm_start: bool = False
    force: bool = False
    promote: str | None = None  # never, gate or always; None leaves it to the worker

    @classmethod
    def from_fields(cls, found: Mapping[str, Any]) -> Request:
        """Read stored fields; those that a newer release added are ignored."""
        return cls(
            **{field.name: found[field.name] for field in fields(cls) if field.name in found}
        )


@dataclass(frozen=True)
class Job:
    """A job as it is now; times are UTC, ISO 8601."""

    job_id: str
    state: str
    submitted_at: str
    cancelling: bool = False
    # From here on it is what workers recorded.
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
    # Of interest to workers only.
    begun: bool = False  # an attempt began, and neither ended nor was put back
    lost: int = 0  # attempts whose process or worker was killed
    promoting: bool = False
    log_size: int = 0  # bytes

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDED

    def document(self) -> dict[str, Any]:
        """The job as every interface shows it."""
        progress = {"epoch": self.epoch, "max_epochs": self.max_epochs, "val_acc": self.val_acc}
        return document(
            {
                "job_id": self.job_id,
                "state": self.state,
                "submitted_at": self.submitted_at,
                "started_at": self.started_at,
                "ended_at": self.ended_at if self.ended else None,
                "attempts": self.attempts,
                "cancelling": self.cancelling and not self.ended,
                "progress": progress,
                "model_name": self.model_name,
                "version": self.version,
                "reused": self.reused,
                "promotion": None if self.promotion is None else dict(self.promotion),
                "error": None if self.error is None else dict(self.error),
            }
        )

    def record(self) -> dict[str, Any]:
        """What workers record of it."""
        found = asdict(self)
        return {name: found[name] for name in _RECORDED}

    @classmethod
    def from_record(
        cls, job_id: str, state: str, record: Mapping[str, Any], *, cancelling: bool = False
    ) -> Job:
        """A job of DBOS's state and our record; unknown fields are ignored."""
        known = {name: record[name] for name in _RECORDED if name in record}
        return cls(job_id, state, _submitted_at(job_id), cancelling, **known)


_RECORDED = [field.name for field in fields(Job)][4:]


@dataclass(frozen=True)
class Event:
    """Something that happened to a job: `state`, `epoch` or `end`; ids are dense, from 1."""

    id: int
    name: str
    data: Mapping[str, Any]


def new_job_id() -> str:
    """An id that sorts by time and that nobody guesses: `20250131T235959123456-0a1b2c3d`."""
    return f"{datetime.now(UTC):{_TIME}}-{secrets.token_hex(4)}"


def _submitted_at(job_id: str) -> str:
    time = datetime.strptime(job_id.partition("-")[0], _TIME).replace(tzinfo=UTC)
    return time.isoformat(timespec="milliseconds")


def is_job_id(text: str) -> bool:
    """Whether `text` can be a job's id; asked before it becomes part of a path."""
    return _ID.fullmatch(text) is not None


def is_key(text: str) -> bool:
    """Whether `text` can be a client's key for a job."""
    return _KEY.fullmatch(text) is not None


def now() -> str:
    """This moment, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def json_object(line: bytes) -> dict[str, Any]:
    """A line's JSON object; empty where it is none."""
    if not line.lstrip().startswith(b"{"):
        return {}
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def database_file(url: str | None, root: Path) -> Path | None:
    """The SQLite file that `[jobs] database_url` names; None for PostgreSQL."""
    if url is None:
        return root / _FILE
    if url.startswith("sqlite"):
        return Path(url.partition(":///")[2].partition("?")[0])
    return None
