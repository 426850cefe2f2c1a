"""A child of the worker that imports MLflow: closes runs of ended jobs, finds their versions."""

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mindtrace.errors import MindtraceError
from mindtrace.jobs import process
from mindtrace.jobs.job import State

_LIMIT = 120.0  # seconds
log = logging.getLogger("mindtrace.jobs")

Versions = dict[str, dict[str, Any]]


def reconcile_runs(
    environ: Mapping[str, str], folder: Path, ended: Mapping[str, str]
) -> Versions | None:
    """Close runs of jobs by id and state; what each registered, None if the store is away."""
    command = [sys.executable, "-P", "-m", __name__, json.dumps(dict(ended))]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        done = process.run(command, folder=folder, environ=environ, limit=_LIMIT)
    except OSError as error:
        log.warning("open runs could not be closed: %s", error)
        return None
    if done.status == 0 and done.document:
        return dict(done.document["versions"])
    reason = done.error.get("message", f"status {done.status}")
    log.warning("open runs could not be closed: %s", reason)
    return None


def _reconcile(ended: Mapping[str, str]) -> Versions:
    from mindtrace.config.settings import load_settings
    from mindtrace.registry import publish
    from mindtrace.registry.reader import open_store

    store = open_store(load_settings())
    found: Versions = {}
    for job_id, state in ended.items():
        of_job = publish.having(job_id=job_id)
        version = publish.find_registered(store, None, of_job)
        if version is not None:
            found[job_id] = {"model_name": version.name, "version": version.version}
        publish.close_runs(store, of_job, "KILLED" if state == State.CANCELLED else "FAILED")
    return found


def _main() -> int:
    try:
        found = _reconcile(json.loads(sys.argv[1]))
    except MindtraceError as error:
        sys.stderr.write(json.dumps({"error": {"message": error.message}}) + "\n")
        return 1
    sys.stdout.write(json.dumps({"versions": found}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
