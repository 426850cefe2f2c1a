"""Training beside its rivals and beside its own promises, in one run on the same data.

    python benchmarks/train.py --data DATA [--rounds 5] [--part epochs|recipes|all]

DATA holds `MNIST/raw` and, for the last recipe, `FashionMNIST/raw`. Rivals run in turn,
round by round, so that a slow moment of the machine meets all of them; medians are shown
and every single value is printed. The recipes are the shipped examples with seeds 0, 1,
2 and so on; of those that were tried they have the best validation accuracy.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent / "examples"
RIVALS = ("gathered", "bare", "ours", "tracked", "idiomatic", "advised")
SLOW = ("tracked", "idiomatic", "advised")
NAMES = {
    "gathered": "the limit: batches cut beforehand",
    "bare": "a bare PyTorch loop on tensors in memory",
    "ours": "mindtrace train, tracking on",
    "tracked": "torchvision + DataLoader + Lightning, MLflow",
    "idiomatic": "the same, without tracking",
    "advised": "the same, two loader processes",
}
# Recipe, wanted test accuracy, allowed seconds of fit with bf16 and without.
RECIPES = (
    ("mnist.ini", 0.975, 3, 3),
    ("mnist-cnn.ini", 0.990, 8, 15),
    ("mnist-best.ini", 0.995, 60, 60),
    ("fashion.ini", 0.920, None, None),
)


def rival(name: str, data: Path, threads: int, epochs: int) -> dict[str, Any]:
    """Run one rival in a process of its own."""
    # Lightning warns of a loader without processes and advises to add some.
    known, workers = ("idiomatic", "2") if name == "advised" else (name, "0")
    command = [sys.executable, str(HERE / "training_rivals.py"), known, "--data", str(data)]
    command += ["--workers", workers]
    command += ["--threads", str(threads), "--epochs", str(epochs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def epochs(data: Path, rounds: int, threads: int) -> None:
    """The table of seconds an epoch, batch 64."""
    seconds: dict[str, list[float]] = {name: [] for name in RIVALS}
    steps = set()
    for turn in range(rounds):
        for name in RIVALS:
            # The slow ones are run less often; their epochs are long enough to be steady.
            slow = name in SLOW
            if not slow or turn < 2:
                found = rival(name, data, threads, 1 if slow else 3)
                seconds[name] += found["seconds"]
                steps.add(found.get("steps", 2580))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"\nSeconds an epoch, MNIST, 784-100-10, batch 64, {threads} thread(s):")
    for name in RIVALS:
        ratio = medians[name] / medians["bare"]
        values = " ".join(f"{value:.2f}" for value in seconds[name])
        print(f"  {NAMES[name]:44} {medians[name]:6.3f} s  {ratio:5.2f} x bare   [{values}]")
    print(f"  optimizer steps of three epochs by global_step: {steps}")
    print(f"  ours / bare       {medians['ours'] / medians['bare']:.2f}   (promised: 1.7 at most)")
    for name in SLOW:
        faster = medians[name] / medians["ours"]
        print(f"  {name} / ours  {faster:.1f}   (promised: 8 at least)", flush=True)


def command(ini: Path | None, data: Path, seed: int, *sets: str) -> tuple[dict[str, Any], float]:
    """`mindtrace train` as a whole process in a ROOT that lasts for all seeds."""
    words = [sys.executable, "-m", "mindtrace", "train", "--json", "--set", f"train.seed={seed}"]
    words += ["--config", str(ini)] if ini else []
    for one in (f"DIR_PATHS.DATA={data}", *sets):
        words += ["--set", one]
    began = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    whole = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{ini} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout), whole


def recipes(data: Path, rounds: int) -> None:
    """The table of accuracies and seconds of the shipped examples."""
    rows = [command(None, data, seed, "train.max_epochs=4") for seed in range(rounds)]
    whole = [seconds for _, seconds in rows]
    values = " ".join(f"{seconds:.2f}" for seconds in whole)
    print(
        f"  4 epochs of mlp, the whole command: {statistics.median(whole):.2f} s   [{values}]"
        "   (promised: 12 at most)"
    )
    print("\nShipped recipes, each seed in turn: test_acc, fit_s, whole command")
    for name, wanted, fast, plain in RECIPES:
        if name == "fashion.ini" and not (data / "FashionMNIST").exists():
            print(f"  {name}: no FashionMNIST/raw in {data}, left out")
            continue
        rows = [command(EXAMPLES / name, data, seed) for seed in range(rounds)]
        values = [(found["metrics"]["test_acc"], found["fit_s"], whole) for found, whole in rows]
        middle = [statistics.median(column) for column in zip(*values, strict=True)]
        print(
            f"  {name:16} {middle[0]:.4f}  {middle[1]:6.2f} s  {middle[2]:6.2f} s   "
            f"(promised: {wanted:.3f}, fit_s {fast} with bf16, {plain} without)"
        )
        for seed, (accuracy, fit_s, whole) in enumerate(values):
            print(
                f"      seed {seed}      {accuracy:.4f}  {fit_s:6.2f} s  {whole:6.2f} s", flush=True
            )


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--part", choices=["epochs", "recipes", "all"], default="all")
    args = parser.parse_args()
    if args.data is None:
        from mindtrace.config.config import Config

        args.data = Path(Config()["DIR_PATHS"]["DATA"])
    if not (args.data / "MNIST" / "raw").is_dir():
        raise SystemExit(f"no MNIST/raw in {args.data}; say --data")
    with tempfile.TemporaryDirectory(prefix="mindtrace-bench-") as root:
        os.environ["DIR_PATHS__ROOT"] = root
        if args.part in ("epochs", "all"):
            epochs(args.data, args.rounds, args.threads)
        if args.part in ("recipes", "all"):
            recipes(args.data, args.rounds)


if __name__ == "__main__":
    main()
