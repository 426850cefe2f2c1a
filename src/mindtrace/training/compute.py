"""What `auto` means in `[compute]` for this network on this machine.

In: settings, the network's input, its classes. Out: the same settings with device,
precision and threads said. On a processor a short race decides: a few real steps with
each candidate. The winner is kept in `<ROOT>/machine.json`, because two threads give
other weights than one, and the same configuration shall give the same weights.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch.nn import functional

from mindtrace.config.settings import Settings
from mindtrace.models.build import build_network, network_arguments
from mindtrace.models.layout import fit_layout
from mindtrace.preprocess import ImageSpec
from mindtrace.system import auto_device, has_bf16, processor
from mindtrace.utils.system import available_cores

FILE = "machine.json"
TURNS = 8
SECONDS = 3.0  # a network that needs longer than this for two turns gets no third
# Values in a batch to race with: enough to keep two cores busy, little enough to be quick.
LARGEST_INPUT = 2**20
# A candidate must be this much quicker to win over the plainer one before it.
GAIN = 0.9


@dataclass(frozen=True)
class Choice:
    """One way to compute: `precision` is `32` or `bf16`."""

    threads: int
    precision: str


def resolve(settings: Settings, spec: ImageSpec, classes: int) -> Settings:
    """`settings` with every `auto` of `[compute]` as it is for this network here.

    Args:
        settings: whose said values stay as they are.
        spec: the network's input.
        classes: how many.
    """
    architecture = settings.model.name
    arguments = network_arguments(settings.model, spec, classes)
    compute = settings.compute
    device = _usable_device() if compute.device == "auto" else compute.device
    candidates = _candidates(device, compute.threads, compute.precision, architecture)
    file = settings.dirs.root / FILE
    values = spec.channels * spec.height * spec.width
    batch = max(2, min(settings.data.batch_size, LARGEST_INPUT // values))
    key = _key(architecture, arguments, spec, batch)
    choice = candidates[0] if len(candidates) == 1 else _remembered(file, key)
    if choice not in candidates:
        choice = _race(candidates, architecture, arguments, spec, batch)
        _remember(file, key, choice)
    return settings.replace(
        **{
            "compute.device": device,
            "compute.precision": choice.precision,
            "compute.threads": choice.threads,
        }
    )


def _usable_device() -> str:
    """The machine's best device, or the processor if this build of torch cannot use that."""
    device = auto_device()
    if device == "cuda" and not torch.cuda.is_available():
        return "cpu"
    if device == "mps" and not torch.backends.mps.is_available():
        return "cpu"
    return device


def _candidates(
    device: str, threads: int | None, precision: str, architecture: str
) -> list[Choice]:
    """What may be raced, the plainest first; one where everything is said."""
    cores = available_cores()
    counts = [threads] if threads else ([1] if device != "cpu" or cores == 1 else [1, cores])
    if precision != "auto":
        precisions = [precision]
    elif device == "cuda":
        precisions = ["bf16" if torch.cuda.is_bf16_supported() else "32"]
    elif device == "cpu" and has_bf16() and architecture != "mlp":
        precisions = ["32", "bf16"]
    else:
        # A perceptron has too little to multiply for the casts to pay.
        precisions = ["32"]
    return [Choice(count, one) for one in precisions for count in counts]


def _race(
    candidates: list[Choice],
    architecture: str,
    arguments: dict[str, Any],
    spec: ImageSpec,
    batch: int,
) -> Choice:
    """The quickest candidate, by the best of a few real training steps of each.

    They take turns and only their best times count, so that somebody else's work on the
    same cores delays all of them alike and decides nothing.
    """
    began = time.perf_counter()
    before = torch.get_num_threads()
    best = [math.inf] * len(candidates)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            runners = [_Runner(architecture, arguments, spec, batch) for _ in candidates]
            for turn in range(TURNS):
                for index, (choice, runner) in enumerate(zip(candidates, runners, strict=True)):
                    best[index] = min(best[index], runner.seconds(choice))
                if turn and time.perf_counter() - began > SECONDS:
                    break
    finally:
        torch.set_num_threads(before)
    winner = 0
    for index, seconds in enumerate(best):
        if seconds < GAIN * best[winner]:
            winner = index
    return candidates[winner]


class _Runner:
    """A network that can be asked for the time of a training step."""

    def __init__(
        self, architecture: str, arguments: dict[str, Any], spec: ImageSpec, batch: int
    ) -> None:
        self._network = fit_layout(build_network(architecture, arguments)).train()
        self._optimizer = torch.optim.AdamW(self._network.parameters(), fused=True)
        self._images = torch.randn(batch, spec.channels, spec.height, spec.width)
        self._labels = torch.zeros(batch, dtype=torch.int64)

    def seconds(self, choice: Choice) -> float:
        """Of the second of two steps: the first wakes the threads."""
        torch.set_num_threads(choice.threads)
        self._step(choice)
        began = time.perf_counter()
        self._step(choice)
        return time.perf_counter() - began

    def _step(self, choice: Choice) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=choice.precision == "bf16"):
            loss = functional.cross_entropy(self._network(self._images), self._labels)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()


def _key(architecture: str, arguments: dict[str, Any], spec: ImageSpec, batch: int) -> str:
    """Everything that the outcome of a race depends on."""
    network = f"{architecture} {json.dumps(arguments, sort_keys=True)}"
    machine = f"{processor()}, {available_cores()} cores, torch {torch.__version__}"
    return f"{network} {spec.height}x{spec.width} batch {batch} on {machine}"


def _remembered(file: Path, key: str) -> Choice | None:
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))[key]
        return Choice(int(fields["threads"]), str(fields["precision"]))
    except (OSError, ValueError, KeyError, TypeError):
        # Nothing known, or a file that somebody broke: it is raced and written anew.
        return None


def _remember(file: Path, key: str, choice: Choice) -> None:
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    known[key] = vars(choice)
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.{uuid4().hex}")
    aside.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    aside.replace(file)
