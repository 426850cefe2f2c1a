"""Changes to the registry for a process that must stay small: a child makes them.

In: the words of a `mindtrace registry` verb. Out: the document it printed. MLflow costs a
second and 150 MB to import, so a server never does; the command does, and ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mindtrace.config.settings import Settings
from mindtrace.errors import QueueFullError, StoreError

LIMIT = 60.0  # seconds: a store that is away must not hold a request for ever
_PATIENCE = 5.0  # seconds, to wait for one's turn

# Several at once would each import MLflow, for changes of which one wins.
_turn = threading.Lock()


@dataclass(frozen=True)
class Answered:
    """How a verb ended.

    Attributes:
        document: what it printed, empty for nothing.
        error: the class of its error by name, or None.
        message: of the error.
        hint: of the error.
    """

    document: Mapping[str, Any]
    error: str | None = None
    message: str = ""
    hint: str | None = None


def change(settings: Settings, verb: str, words: Sequence[str]) -> Answered:
    """Run `mindtrace registry VERB WORDS` in a process aside; blocks.

    Args:
        settings: whose registry and folders the child uses.
        verb: `promote` or `rollback`.
        words: its arguments.

    Raises:
        QueueFullError: others change the registry already.
        StoreError: the child did not end in time.
    """
    from mindtrace.jobs.process import listed_environment

    # In the environment and not in the command line: a URI may hold a password.
    ours = {
        "DIR_PATHS__ROOT": str(settings.dirs.root),
        "REGISTRY__TRACKING_URI": settings.registry.tracking_uri,
    }
    if not _turn.acquire(timeout=_PATIENCE):
        raise QueueFullError("the registry is being changed already", hint="repeat in a moment")
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "mindtrace", "registry", verb, "--json", *words],
            env=listed_environment(os.environ, ours),
            cwd=settings.dirs.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StoreError(f"registry: {verb} did not end within {LIMIT:.0f} s") from error
    finally:
        _turn.release()
    document = _last_object(done.stdout)
    if done.returncode == 0:
        return Answered(document)
    told = _last_object(done.stderr).get("error") or {}
    return Answered(
        document,
        error=str(told.get("type", "MindtraceError")),
        message=str(told.get("message", f"{verb} ended with code {done.returncode}")),
        hint=told.get("hint"),
    )


def _last_object(output: bytes) -> dict[str, Any]:
    last = output.strip().rpartition(b"\n")[2]
    try:
        found = json.loads(last) if last.startswith(b"{") else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
