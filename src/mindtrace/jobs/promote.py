"""Floor 8: what becomes of a version after its training: `[jobs] promote`.

In: a job that registered a version. Out: whether that version is champion now, and what
the gate said. `mindtrace registry promote` does it, in a process aside. A worker that died
over it leaves its mark in the history of champions, so that nothing is decided twice.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Mapping
from typing import Any

from mindtrace.core.settings import Settings
from mindtrace.errors import MindtraceError
from mindtrace.jobs import child
from mindtrace.jobs.hold import Hold
from mindtrace.jobs.supervise import CONFIG, Outcome, Workplace, patiently, prepared

NEVER, ALWAYS = "never", "always"
log = logging.getLogger("mindtrace.jobs")


def promote(settings: Settings, work: Workplace, hold: Hold, outcome: Outcome) -> Outcome | None:
    """Decide about a version; blocks for seconds.

    Returns:
        `promoted`, `verdict` and `message`; None where `[jobs] promote` is never, or the
        version is no new one.
    """
    policy = settings.jobs.promote
    if policy == NEVER or outcome.get("version") is None or outcome.get("reused"):
        return None
    name, version = str(outcome["model_name"]), int(outcome["version"])
    reason = f"job {hold.job_id}"
    if patiently(hold.promoting):
        decided = _decided(settings, name, version, reason)
        if decided is not None:
            return decided
    force = ("--force",) if policy == ALWAYS else ()
    folder = prepared(work, hold)
    command = [
        *(sys.executable, "-P", "-m", "mindtrace", "registry", "promote", f"{name}/{version}"),
        *("--json", "--reason", reason, *force, "--config", str(folder / CONFIG)),
    ]
    try:
        ended = child.run(
            command,
            folder=folder,
            environ=work.environ,
            on_event=lambda _: None,
            stop=lambda: False,
        )
    except OSError as error:
        return _told(promoted=False, message=f"{type(error).__name__}: {error}")
    if ended.result is not None and "promoted" in ended.result:
        return _told(**_chosen(ended.result))
    message = (ended.error or {}).get("message", f"promote ended with status {ended.status}")
    log.warning("job %s: %s/%s was not promoted: %s", hold.job_id, name, version, message)
    return _told(promoted=False, message=str(message))


def _decided(settings: Settings, name: str, version: int, reason: str) -> Outcome | None:
    """What the history says that this job decided; None if it did not come to that."""
    from mindtrace.registry.history import REFUSE, History
    from mindtrace.registry.lookup import open_reader

    try:
        reader = open_reader(settings)
        entries = History(functools.partial(reader.log, name)).read()
    except MindtraceError as error:
        log.warning("%s", error.message)
        return None
    for entry in entries:
        if (entry.to, entry.reason) == (version, reason):
            return _told(promoted=entry.action != REFUSE, verdict=entry.verdict)
    return None


def _chosen(result: Mapping[str, Any]) -> dict[str, Any]:
    reasons = result.get("reasons") or [None]
    return {
        "promoted": bool(result["promoted"]),
        "verdict": result.get("verdict"),
        "message": reasons[0],
    }


def _told(*, promoted: bool, verdict: str | None = None, message: str | None = None) -> Outcome:
    return {"promoted": promoted, "verdict": verdict, "message": message}
