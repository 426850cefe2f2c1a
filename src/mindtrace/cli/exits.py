"""The command line's exit codes: an error comes in, the one number that a script sees goes out.

The numbers are part of the contract: scripts branch on them, `--help` prints them.
"""

from __future__ import annotations

import signal

from mindtrace.errors import (
    BundleError,
    ConfigError,
    ConflictError,
    DataError,
    DataFolderError,
    InterruptedByUser,
    MindtraceError,
    NotFoundError,
    StoreError,
    TrainingError,
    UsageError,
    VerdictError,
)

DONE = 0
FAILED = 1
USAGE = 2
VERDICT_NO = 3
NOT_FOUND = 4
CONFLICT = 5
BROKEN_PIPE = 128 + signal.SIGPIPE
_SIGNAL_BASE = 128

MEANINGS: tuple[tuple[str, str], ...] = (
    ("0", "done"),
    ("1", "failed: an image that could not be predicted, a bad bundle, a crash"),
    ("2", "usage or configuration: an option, the INI, data.dir"),
    ("3", "the verdict is no: HOLD, REJECT, DIVERGED, verify, a job cancelled"),
    ("4", "not found: a model, version, alias or job"),
    ("5", "busy or conflict: a port, a full queue, somebody was quicker"),
    ("130", "stopped by SIGINT (Ctrl-C)"),
    ("143", "stopped by SIGTERM"),
)

EXIT_CODES: dict[type[MindtraceError], int] = {
    MindtraceError: FAILED,
    ConfigError: USAGE,
    UsageError: USAGE,
    DataError: FAILED,
    DataFolderError: USAGE,
    NotFoundError: NOT_FOUND,
    BundleError: FAILED,
    TrainingError: FAILED,
    StoreError: FAILED,
    ConflictError: CONFLICT,
    VerdictError: VERDICT_NO,
}


def exit_code(error: BaseException) -> int:
    """The number to leave with after `error`: that of its nearest class in the table."""
    if isinstance(error, InterruptedByUser):
        return _SIGNAL_BASE + error.signum
    for kind in type(error).__mro__:
        if issubclass(kind, MindtraceError) and kind in EXIT_CODES:
            return EXIT_CODES[kind]
    return FAILED


def epilog() -> str:
    """The table as the text under the root's `--help`, one code a line."""
    return "Exit codes:\n" + "\n".join(f"{code:>5}  {text}" for code, text in MEANINGS)
