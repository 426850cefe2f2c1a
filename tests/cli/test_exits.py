"""Every error has its exit code, and people can read the list."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mindtrace import errors
from mindtrace.cli.console import EXIT_CODE_MEANINGS, EXIT_CODES, exit_code
from mindtrace.errors import InterruptedByUser, MindtraceError


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
        (errors.ConfigError([]), 2),
        (errors.UsageError("no"), 2),
        (errors.DataFolderError(Path("x"), "missing"), 2),
        (errors.DataError("no"), 1),
        (errors.DownloadError("no"), 1),
        (errors.ImageError("no"), 1),
        (errors.BundleError("x", "torn"), 1),
        (errors.TrainingError("no"), 1),
        (errors.StoreError("no"), 1),
        (errors.VerdictError("no"), 3),
        (errors.NotFoundError("model", "x"), 4),
        (errors.ConflictError("no"), 5),
        (errors.PortInUseError("127.0.0.1", 8000), 5),
        (errors.QueueFullError("full"), 5),
        (InterruptedByUser(signal.SIGINT), 130),
        (InterruptedByUser(signal.SIGTERM), 143),
        (InterruptedByUser(signal.SIGHUP), 129),
        (ValueError("a bug"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_exit_code(error: Exception, code: int) -> None:
    assert exit_code(error) == code


def test_every_code_is_explained() -> None:
    explained = {int(code) for code, _ in EXIT_CODE_MEANINGS}
    assert {0, *EXIT_CODES.values(), 129, 130, 143} == explained
