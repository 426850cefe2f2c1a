"""Every error has its exit code, and people can read the list."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mindtrace.cli.console import EXIT_CODE_MEANINGS, EXIT_CODES, exit_code
from mindtrace.errors import (
    BundleError,
    ConfigError,
    ConflictError,
    DataError,
    DataFolderError,
    DownloadError,
    Fault,
    ImageError,
    InterruptedByUser,
    MindtraceError,
    NotFoundError,
    PortInUseError,
    QueueFullError,
    StoreError,
    TrainingError,
    UsageError,
    VerdictError,
)


def _subclasses(kind: type[MindtraceError]) -> Iterator[type[MindtraceError]]:
    for sub in kind.__subclasses__():
        if sub.__module__.startswith("mindtrace."):
            yield sub
            yield from _subclasses(sub)


def test_no_error_class_is_forgotten() -> None:
    known = {*EXIT_CODES, InterruptedByUser} - {MindtraceError}
    forgotten = [
        sub.__name__ for sub in _subclasses(MindtraceError) if known.isdisjoint(sub.__mro__)
    ]
    assert forgotten == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError([Fault("a.ini", 1, "train", "lr", "bad")]), 2),
        (UsageError("no"), 2),
        (DataFolderError(Path("x"), "missing"), 2),
        (DataError("no"), 1),
        (DownloadError("no"), 1),
        (ImageError("no"), 1),
        (BundleError("x", "torn"), 1),
        (TrainingError("no"), 1),
        (StoreError("no"), 1),
        (VerdictError("no"), 3),
        (NotFoundError("model", "x"), 4),
        (ConflictError("no"), 5),
        (PortInUseError("127.0.0.1", 8000), 5),
        (QueueFullError("full"), 5),
        (InterruptedByUser(signal.SIGINT), 130),
        (InterruptedByUser(signal.SIGTERM), 143),
        (ValueError("a bug"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_exit_code(error: Exception, code: int) -> None:
    assert exit_code(error) == code


def test_every_code_is_explained() -> None:
    explained = {int(code) for code, _ in EXIT_CODE_MEANINGS}
    assert {0, *EXIT_CODES.values(), 130, 143} == explained
