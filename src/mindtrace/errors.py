"""Every error that mindtrace raises on purpose.

    MindtraceError
    ├── ConfigError            faults in an INI, the environment, --set or an option
    ├── UsageError             a call that does not make sense as it was given
    ├── DataError              the images cannot be used
    │   ├── DataFolderError    `[data] dir`: missing, empty, a class without images
    │   ├── DownloadError      a source could not be fetched whole
    │   └── ImageError         not an image, truncated, too large
    ├── NotFoundError          a model, version, alias or job that does not exist
    ├── BundleError            a model bundle that is damaged or too new
    ├── TrainingError          a training that could not go on
    ├── StoreError             the registry's store: unreachable, read-only, unknown schema
    ├── ConflictError          another process holds it
    │   ├── PortInUseError     the address to serve at
    │   └── QueueFullError     the queue of jobs
    ├── VerdictError           the answer is no: gate, verify, leakage
    └── InterruptedByUser      SIGINT, SIGTERM or SIGHUP, after cleaning up

Programs read an error's attributes, people its text and `hint`. `cli/console.py` has the
exit codes, `application/problems.py` the HTTP statuses.
"""

import difflib
import errno
import shutil
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like `name`, or None if none comes near."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def meant(name: str, known: Iterable[str], form: str = "'{}'", otherwise: str = "") -> str:
    """`, did you mean 'lr'?` for a message; `otherwise` where no known name comes near."""
    close = nearest(name, known)
    return f", did you mean {form.format(close)}?" if close else otherwise


def listed(names: Sequence[str], limit: int = 8) -> str:
    """Names for one line of text: `a, b, c`, shortened after `limit`; `none` if empty."""
    if not names:
        return "none"
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


class MindtraceError(Exception):
    """Base of all. `str(error)` is one line; `hint` is what to type next, or None."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True)
class Fault:
    """One thing wrong in a configuration; `line` is None where a layer has no lines."""

    file: str
    line: int | None
    section: str | None
    key: str | None
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.message}"


class ConfigError(MindtraceError):
    """All faults of a configuration at once, one a line."""

    def __init__(self, faults: Sequence[Fault], *, hint: str | None = None) -> None:
        super().__init__("\n".join(str(fault) for fault in faults), hint=hint)
        self.faults = tuple(faults)


class UsageError(MindtraceError):
    """A call that does not make sense as it was given."""


class DataError(MindtraceError):
    """The images cannot be used."""


class DataFolderError(DataError):
    """`[data] dir` does not hold what a folder of classes must hold."""

    def __init__(self, folder: Path, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"[data] dir = {folder}: {reason}", hint=hint)
        self.folder = folder
        self.reason = reason


class DownloadError(DataError):
    """A file of a source, or of weights, cannot be had whole; nothing partial was kept."""


class ImageError(DataError):
    """Bytes that are not an image we read, or one that is broken or too large."""


# The command that lists what exists, by the kind of thing.
_LISTS = dict.fromkeys(("model", "version", "alias"), "mindtrace registry list")
_LISTS["job"] = "mindtrace jobs list"


class NotFoundError(MindtraceError):
    """Something that does not exist; `known` is what does, `name` None leaves a choice."""

    def __init__(
        self, kind: str, name: str | None, known: Sequence[str] = (), *, hint: str | None = None
    ) -> None:
        if name is None:
            message = f"which {kind}? there are: {listed(known)}"
        else:
            suggestion = meant(name, known, otherwise=";")
            message = f"no {kind} '{name}'{suggestion} there are: {listed(known)}"
        super().__init__(message, hint=hint or _LISTS.get(kind))
        self.kind = kind
        self.name = name
        self.known = tuple(known)


class BundleError(MindtraceError):
    """A model bundle that is damaged, incomplete or of a format we do not know."""

    def __init__(self, folder: Path | str, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"bundle {folder}: {reason}", hint=hint)
        self.folder = folder
        self.reason = reason


class TrainingError(MindtraceError):
    """A training that could not go on."""


class StoreError(MindtraceError):
    """The registry's store is unreachable, read-only or of a schema we do not know."""


class ConflictError(MindtraceError):
    """Another process holds it, or was quicker."""


class PortInUseError(ConflictError):
    """The address to serve at is taken."""

    def __init__(self, host: str, port: int) -> None:
        message = f"cannot listen on {host}:{port}: the port is in use"
        super().__init__(message, hint=f"mindtrace serve --port {port + 1}")
        self.host = host
        self.port = port


class QueueFullError(ConflictError):
    """The queue of jobs is full."""


class VerdictError(MindtraceError):
    """The question was answered, and the answer is no."""


def hint_if_full(error: BaseException, folder: Path | None = None) -> str | None:
    """What to do if this error says that a disk, that of `folder`, is full, else None."""
    text, number = str(error), getattr(error, "errno", None)
    full = number in (errno.ENOSPC, errno.EDQUOT) or "disk is full" in text
    if "disk I/O error" in text and folder is not None:  # SQLite's word for more than this
        full = shutil.disk_usage(folder).free < 2**16
    hint = "mindtrace registry gc --keep 5 --dry-run  # shows what could go, to free some space"
    return hint if full else None


def of_system(error: OSError) -> MindtraceError:
    """What the operating system refused, for people."""
    hint = hint_if_full(error) or "mindtrace doctor  # shows whether ROOT can be written"
    return MindtraceError(f"{error.filename or 'system'}: {error.strerror}", hint=hint)


class InterruptedByUser(MindtraceError):  # noqa: N818 - it is not a fault
    """SIGINT, SIGTERM or SIGHUP arrived; what was open has been cleaned up."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum
