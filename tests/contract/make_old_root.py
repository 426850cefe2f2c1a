"""Writes `old_root.tar.xz`: a ROOT made by commit 4d86ddf, before the restructuring.

Run it with the interpreter of an environment in which that commit is installed:

    git worktree add ../mindtrace-old 4d86ddf && cd ../mindtrace-old && make lint
    .venv/bin/python ../mindtrace/tests/contract/make_old_root.py

It holds `digits` with four versions (an mlp; version 4 was made by a job), a history with a
promotion, a rollback and a refusal, the alias `staging`; `colours/1`, a cnn of generated
images; a job that succeeded and one that waits; a training stopped in its third epoch.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mlflow import MlflowClient
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from old_root import OldRoot, pack

_COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (210, 50, 40)}
_IMAGES = 20  # for each class
_SIDE = 12  # pixels
_SMALL = ["--source", "digits", "--set", "model.hidden=16", "--set", "compute.threads=1"]
_SMALL += ["--set", "compute.precision=32", "--set", "compute.device=cpu", "--lr", "0.003"]
_TO_STOP = 40  # epochs, of which three are seen


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="mindtrace-old-") as name:
        old = OldRoot(Path(name).resolve() / "old")
        old.root.mkdir(parents=True)
        os.environ["DIR_PATHS__ROOT"] = str(old.root)
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        os.chdir(old.folder)
        _versions(old)
        _history(old)
        _interrupted()
        _jobs()
        pack(old.folder)


def _versions(old: OldRoot) -> None:
    for epochs, seed in ((4, 0), (6, 1), (1, 2)):
        _mindtrace("train", *_SMALL, "--max-epochs", str(epochs), "--seed", str(seed))
    _write_colours(old.colours)
    words = ["--source", "folder", "--set", f"data.dir={old.colours}", "--model", "cnn"]
    words += ["--max-epochs", "3", "--lr", "0.003", "--batch-size", "8", *_SMALL[4:-2]]
    _mindtrace("train", *words, "--model-name", "colours")
    _mindtrace("registry", "export", "digits/1", str(old.exported))
    _write_digit(old.digit)


def _history(old: OldRoot) -> None:
    _mindtrace("registry", "promote", "digits/2")
    _mindtrace("registry", "promote", "digits/3", code=3)
    _mindtrace("registry", "rollback", "digits", "--reason", "the old one was better")
    client = MlflowClient(f"sqlite:///{old.root / 'mlflow.db'}")
    client.set_registered_model_alias("digits", "staging", "2")


def _interrupted() -> None:
    words = [*_mindtrace_words(), "train", *_SMALL, "--max-epochs", str(_TO_STOP), "--json"]
    training = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert training.stderr is not None
    for line in training.stderr:
        if json.loads(line).get("epoch") == 3:
            training.send_signal(signal.SIGINT)
    assert training.wait() == 130


def _jobs() -> None:
    words = ["retrain"]
    for setting in ("data.source=digits", "model.hidden=16", "compute.threads=1"):
        words += ["--set", setting]
    _mindtrace(*words, "--set", "train.max_epochs=2", "--wait")
    _mindtrace(*words, "--set", "train.max_epochs=1", "--set", "train.seed=5")


def _write_colours(folder: Path) -> None:
    """Squares of one colour with a pattern of their own, the same on every machine."""
    for class_name, colour in _COLOURS.items():
        (folder / class_name).mkdir(parents=True)
        for number, noise in zip(range(_IMAGES), _noise(), strict=False):
            image = Image.new("RGB", (_SIDE, _SIDE))
            for place, shift in enumerate(noise):
                channels = tuple(min(255, channel + shift) for channel in colour)
                image.putpixel((place % _SIDE, place // _SIDE), channels)
            image.save(folder / class_name / f"{number:02}.png")


def _noise() -> Iterator[list[int]]:
    state = 1
    while True:
        pixels = []
        for _ in range(_SIDE * _SIDE):
            state = state * 1103515245 % 2**31 + 12345
            pixels.append(state >> 16 & 63)
        yield pixels


def _write_digit(path: Path) -> None:
    from sklearn.datasets import load_digits

    pixels = (load_digits().images[0] * 15.9375).round().astype("uint8")
    Image.fromarray(pixels).save(path)


def _mindtrace(*words: str, code: int = 0) -> None:
    print("mindtrace", *words, flush=True)
    done = subprocess.run([*_mindtrace_words(), *words], check=False)
    assert done.returncode == code, done.returncode


def _mindtrace_words() -> list[str]:
    return [sys.executable, "-m", "mindtrace"]


if __name__ == "__main__":
    main()
