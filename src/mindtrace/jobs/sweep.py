"""Floor 8: what ended jobs left in MLflow, looked up and closed by a process aside.

In: jobs and how they ended. Out: none of their runs says RUNNING any more, and which
version each registered, perhaps without having lived to tell. MLflow takes a second and
150 MB to import, so a worker has this done by a child: `python -m mindtrace.jobs.sweep`.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mindtrace.errors import MindtraceError
from mindtrace.jobs import child
from mindtrace.jobs.job import CANCELLED

_LIMIT = 120.0  # seconds
log = logging.getLogger("mindtrace.jobs")

Versions = dict[str, dict[str, Any]]


def sweep(environ: Mapping[str, str], folder: Path, ended: Mapping[str, str]) -> Versions | None:
    """Close what runs of these jobs are open; blocks for seconds.

    Args:
        environ: names the store and ROOT, as for a training.
        folder: to work in.
        ended: the state of each job by its id.

    Returns:
        `model_name` and `version` of what each job registered, by its id, if it did; None
        if the store could not be asked, and should be asked again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-P", "-m", "mindtrace.jobs.sweep", json.dumps(dict(ended))]
    try:
        done = child.run(
            command,
            folder=folder,
            environ=environ,
            on_event=lambda _: None,
            stop=child.after(_LIMIT),
        )
    except OSError as error:
        log.warning("open runs could not be closed: %s", error)
        return None
    if done.status != 0 or done.result is None:
        reason = (done.error or {}).get("message", f"status {done.status}")
        log.warning("open runs could not be closed: %s", reason)
        return None
    found: Versions = dict(done.result["versions"])
    return found


def look(ended: Mapping[str, str]) -> Versions:
    """Do it, in this process.

    Raises:
        StoreError: the store is away.
    """
    from mindtrace.config.settings import load_settings
    from mindtrace.registry import earlier
    from mindtrace.registry.store import Store

    settings = load_settings()
    store = Store(settings.registry.tracking_uri, settings.dirs.root)
    found: Versions = {}
    for job_id, state in ended.items():
        version = earlier.of_job(store, None, job_id)
        if version is not None:
            name, number = version.published.model_name, version.published.version
            found[job_id] = {"model_name": name, "version": number}
        earlier.close_runs(store, job_id, "KILLED" if state == CANCELLED else "FAILED")
    return found


def _main() -> int:
    try:
        found = look(json.loads(sys.argv[1]))
    except MindtraceError as error:
        sys.stderr.write(json.dumps({"error": {"message": error.message}}) + "\n")
        return 1
    sys.stdout.write(json.dumps({"versions": found}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
