"""After a training: promotes its version as the `[jobs] promote` of whoever asked for the job says.

`mindtrace registry promote` does it in a child, and only if the history of champions is still at
the revision that we read before we checked our claim. So of a worker that was thought dead and
its successor only one decides; the history keeps the decision with the job's id as its reason.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from mindtrace.jobs import process
from mindtrace.jobs.attempt import CONFIG, Attempt, Outcome
from mindtrace.system import ChildResult, own_command

_LIMIT = 300.0  # seconds for reading or deciding
_TRIES = 5  # where others change the champion meanwhile
_ENTRIES = 200  # of the history, in which an earlier decision of ours would be
log = logging.getLogger("mindtrace.jobs")


def promote(attempt: Attempt, outcome: Outcome, policy: str) -> Outcome | None:
    """Decide about a version, or None: `policy` is never, or it is no new version. OSError."""
    policy = attempt.request.promote or policy
    if policy == "never" or outcome.get("version") is None or outcome.get("reused"):
        return None
    for _ in range(_TRIES):
        decision, ended = _decide(policy, attempt, outcome)
        if ended.error.get("type") != "ConflictError":
            break
    if decision is not None:
        return {"promoted": False, "verdict": None, "message": None, **decision}
    message = str(ended.error.get("message", f"promote ended with {ended.status}"))
    log.warning("job %s: version not promoted: %s", attempt.job.job_id, message)
    return {"promoted": False, "verdict": None, "message": message}


def _decide(
    policy: str, attempt: Attempt, outcome: Outcome
) -> tuple[Mapping[str, Any] | None, ChildResult]:
    """The decision, if there is one, and how the last child ended."""
    name, version, reason = outcome["model_name"], outcome["version"], f"job {attempt.job.job_id}"
    read = _registry(attempt, "history", name, "--limit", str(_ENTRIES))
    if read.status != 0:
        return None, read
    attempt.save()  # raises in a worker that lost the job
    history = [json.loads(line) for line in read.stdout.splitlines()]  # the newest first
    for entry in history:
        if (entry["to"], entry["reason"]) == (version, reason):  # a dead worker's decision
            return {"promoted": entry["action"] != "refuse", "verdict": entry["verdict"]}, read
    revision = history[0]["revision"] if history else 0
    ended = _registry(
        *(attempt, "promote", f"{name}/{version}", "--reason", reason),
        *(("--force",) if policy == "always" else ()),
        *("--if-revision", str(revision)),
    )
    result = ended.document
    if "promoted" not in result:
        return None, ended
    message = (result.get("reasons") or [None])[0]
    decided = {"promoted": bool(result["promoted"]), "verdict": result.get("verdict")}
    return {**decided, "message": message}, ended


def _registry(attempt: Attempt, *words: str) -> ChildResult:
    folder = attempt.prepared()
    return process.run(
        own_command("registry", *words, "--json", "--config", str(folder / CONFIG)),
        folder=folder,
        environ=attempt.work.environ,
        limit=_LIMIT,
        gives_way=attempt.work.gives_way,
    )
