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


@pytest.mark.parametrize("given", [None, "0"])
@pytest.mark.parametrize("module", ["mindtrace", "mindtrace.registry.names", "mindtrace.cli.main"])
def test_telemetry_is_off_unless_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, module: str, given: str | None
) -> None:
    names = [f"{of}_DISABLE_TELEMETRY" for of in ("ORT", "MLFLOW", "HF_HUB")]
    for name in names:
        monkeypatch.delenv(name, raising=False)
        if given is not None:
            monkeypatch.setenv(name, given)
    program = f"import os, {module}; print(*map(os.environ.get, {names}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == [given or "1"] * 3, done.stderr
