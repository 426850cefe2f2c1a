"""`registry list` over many versions, beside a script with MLflow's client: whole processes.

    python benchmarks/registry.py [ROUNDS] [VERSIONS]

MLflow makes the store and one version through its client; the other versions of the same
name are written straight into MLflow's tables, with the tags that a training leaves.
Then each program is started in turn, round by round. Promised: a list within 0.25 s, a
query within 1 s.
"""

from __future__ import annotations

import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROUNDS = 7
VERSIONS = 100_000
NAME = "bench"
PROMISES = {"registry list": 0.25, "registry list NAME": 0.25, "--where 'test_acc > 0.97'": 1.0}

CLIENT = """
import sys
from mlflow import MlflowClient
client = MlflowClient(tracking_uri=sys.argv[1], registry_uri=sys.argv[1])
page = client.search_model_versions(
    f"name = '{sys.argv[2]}'", max_results=20, order_by=["version_number DESC"]
)
for version in page:
    print(version.version, version.tags.get("mindtrace.metric.test_acc"))
"""


def _tags(version: int, draw: random.Random) -> Iterator[tuple[str, str]]:
    accuracy = draw.uniform(0.8, 0.98)
    for name in ("train_loss", "val_loss", "test_loss"):
        yield f"mindtrace.metric.{name}", repr(draw.uniform(0, 1))
    for name in ("val_acc", "test_acc"):
        yield f"mindtrace.metric.{name}", repr(accuracy + draw.uniform(-0.005, 0.005))
    for name in ("data_digest", "test_digest", "config_digest", "weights_digest", "bundle_digest"):
        yield f"mindtrace.{name}", f"{draw.getrandbits(256):064x}"
    yield "mindtrace.seed", str(version)


def build(folder: Path, versions: int) -> str:
    """A store of MLflow's with so many versions; its URI."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.create_experiment(NAME, (folder / "artifacts").as_uri())
    run_id = client.create_run(experiment).info.run_id
    client.create_registered_model(NAME)
    client.create_model_version(NAME, f"runs:/{run_id}/bundle", run_id, await_creation_for=0)
    draw = random.Random(0)
    with sqlite3.connect(folder / "mlflow.db") as database:
        for setting in ("journal_mode = wal", "synchronous = off", "cache_size = -500000"):
            database.execute(f"pragma {setting}")
        columns = [row[1] for row in database.execute("pragma table_info(model_versions)")]
        (first,) = database.execute("select * from model_versions").fetchall()
        database.executemany(
            f"insert into model_versions values ({', '.join('?' * len(columns))})",
            (_like(dict(zip(columns, first, strict=True)), n) for n in range(2, versions + 1)),
        )
        database.executemany(
            "insert into model_version_tags (workspace, name, version, key, value)"
            " values ('default', ?, ?, ?, ?)",
            (
                (NAME, number, key, value)
                for number in range(1, versions + 1)
                for key, value in _tags(number, draw)
            ),
        )
    database.close()
    client.set_registered_model_alias(NAME, "champion", str(versions // 2))
    return uri


def _like(first: dict[str, Any], number: int) -> tuple[Any, ...]:
    """A row like the first version's; a version a second."""
    created = first["creation_time"] + 1000 * number
    return tuple({**first, "version": number, "creation_time": created}.values())


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def main(rounds: int = ROUNDS, versions: int = VERSIONS) -> None:
    """Measure and print the table."""
    mindtrace = str(Path(sys.executable).with_name("mindtrace"))
    with tempfile.TemporaryDirectory() as name:
        os.environ.update(DIR_PATHS__ROOT=name, MLFLOW_DISABLE_TELEMETRY="true")
        began = time.perf_counter()
        uri = build(Path(name), versions)
        print(f"{versions} versions of one name, built in {time.perf_counter() - began:.0f} s")
        listing = [mindtrace, "registry", "list"]
        programs = {
            "mindtrace --help": [mindtrace, "--help"],
            "registry list": listing,
            "registry list NAME": [*listing, NAME],
            "--where 'test_acc > 0.97'": [*listing, NAME, "--where", "test_acc > 0.97"],
            "--where 'test_acc > 2'": [*listing, NAME, "--where", "test_acc > 2"],
            "--sort -val_acc": [*listing, NAME, "--sort", "-val_acc"],
            "--where 'alias = champion'": [*listing, NAME, "--where", "alias = champion"],
            "MlflowClient, 20 newest": [sys.executable, "-c", CLIENT, uri, NAME],
        }
        seen: dict[str, list[float]] = {program: [] for program in programs}
        for _ in range(rounds):
            for program, command in programs.items():
                seen[program].append(_seconds(command))
    print(f"{'':30}{'median s':>10}{'least s':>10}{'promised':>10}   (of {rounds} rounds)")
    for program, times in seen.items():
        promise = PROMISES.get(program)
        told = "" if promise is None else f"{promise:.2f}"
        print(f"{program:30}{statistics.median(times):10.3f}{min(times):10.3f}{told:>10}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
