"""Floor 9: from a client's wishes to a job that trains.

In: what a client sets, perhaps a version to start from, and the settings of the server.
Out: a `Job`, or every fault of the wishes at once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mindtrace.config.settings import Settings
from mindtrace.errors import UsageError
from mindtrace.service.jobs import queue, runner
from mindtrace.service.overlay import SECTIONS, STARTS, Overlay, laid_over

if TYPE_CHECKING:
    from mindtrace.jobs.job import Job, Request

__all__ = ["Order", "Overlay", "check", "job_settings", "queue", "runner", "submit"]


@dataclass(frozen=True)
class Order:
    """What a client asks for.

    Attributes:
        overlay: the keys that it sets.
        base: a version whose configuration is to be laid over the server's own, or None.
        warm_start: begin with that version's weights.
        force: train even if the same was trained before.
    """

    overlay: Overlay = field(default_factory=Overlay)
    base: str | None = None
    warm_start: bool = False
    force: bool = False

    def digest(self) -> str:
        """SHA-256 of all of it, 64 hexadecimal digits."""
        words = [self.overlay.digest(), self.base, self.warm_start, self.force]
        return hashlib.sha256(json.dumps(words).encode()).hexdigest()


def check(settings: Settings, order: Order) -> None:
    """Find what is wrong with an order, and submit nothing.

    Raises:
        MindtraceError: what `submit` raises, but for the queue.
    """
    _request(settings, order)


def submit(settings: Settings, order: Order, *, idempotency_key: str | None = None) -> Job:
    """Put a retraining into the queue.

    Args:
        settings: of the server.
        order: what the client asks for.
        idempotency_key: the same key and order give the same job.

    Raises:
        ConfigError: every fault of the overlay.
        NotFoundError: no such base.
        UsageError: the base is no registered version; the key was used with another order.
        BundleError: the base is not what was registered.
        QueueFullError: enough jobs wait.
        StoreError: the database of jobs, or the registry, is away.
    """
    ours, asked = queue(settings), order.digest()
    if idempotency_key is None:
        return ours.submit(_request(settings, order), request_digest=asked)
    key = hashlib.sha256(idempotency_key.encode()).hexdigest()
    # Looked up before anything else: what it starts from may be gone since it was accepted.
    job = ours.submitted(asked, key)
    if job is not None:
        return job
    return ours.submit(_request(settings, order), request_digest=asked, key_digest=key)


def job_settings(settings: Settings, order: Order) -> Settings:
    """The settings of a job: the server's own, the base's over them, then the client's.

    Raises:
        MindtraceError: see `submit`.
    """
    return _merged(settings, order)[0]


def _request(settings: Settings, order: Order) -> Request:
    from mindtrace.jobs.job import Request

    merged, parent = _merged(settings, order)
    return Request(
        merged.to_ini(SECTIONS), parent, order.warm_start, order.force, settings.jobs.promote
    )


def _merged(settings: Settings, order: Order) -> tuple[Settings, str | None]:
    if order.base is None:
        if order.warm_start:
            raise UsageError("warm_start needs a base", hint='{"base": "NAME", "warm_start": true}')
        return laid_over(settings, order.overlay), None
    based, parent = _based(settings, order.base)
    return laid_over(based, order.overlay), parent


def _based(settings: Settings, base: str) -> tuple[Settings, str]:
    """The settings with a version's configuration over them, and which version that is."""
    from mindtrace.bundle import manifest
    from mindtrace.registry.reference import locate, parse_reference
    from mindtrace.service.compare import settings_of

    if parse_reference(base).folder is not None:
        raise UsageError("base must be a registered version", hint="NAME, NAME@ALIAS, NAME/VERSION")
    located = locate(settings, base)
    assert located.row is not None, "only a folder has none"
    name = located.row.name
    config = manifest.check_one(located.folder, "config.ini", located.digest)
    made = settings_of(settings, config.decode())
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
