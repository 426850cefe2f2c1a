"""What becomes of a version after its training: `[jobs] promote` of who asked for the job.

`mindtrace registry promote` does it, in a child, if the history of champions is still at the
revision that we read before we made sure of our claim. So of a worker that was thought dead
and its heir one decides; what a dead one decided stands in the history, with the job's id.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mindtrace.jobs import process
from mindtrace.jobs.attempt import CONFIG, Attempt, Outcome
from mindtrace.jobs.process import Ended
from mindtrace.system import own_command

NEVER, ALWAYS = "never", "always"
_LIMIT = 300.0  # seconds for one look or one decision
_TRIES = 5  # where others change the champion meanwhile
_ENTRIES = 200  # of the history, in which an earlier decision of ours would be
log = logging.getLogger("mindtrace.jobs")


def promote(attempt: Attempt, outcome: Outcome, policy: str) -> Outcome | None:
    """Decide about a version; blocks for seconds.

    Returns `promoted`, `verdict` and `message`; None where `policy` is never, or the version is
    no new one. Who asked for the job has the say before `policy`.
    """
    policy = attempt.request.promote or policy
    if policy == NEVER or outcome.get("version") is None or outcome.get("reused"):
        return None
    name, version = str(outcome["model_name"]), int(outcome["version"])
    try:
        for _ in range(_TRIES):
            found, ended = _try(policy, attempt, name, version)
            if (ended.error or {}).get("type") != "ConflictError":
                break
    except OSError as error:
        return not_promoted(error)
    if found is None:
        message = (ended.error or {}).get("message", f"promote ended with {ended.status}")
        log.warning("job %s: %s/%s: not promoted: %s", attempt.job.job_id, name, version, message)
        found = _result(promoted=False, message=str(message))
    return found


def not_promoted(error: Exception) -> Outcome:
    """What became of a version where we ourselves failed to decide."""
    return _result(promoted=False, message=f"{type(error).__name__}: {error}")


def _try(policy: str, attempt: Attempt, name: str, version: int) -> tuple[Outcome | None, Ended]:
    """What was decided, if it was, and how the last child ended."""
    reason = f"job {attempt.job.job_id}"
    read = _registry(attempt, "history", name, "--limit", str(_ENTRIES))
    if read.status != 0:
        return None, read
    history = [json.loads(line) for line in read.output.splitlines()]  # the newest first
    before = attempt.job.promoting
    attempt.save(promoting=True)  # raises in who lost the job
    decided = _decided(history, version, reason) if before else None
    if decided is not None:
        return decided, read
    revision = history[0]["revision"] if history else 0
    ended = _registry(
        *(attempt, "promote", f"{name}/{version}", "--reason", reason),
        *(("--force",) if policy == ALWAYS else ()),
        *("--if-revision", str(revision)),
    )
    return _chosen(ended.result), ended


def _registry(attempt: Attempt, *words: str) -> Ended:
    folder = attempt.prepared()
    return process.run(
        own_command("registry", *words, "--json", "--config", str(folder / CONFIG)),
        folder=folder,
        environ=attempt.work.environ,
        limit=_LIMIT,
        gives_way=attempt.work.gives_way,
    )


def _decided(history: Sequence[Mapping[str, Any]], version: int, reason: str) -> Outcome | None:
    """What this job decided before; None if it did not come to that."""
    for entry in history:
        if (entry["to"], entry["reason"]) == (version, reason):
            return _result(promoted=entry["action"] != "refuse", verdict=entry["verdict"])
    return None


def _chosen(result: Mapping[str, Any] | None) -> Outcome | None:
    """What `promote` answered, if it came to a verdict."""
    if result is None or "promoted" not in result:
        return None
    reasons = result.get("reasons") or [None]
    verdict = result.get("verdict")
    return _result(promoted=bool(result["promoted"]), verdict=verdict, message=reasons[0])


def _result(*, promoted: bool, verdict: str | None = None, message: str | None = None) -> Outcome:
    return {"promoted": promoted, "verdict": verdict, "message": message}
