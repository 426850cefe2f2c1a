"""`mindtrace train` and `mindtrace reproduce`."""

import math
import shlex
from collections.abc import Mapping
from typing import Any

from mindtrace import registry, service
from mindtrace.cli.command import ALLOW_LEAKAGE, PATH, REF_OR_CHAMPION, Call, flag, option, setting
from mindtrace.cli.completion import models, networks, sources
from mindtrace.cli.console import Cell, Console, Pair, flatten
from mindtrace.cli.progress import progress_of
from mindtrace.config.sections import PHOTO_SOURCES, images_at
from mindtrace.documents import document
from mindtrace.errors import UsageError

_DIGEST_SHOWN = 12  # characters, on a terminal
_REPRODUCED = (
    *("model_name", "version", "verdict", "registered_digest", "weights_digest"),
    *("max_difference", "changed_answers"),
)
_WEAKEST = 3  # classes shown without -v; the report has all of them


def train(
    call: Call,
    path: str | None = PATH,
    source: str | None = setting(
        "NAME", "data.source", "Images: mnist, digits, folder, ...", sources
    ),
    folder: str | None = setting("PATH", "data.dir", "The same as PATH", None, "--dir"),
    model: str | None = setting(
        "NAME", "model.name", "Network: mlp, cnn, or one of timm's", networks
    ),
    max_epochs: str | None = setting("INT", "train.max_epochs", "Passes over the training images"),
    lr: str | None = setting("FLOAT", "train.lr", "Learning rate"),
    batch_size: str | None = setting("INT", "data.batch_size", "Images in one step"),
    seed: str | None = setting("INT", "train.seed", "Seed of weights and order, not of the split"),
    device: str | None = setting(
        "NAME", "compute.device", "Where to compute: auto, cpu, cuda, mps"
    ),
    model_name: str | None = setting(
        "NAME", "registry.model_name", "Name to register under; the default is the images'", models
    ),
    name: str | None = option(
        "TEXT", "Name of the run in MLflow; the default says model, network and seed."
    ),
    dry_run: bool = flag("--dry-run", "Check everything, train nothing."),
    allow_leakage: bool = ALLOW_LEAKAGE,
    no_register: bool = flag("--no-register", "Train and test, register no version."),
    resume: str | None = option(
        "RUN", "Continue an interrupted training, as it was begun: last, or a run id."
    ),
    job_id: str | None = option(None, "Run as this job.", hidden=True),
    attempt: int = option(None, "The attempt of the job.", default=0, hidden=True),
    parent: str | None = option(None, "The version this starts from.", hidden=True),
    warm_start: bool = flag("--warm-start", "Start with the parent's weights.", hidden=True),
    force: bool = flag("--force", "Train even what was trained before.", hidden=True),
) -> None:
    """Train a classifier and register it as a version.

    The best weights by the monitored metric are tested and registered; the first version
    of a name becomes its champion. With a PATH a pretrained network is the default.
    """
    if job_id is not None:
        from mindtrace.jobs.process import die, when_parent_ends

        when_parent_ends(die)
    if name is not None and resume is not None:
        raise UsageError("--name is for a new run", hint=f"mindtrace train --resume {resume}")
    other = f"--source {source}" if source not in (None, *PHOTO_SOURCES) else None
    other = other if folder is None else f"--dir {folder}"
    if path is not None and other is not None:
        hint = f"mindtrace train {shlex.quote(path)}"
        raise UsageError(f"both {path} and {other} name images", hint=hint)
    images = images_at(folder if path is None else path)
    options = {
        **images,
        "data.source": source or images.get("data.source"),
        "data.batch_size": batch_size,
        "model.name": model,
        "train.max_epochs": max_epochs,
        "train.lr": lr,
        "train.seed": seed,
        "compute.device": device,
        "registry.model_name": model_name,
    }
    settings = call.settings(options)
    service.train.prepare_process(settings)
    if dry_run:
        with progress_of(call.console) as progress:
            planned = service.train.plan(
                settings, progress=progress, resume=resume, allow_leakage=allow_leakage
            )
        _show(call.console, document(planned))
        return
    guard = None
    if job_id is not None:
        from mindtrace.jobs.queue import RegistrationGuard

        guard = RegistrationGuard(job_id, attempt, force, service.jobs.queue(settings))
    with progress_of(call.console) as progress:
        outcome = service.train.train(
            settings,
            progress=progress,
            register=not no_register,
            guard=guard,
            parent=parent,
            warm_start=warm_start,
            resume=resume,
            allow_leakage=allow_leakage,
            run_name=name,
        )
    fields = document(outcome)
    if guard is not None and outcome.version is not None and not outcome.reused:
        decide, name = service.promotion.promote_for_job, outcome.model_name
        fields["promotion"] = decide(settings, name, outcome.version, guard)
    _show(call.console, fields)
    if not no_register:
        reference = f"{outcome.model_name}/{outcome.version}"
        call.console.next_step(f"mindtrace predict IMAGE --model {reference}")


def reproduce(
    call: Call,
    ref: str | None = REF_OR_CHAMPION,
    tolerance: float = option(
        "T", "Largest difference of a probability for NUMERIC.", default=0.01
    ),
) -> None:
    """Train a version again and compare the weights.

    EXACT: the same weights. NUMERIC: the same probabilities within the tolerance. DIVERGED:
    another model, exit 3. Lists what differs here; registers nothing.
    """
    settings = call.reading(ref)
    service.train.prepare_process(settings)
    train_again = registry.reproduce.reproduce
    with progress_of(call.console) as progress:
        outcome = train_again(settings, ref, tolerance=tolerance, progress=progress)
    pairs: list[Pair] = [(name, getattr(outcome, name)) for name in _REPRODUCED]
    for one in outcome.differences:
        pairs.append((f"different.{one.what}", f"{one.registered} -> {one.here}"))
    pairs += outcome.metrics.items()
    call.console.result(outcome, pairs, quiet=outcome.verdict)
    outcome.require_reproduced()


def _show(console: Console, fields: Mapping[str, Any]) -> None:
    version = fields.get("version")
    named = {name: value for name, value in fields.items() if name != "classes"}
    pairs = flatten(named, unprefixed="metrics")
    if console.terminal:
        pairs = [(name, _shortened(name, value)) for name, value in pairs if value is not None]
    reference = None if version is None else f"{fields['model_name']}/{version}"
    console.result(fields, pairs, quiet=reference)
    if console.terminal and fields.get("classes") and not (console.quiet and reference):
        weakest = sorted(fields["classes"], key=_recall)
        shown = weakest if console.verbose else weakest[:_WEAKEST]
        console.table([*shown[0]], [[*row.values()] for row in shown])


def _recall(score: Mapping[str, Any]) -> float:
    """By which classes are ordered: one without test images comes last."""
    return 1.0 if score["recall"] is None else float(score["recall"])


def _shortened(name: str, value: Cell) -> Cell:
    if name.endswith("_digest"):
        return str(value)[:_DIGEST_SHOWN]
    if isinstance(value, float) and math.isfinite(value) and name.endswith("_s"):
        return f"{value:.1f} s"
    return value
