"""What the machine can compute with, found out without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from mindtrace import system as machine


def test_auto_misses_no_device_that_torch_has() -> None:
    """Seen from here; that torch was built for it is looked at where torch is loaded."""
    device = machine.auto_device()

    assert device in ("cpu", "cuda", "mps")
    assert not (device == "cpu" and torch.cuda.is_available())


def test_hidden_gpus_are_seen_by_nobody_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    machine.hide_gpus()

    done = subprocess.run(
        [sys.executable, "-c", "import os; print(repr(os.environ['CUDA_VISIBLE_DEVICES']))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "''\n"


def test_looking_at_the_machine_imports_no_torch() -> None:
    script = "import sys; from mindtrace.system import auto_device; auto_device()"

    done = subprocess.run(
        [sys.executable, "-c", script + "; sys.exit('torch' in sys.modules)"], check=False
    )
    assert done.returncode == 0
