"""From what a client asks for to a job that trains, or to every fault of it at once."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from mindtrace.config.sections import STARTS
from mindtrace.config.settings import Settings
from mindtrace.errors import UsageError
from mindtrace.service.jobs import queue, secrets
from mindtrace.service.retrain_request import SECTIONS, RetrainRequest

if TYPE_CHECKING:
    from mindtrace.jobs.job import Job, Request


def check(settings: Settings, request: RetrainRequest) -> None:
    """Raise what `submit` would, but for the queue; submit nothing."""
    _request(settings, request)


def submit(
    settings: Settings, request: RetrainRequest, *, idempotency_key: str | None = None
) -> Job:
    """Put a retraining into the queue; the same key and request give the same job.

    Raises ConfigError with every fault of the request; NotFoundError, UsageError or BundleError
    for the base; UsageError for a key of another request; QueueFullError; StoreError.
    """
    ours, asked = queue(settings), request.digest()
    if idempotency_key is None:
        return ours.submit(_request(settings, request), request_digest=asked)
    key = hashlib.sha256(idempotency_key.encode()).hexdigest()
    # Looked up before anything else: what it starts from may be gone since it was accepted.
    job = ours.submitted(asked, key)
    if job is not None:
        return job
    return ours.submit(_request(settings, request), request_digest=asked, key_digest=key)


def job_settings(settings: Settings, request: RetrainRequest) -> Settings:
    """The settings of a job: the server's own, the base's over them, then the client's."""
    return _merged(settings, request)[0]


def _request(settings: Settings, request: RetrainRequest) -> Request:
    from mindtrace.jobs.job import Request

    merged, parent = _merged(settings, request)
    return Request(
        merged.to_ini(SECTIONS), parent, request.warm_start, request.force, settings.jobs.promote
    )


def _merged(settings: Settings, request: RetrainRequest) -> tuple[Settings, str | None]:
    if request.base is None:
        if request.warm_start:
            raise UsageError("warm_start needs a base", hint='{"base": "NAME", "warm_start": true}')
        return request.laid_over(settings, secrets(settings)), None
    based, parent = _based(settings, request.base)
    return request.laid_over(based, secrets(based)), parent


def _based(settings: Settings, base: str) -> tuple[Settings, str]:
    """The settings with a version's configuration over them, and which version that is."""
    from mindtrace.bundle import manifest
    from mindtrace.registry.reference import locate, parse_reference, settings_of_bundle

    if parse_reference(base).folder is not None:
        raise UsageError("base must be a registered version", hint="NAME, NAME@ALIAS, NAME/VERSION")
    located = locate(settings, base)
    assert located.row is not None, "only a folder has none"
    name = located.row.name
    config = manifest.check_one(located.folder, "config.ini", located.digest)
    made = settings_of_bundle(settings, config.decode())
    weights = made.model.weights
    if weights not in STARTS and not Path(weights).is_file():
        # It began with weights that only another machine has; they are not its own.
        made = made.replace(**{"model.weights": "none"})
    compute = made.compute.model_copy(update={"device": settings.compute.device})
    registry = settings.registry.model_copy(update={"model_name": name})
    based = dataclasses.replace(
        settings, data=made.data, model=made.model, train=made.train, compute=compute
    )
    return dataclasses.replace(based, registry=registry), f"{name}/{located.row.version}"
