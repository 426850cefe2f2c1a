"""Floor 8: what becomes of a version after its training: `[jobs] promote` of who asked for it.

In: a job that registered a version. Out: whether that version is champion now, and what
the gate said. `mindtrace registry promote` does it, in a process aside, if the history of
champions is still at the revision that we looked at before we made sure of our hold on the
job. So of a worker that was thought dead and its heir one decides; and what a dead one
decided stands in the history, under the job's name.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from mindtrace.config.settings import Settings
from mindtrace.jobs import child
from mindtrace.jobs.child import Ended
from mindtrace.jobs.hold import Hold
from mindtrace.jobs.supervise import CONFIG, Outcome, Workplace, patiently, prepared

NEVER, ALWAYS = "never", "always"
_LIMIT = 300.0  # seconds for one look or one decision
_TRIES = 5  # where others change the champion meanwhile
_ENTRIES = 200  # of the history, in which an earlier decision of ours would be
log = logging.getLogger("mindtrace.jobs")


def promote(settings: Settings, work: Workplace, hold: Hold, outcome: Outcome) -> Outcome | None:
    """Decide about a version; blocks for seconds.

    Returns:
        `promoted`, `verdict` and `message`; None where `[jobs] promote` is never, or the
        version is no new one.
    """
    policy = hold.request.promote or settings.jobs.promote
    if policy == NEVER or outcome.get("version") is None or outcome.get("reused"):
        return None
    name, version = str(outcome["model_name"]), int(outcome["version"])
    try:
        for _ in range(_TRIES):
            found, ended = _tried(policy, work, hold, name, version)
            if (ended.error or {}).get("type") != "ConflictError":
                break
    except OSError as error:
        return not_promoted(error)
    if found is None:
        message = (ended.error or {}).get("message", f"promote ended with {ended.status}")
        log.warning("job %s: %s/%s was not promoted: %s", hold.job_id, name, version, message)
        found = _told(promoted=False, message=str(message))
    return found


def not_promoted(error: Exception) -> Outcome:
    """What became of a version where we ourselves failed to decide."""
    return _told(promoted=False, message=f"{type(error).__name__}: {error}")


def _tried(
    policy: str, work: Workplace, hold: Hold, name: str, version: int
) -> tuple[Outcome | None, Ended]:
    """What was decided, if it was, and how the last process ended."""
    reason = f"job {hold.job_id}"
    read = _registry(work, hold, "history", name, "--limit", str(_ENTRIES))
    if read.status != 0:
        return None, read
    history = [json.loads(line) for line in read.output.splitlines()]  # the newest first
    before = patiently(hold.promoting)
    if before is None:
        return _told(promoted=False, message="the job is another worker's"), read
    decided = _decided(history, version, reason) if before else None
    if decided is not None:
        return decided, read
    revision = history[0]["revision"] if history else 0
    ended = _registry(
        *(work, hold, "promote", f"{name}/{version}", "--reason", reason),
        *(("--force",) if policy == ALWAYS else ()),
        *("--if-revision", str(revision)),
    )
    return _chosen(ended.result), ended


def _registry(work: Workplace, hold: Hold, *words: str) -> Ended:
    folder = prepared(work, hold)
    return child.run(
        [
            *(sys.executable, "-P", "-m", "mindtrace", "registry", *words),
            *("--json", "--config", str(folder / CONFIG)),
        ],
        folder=folder,
        environ=work.environ,
        on_event=lambda _: None,
        stop=child.after(_LIMIT),
        gives_way=work.gives_way,
    )


def _decided(history: Sequence[Mapping[str, Any]], version: int, reason: str) -> Outcome | None:
    """What this job decided before; None if it did not come to that."""
    for entry in history:
        if (entry["to"], entry["reason"]) == (version, reason):
            return _told(promoted=entry["action"] != "refuse", verdict=entry["verdict"])
    return None


def _chosen(result: Mapping[str, Any] | None) -> Outcome | None:
    """What `promote` said, if it came to a verdict."""
    if result is None or "promoted" not in result:
        return None
    reasons = result.get("reasons") or [None]
    verdict = result.get("verdict")
    return _told(promoted=bool(result["promoted"]), verdict=verdict, message=reasons[0])


def _told(*, promoted: bool, verdict: str | None = None, message: str | None = None) -> Outcome:
    return {"promoted": promoted, "verdict": verdict, "message": message}
