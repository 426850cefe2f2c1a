"""Signals as errors, and what this machine can compute with (found without torch)."""

from __future__ import annotations

import os
import platform
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from mindtrace.errors import InterruptedByUser

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Whether somebody wants this work to stop."""

    def __init__(self) -> None:
        self._signum: int | None = None
        self._deferred = False

    def wanted(self) -> InterruptedByUser | None:
        """The error to raise, or None to go on."""
        return None if self._signum is None else InterruptedByUser(self._signum)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A block that is as good as done: one signal is ignored, the second insists."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A block that looks at `wanted` itself; what it overlooked is raised at its end."""
        with self.held():
            yield
        error = self.wanted()
        if error is not None:
            raise error

    def _heard(self, signum: int, frame: FrameType | None) -> None:
        insists = self._signum is not None
        self._signum = signum
        if insists or not self._deferred:
            raise InterruptedByUser(signum)


@contextmanager
def interruptible() -> Iterator[Interrupts]:
    """Turn the two signals into errors while the block runs.

    Outside the main thread Python delivers no signals, and nothing is changed.
    """
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = {signum: signal.signal(signum, interrupts._heard) for signum in _SIGNALS}
    try:
        yield interrupts
    finally:
        for signum, old in before.items():
            signal.signal(signum, old)


_NVIDIA = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/proc/driver/nvidia/version"))


def auto_device() -> str:
    """`cuda`, `mps` or `cpu`: what `[compute] device = auto` means here."""
    if any(path.exists() for path in _NVIDIA):
        return "cuda"
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return "mps"
    return "cpu"


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    for line in _cpuinfo().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware."""
    text = _cpuinfo()
    return "avx512_bf16" in text or "amx_bf16" in text


def _cpuinfo() -> str:
    file = Path("/proc/cpuinfo")
    return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""


def hide_gpus() -> None:
    """Tell torch that there is no GPU; before it is imported, in a process of our own.

    A CUDA build of torch without a GPU looks for the driver at each optimizer step,
    about a tenth of the step of a small network.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
