"""What this machine can compute with, found out without importing torch."""

from __future__ import annotations

import os
import platform
from pathlib import Path

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
