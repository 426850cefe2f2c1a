"""`mindtrace serve` as a real process, and a ROOT with versions worth looking at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# Versions without a bundle, in a moment each: what a long table needs.
_MANY = """
import sys
from pathlib import Path
from mindtrace.registry.champions import ensure_model
from mindtrace.registry.store import Store
from mindtrace.registry.store import start_run
root = Path(sys.argv[1])
store = Store(f"sqlite:///{root / 'mlflow.db'}", root)
ensure_model(store, "many")
run = start_run(store, "many", None, {})
for _ in range(int(sys.argv[2])):
    store.client.create_model_version(
        "many", f"runs:/{run.run_id}/bundle", run.run_id, await_creation_for=0
    )
run.end("FINISHED")
"""
MANY = 45


class Server:
    """A server of a ROOT, which can be killed and started again on the same port.

    Attributes:
        root: its ROOT.
        url: where it answers.
    """

    def __init__(self, root: Path, *args: str, env: Mapping[str, str] | None = None) -> None:
        self.root = root
        self.url = ""
        self._args = args
        self._env = {**os.environ, "DIR_PATHS__ROOT": str(root), **(env or {})}
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Server:
        """Start it; on the port it had before, if it had one."""
        port = self.url.rpartition(":")[2] or "0"
        command = [sys.executable, "-m", "mindtrace", "serve", "--json", "--port", port]
        with (self.root / "serve.log").open("a") as log:
            self._process = subprocess.Popen(
                [*command, *self._args],
                env=self._env,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, (self.root / "serve.log").read_text()
        self.url = str(json.loads(line)["url"])
        return self

    def kill(self) -> None:
        """`kill -9`."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def stop(self) -> None:
        """SIGTERM, and wait for its end; what it started ends with it."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.communicate(timeout=60)
            finally:
                self.kill()


def mindtrace(root: Path, *words: str) -> str:
    """Run a command on a ROOT; what it printed."""
    return _run(root, ["-m", "mindtrace", *words])


def train(root: Path, **sets: object) -> None:
    """Train digits; `train_seed=1` sets `train.seed`. One thread: the machine is shared."""
    words = ["--source", "digits", "--quiet", "--set", "compute.threads=1"]
    for name, value in sets.items():
        words += ["--set", f"{name.replace('__', '.')}={value}"]
    mindtrace(root, "train", *words)


def make_versions(root: Path) -> None:
    """Beside version 1 of digits: 2 like it, 3 worse, 4 of another test set; and `many`."""
    same: dict[str, object] = {"train__max_epochs": 3, "train__lr": 0.003}
    train(root, **same)
    train(root, **{**same, "train__max_epochs": 1})
    train(root, **{**same, "data__split_seed": 1})
    _run(root, ["-c", _MANY, str(root), str(MANY)])


def _run(root: Path, words: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "DIR_PATHS__ROOT": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
