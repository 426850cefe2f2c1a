"""Serving beside its rivals: the same weights, the same images, the same wrk, in turn.

    python benchmarks/serve.py [--data DATA] [--rounds 3] [--part race|open|predict|all]
                               [--peer-python NAME=/path/python ...] [--only ours,raw,fastapi]

DATA holds `MNIST/raw`; without it the digits of scikit-learn are scaled up to 28 x 28.
Trains a small MLP (784-100-10), then starts each server anew in every round: seconds to
its first answer, requests a second and percentiles at 1, 16 and 64 connections, memory
(PSS over all its processes). Before it counts, its answers are compared with ours. Rivals
that live in environments of their own are named by --peer-python. Wants wrk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import openloop
from peers.commands import PEERS, Peer, environment, installed
from peers.running import CannotStart, answers, pss, started, write_bodies, wrk

CONNECTIONS = (1, 16, 64)


@dataclass
class Seen:
    """What was measured of one server, round by round.

    Attributes:
        first: seconds from its start to its first answer.
        memory: MB.
        rates: requests a second, by connections.
        p50: milliseconds, by connections.
        p99: milliseconds, by connections.
    """

    first: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    rates: dict[int, list[float]] = field(default_factory=dict)
    p50: dict[int, list[float]] = field(default_factory=dict)
    p99: dict[int, list[float]] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Requests a second at 16 connections."""
        return statistics.median(self.rates[16])


def prepare(folder: Path, data: Path | None) -> list[bytes]:
    """Train, and write what the rivals need; the images to ask about, as PNG files."""
    from mindtrace.config.settings import load_settings
    from mindtrace.data.datamodule import build_data
    from mindtrace.preprocess import encode_png

    sets = ["data.source=digits", "data.image_size=28", "compute.threads=1", "train.max_epochs=4"]
    if data is not None:
        sets = [f"DIR_PATHS.DATA={data}", "data.source=mnist", *sets[2:]]
    words = [word for one in sets for word in ("--set", one)]
    train = [sys.executable, "-m", "mindtrace", "train", "-q", *words]
    subprocess.run(train, check=True, env=environment(folder), stdout=subprocess.DEVNULL)
    (graph,) = (folder / "root").rglob("model.onnx")
    shutil.copy(graph, folder / "model.onnx")
    from safetensors.numpy import load_file

    arrays = [value for _, value in sorted(load_file(graph.with_name("model.safetensors")).items())]
    b1, w1, b2, w2 = (np.asarray(value) for value in arrays)
    spec = json.loads(graph.with_name("model.json").read_text())["input"]
    (mean,), (std,) = spec["mean"], spec["std"]
    np.savez(folder / "weights.npz", w1=w1, b1=b1, w2=w2, b2=b2, mean=mean, std=std)
    images = build_data(load_settings(sets=sets, environ={})).split("test").images
    return [encode_png(image[0].numpy()) for image in images]


def visit(peer: Peer, python: str, folder: Path, one: Seen, seconds: int) -> Any:
    """One round of one server; the probabilities that it gives."""
    script = folder / f"{peer.form}.lua"
    with started(peer, python, folder) as (url, first, process):
        found = answers(peer, url, folder)
        wrk(url, script, 8, min(2, seconds))
        one.first.append(first)
        for count in CONNECTIONS:
            run = wrk(url, script, count, seconds)
            one.rates.setdefault(count, []).append(run["rate"])
            one.p50.setdefault(count, []).append(run["p50"])
            one.p99.setdefault(count, []).append(run["p99"])
        one.memory.append(pss(process))
    return found


def race(pythons: dict[str, str], folder: Path, rounds: int, seconds: int) -> dict[str, Seen]:
    """All servers in turn, round by round; who cannot start is left out, and told."""
    seen = {name: Seen() for name in pythons}
    expected: Any = None
    for turn in range(rounds):
        for name, python in list(pythons.items()):
            peer, one = PEERS[name], seen[name]
            try:
                found = visit(peer, python, folder, one, seconds)
            except CannotStart as error:
                print(f"{peer.title}: left out, it does not start:\n{error}")
                del pythons[name], seen[name]
                continue
            expected = found if expected is None else expected
            if np.abs(found - expected).max() > 1e-3:
                raise SystemExit(f"{peer.title} answers otherwise than the others")
            print(f"  round {turn + 1}, {peer.title}: {one.rates[16][-1]:,.0f}/s", file=sys.stderr)
    return seen


