"""Floor 8: what a job is, as its row says and as every door shows it.

A record never changes: every step of a job's life is a new record in the old one's place.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from mindtrace.documents import document

QUEUED, RUNNING = "queued", "running"
SUCCEEDED, FAILED, CANCELLED = "succeeded", "failed", "cancelled"
STATES = (QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED)
ENDED = frozenset({SUCCEEDED, FAILED, CANCELLED})
END = "end"  # the last event of every job

#: What the id of a job looks like.
JOB_ID = r"^[0-9]{8}T[0-9]{12}-[0-9a-f]{8}$"
#: What a client's own key for a job looks like: visible ASCII.
KEY = r"^[!-~]{1,255}$"
_ID = re.compile(JOB_ID)
_KEY = re.compile(KEY)


@dataclass(frozen=True)
class Request:
    """What a job shall train.

    Attributes:
        config: its whole configuration, INI text without passwords.
        parent: the version it starts from, `NAME/VERSION`, or None.
        warm_start: whether the weights of `parent` are the first ones.
        force: train even if such a version is there already.
        promote: what becomes of its version, never, gate or always; None leaves that to the
            worker.
    """

    config: str
    parent: str | None = None
    warm_start: bool = False
    force: bool = False
    promote: str | None = None

    def to_json(self) -> str:
        """The text of its column."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Request:
        """Read its column; what a newer release wrote beside it is of no interest here."""
        fields = json.loads(text)
        return cls(**{name: fields[name] for name in cls.__dataclass_fields__ if name in fields})


@dataclass(frozen=True)
class Job:
    """One retraining.

    Attributes:
        job_id: sorts by the time of submission.
        state: queued, running, succeeded, failed or cancelled.
        submitted_at: UTC, ISO 8601; as are the other times.
        started_at: of the first attempt; None before.
        ended_at: None before.
        attempts: how often a training was started.
        cancelling: whether its end was asked for; it comes with the worker's next look.
        epoch: the last one that ended, from 1.
        max_epochs: None until the training says it.
        val_acc: of that epoch, a fraction.
        model_name: what the version was registered under.
        version: what was registered.
        reused: whether that version was there before.
        promotion: what became of it after the training: `promoted`, `verdict`, `message`;
            None where nobody asked.
        error: `type` and `message` of what ended the job.
        request_digest: of what was asked, to know the same request again.
    """

    job_id: str
    state: str
    submitted_at: str
    started_at: str | None = None
    ended_at: str | None = None
    attempts: int = 0
    cancelling: bool = False
    epoch: int | None = None
    max_epochs: int | None = None
    val_acc: float | None = None
    model_name: str | None = None
    version: int | None = None
    reused: bool = False
    promotion: Mapping[str, Any] | None = None
    error: Mapping[str, str] | None = None
    request_digest: str | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDED

    def document(self) -> dict[str, Any]:
        """The job as every door shows it."""
        return document(
            {
                "job_id": self.job_id,
                "state": self.state,
                "submitted_at": self.submitted_at,
                "started_at": self.started_at,
                "ended_at": self.ended_at,
                "attempts": self.attempts,
                "cancelling": self.cancelling and not self.ended,
                "progress": {
                    "epoch": self.epoch,
                    "max_epochs": self.max_epochs,
                    "val_acc": self.val_acc,
                },
                "model_name": self.model_name,
                "version": self.version,
                "reused": self.reused,
                "promotion": None if self.promotion is None else dict(self.promotion),
                "error": None if self.error is None else dict(self.error),
            }
        )

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Job:
        """Read a row; its further columns are of no interest here."""
        values = {name: row[name] for name in cls.__dataclass_fields__}
        for name in ("promotion", "error"):
            values[name] = None if values[name] is None else json.loads(values[name])
        flags = {name: bool(values[name]) for name in ("cancelling", "reused")}
        return cls(**{**values, **flags})


@dataclass(frozen=True)
class Event:
    """Something that happened to a job.

    Attributes:
        id: 1 for its first; dense.
        name: `state`, `epoch` or `end`.
        data: JSON.
    """

    id: int
    name: str
    data: str


def new_job_id() -> str:
    """An id that sorts by time and that nobody guesses: `20250131T235959123456-0a1b2c3d`."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}"


def is_job_id(text: str) -> bool:
    """Whether `text` can be a job's id; asked before it becomes part of a path."""
    return _ID.fullmatch(text) is not None


def is_key(text: str) -> bool:
    """Whether `text` can be a client's key for a job, at every door."""
    return _KEY.fullmatch(text) is not None


def now() -> str:
    """This moment, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
