"""Start-up of the command beside the least that could be done: whole processes, medians.

    python benchmarks/startup.py [ROUNDS]

Trains one small model on digits in a folder of its own, then starts each program in turn,
round by round, so that a slow moment of the machine meets all of them.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 15

EMPTY_TYPER = """
import typer
app = typer.Typer()
@app.command()
def main(name: str = "x") -> None:
    "Say it."
    print(name)
app()
"""

# The three imports that a prediction cannot do without, and the least use of each.
BARE_PREDICT = """
import sys
import numpy, onnxruntime
from PIL import Image
image = Image.open(sys.argv[1]).convert("L").resize((8, 8))
pixels = numpy.asarray(image, numpy.float32)[None, None] / 255
session = onnxruntime.InferenceSession(sys.argv[2], providers=["CPUExecutionProvider"])
print(session.run(None, {session.get_inputs()[0].name: pixels})[0])
"""


def _prepared(folder: Path) -> tuple[Path, Path]:
    """An image and the ONNX file of a version that was trained for this."""
    command = [sys.executable, "-m", "mindtrace", "train", "--source", "digits", "-q"]
    subprocess.run([*command, "--max-epochs", "2"], check=True, stdout=subprocess.DEVNULL)
    image = folder / "digit.png"
    script = Path(__file__).parents[1] / "examples" / "write_digit.py"
    subprocess.run([sys.executable, script, image], check=True, stdout=subprocess.DEVNULL)
    return image, next(folder.rglob("model.onnx"))


def _once(command: list[str]) -> tuple[float, float]:
    """Seconds of wall time, and the largest resident size in MB."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command}: exit {process.returncode}")
    unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes here
    return seconds, usage.ru_maxrss / unit


def main(rounds: int = ROUNDS) -> None:
    """Measure and print the table."""
    mindtrace = str(Path(sys.executable).with_name("mindtrace"))
    with tempfile.TemporaryDirectory() as name:
        os.environ["DIR_PATHS__ROOT"] = name
        image, onnx = map(str, _prepared(Path(name)))
        programs = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "empty Typer program, --help": [sys.executable, "-c", EMPTY_TYPER, "--help"],
            "mindtrace --help": [mindtrace, "--help"],
            "mindtrace registry list": [mindtrace, "registry", "list"],
            "numpy+Pillow+ONNX Runtime": [sys.executable, "-c", BARE_PREDICT, image, onnx],
            "mindtrace predict one.png": [mindtrace, "predict", image],
        }
        seen: dict[str, list[tuple[float, float]]] = {program: [] for program in programs}
        for _ in range(rounds):
            for program, command in programs.items():
                seen[program].append(_once(command))
    print(f"{'':30}{'median ms':>10}{'least ms':>10}{'MB':>7}   (of {rounds} rounds)")
    for program, pairs in seen.items():
        times = [1000 * seconds for seconds, _ in pairs]
        size = statistics.median(size for _, size in pairs)
        print(f"{program:30}{statistics.median(times):10.0f}{min(times):10.0f}{size:7.0f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