def show_race(seen: Mapping[str, Seen]) -> None:
    """The table, and what was promised."""
    middle = statistics.median
    print(f"\n{'requests/s at connections':26}" + "".join(f"{n:>9}" for n in CONNECTIONS), end="")
    print("   p50 at 1  p99 at 16  first answer     PSS   ours/it at 16   (least - most at 16)")
    for name, one in seen.items():
        rates = "".join(f"{middle(one.rates[n]):9,.0f}" for n in CONNECTIONS)
        ratio = f"{seen['ours'].rate / one.rate:.2f} x" if "ours" in seen else ""
        times = f"{middle(one.p50[1]):8.2f} ms{middle(one.p99[16]):8.1f} ms"
        print(
            f"{PEERS[name].title:26}{rates}{times}"
            f"{middle(one.first):12.2f} s{middle(one.memory):6.0f} MB{ratio:>16}"
            f"   {min(one.rates[16]):,.0f} - {max(one.rates[16]):,.0f}"
        )
    for rival, promise in (("mlserver", 3.5), ("fastapi", 4.5), ("raw", 1.35)):
        if {"ours", rival} <= seen.keys():
            ratio = seen["ours"].rate / seen[rival].rate
            print(f"ours / {PEERS[rival].title}: {ratio:.2f}   (promised: {promise} at least)")
    if {"ours", "ours-2", "raw", "raw-2"} <= seen.keys():
        ours = seen["ours-2"].rate / seen["ours"].rate
        raw = seen["raw-2"].rate / seen["raw"].rate
        print(
            f"two workers / one: ours {ours:.2f}, raw {raw:.2f}, ours / raw {ours / raw:.2f}"
            "   (promised: 0.95 at least)"
        )
    if "ours" in seen:
        one = seen["ours"]
        print(
            f"p50 at one connection {middle(one.p50[1]):.2f} ms (promised: 0.30), PSS "
            f"{middle(one.memory):.0f} MB (promised: 130), first answer {middle(one.first):.2f} s "
            "(promised: 0.80)"
        )


def open_loops(
    pythons: Mapping[str, str], folder: Path, seen: Mapping[str, Seen], seconds: float
) -> None:
    """Half of each server's own saturation, by the clock."""
    print("\nOpen loop at half of what each did at 16 connections; latency from the due moment:")
    for name, python in pythons.items():
        peer = PEERS[name]
        with started(peer, python, folder) as (url, _, _process):
            lines = (folder / f"{peer.form}.bodies").read_text().splitlines()
            requests = [openloop.post(url, line.encode()) for line in lines]
            if name not in seen:
                wrk(url, folder / f"{peer.form}.lua", 8, 1)
            found = wrk(url, folder / f"{peer.form}.lua", 16, 2)["rate"]
            rate = (seen[name].rate if name in seen else found) / 2
            outcomes = openloop.measure(url, requests, rate, seconds)
        print(f"  {peer.title:26} {openloop.summary(outcomes, seconds)}", flush=True)


def predict_folder(folder: Path, images: Sequence[bytes], rounds: int) -> None:
    """`mindtrace predict` of 10,000 small PNGs, the whole process."""
    home = folder / "images"
    home.mkdir()
    for number in range(10_000):
        (home / f"{number:05}.png").write_bytes(images[number % len(images)])
    command = [sys.executable, "-m", "mindtrace", "predict", str(home), "--json"]
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        with (folder / "answers").open("wb") as out:
            subprocess.run(command, check=True, env=environment(folder), stdout=out)
        taken.append(time.perf_counter() - began)
        assert (folder / "answers").read_bytes().count(b"\n") == 10_000
    middle = statistics.median(taken)
    values = " ".join(f"{seconds:.2f}" for seconds in taken)
    print(
        f"\npredict FOLDER of 10,000 PNGs, whole process: {middle:.2f} s, {10_000 / middle:,.0f}"
        f" images/s   [{values}]   (promised: 10,000 at least)"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder that holds MNIST/raw")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="of each run of wrk")
    parser.add_argument("--part", choices=("race", "open", "predict", "all"), default="all")
    parser.add_argument("--only", help="names of servers, with commas: " + ", ".join(PEERS))
    parser.add_argument("--peer-python", action="append", default=[], metavar="NAME=PYTHON")
    words = parser.parse_args()
    if shutil.which("wrk") is None and words.part != "predict":
        raise SystemExit("wrk is missing: apt-get install wrk, brew install wrk")
    given = dict(pair.split("=", 1) for pair in words.peer_python)
    pythons = installed(given, words.only.split(",") if words.only else None)
    data = words.data or os.environ.get("DIR_PATHS__DATA")
    with tempfile.TemporaryDirectory(prefix="mindtrace-bench-") as name:
        folder = Path(name)
        images = prepare(folder, Path(data).resolve() if data else None)
        write_bodies(folder, images)
        seen: dict[str, Seen] = {}
        if words.part in ("race", "all"):
            seen = race(pythons, folder, words.rounds, words.seconds)
            show_race(seen)
        if words.part in ("open", "all"):
            open_loops(pythons, folder, seen, 2 * words.seconds)
        if words.part in ("predict", "all"):
            predict_folder(folder, images, max(3, words.rounds))


if __name__ == "__main__":
    main()
