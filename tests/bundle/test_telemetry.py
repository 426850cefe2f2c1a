"""ONNX Runtime would tell its maker of models and machines; with us it does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys
from pathlib import Path
from mindtrace.bundle.predictor import Predictor
Predictor.open(Path(sys.argv[1]))
print(os.environ["ORT_DISABLE_TELEMETRY"], len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_no_thread_waits_to_send_anything(
    trained_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Under continuous integration it is silent by itself.
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(trained_bundle)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["1", "1"]
