"""Retraining beside serving: what a training on the same machine costs those who ask.

    python benchmarks/retrain.py --data DATA [--rate 300] [--seconds 20] [--epochs 30]

DATA holds `MNIST/raw`. Trains a champion for one epoch, serves it, and asks at a fixed rate:
first with nothing else going on, then while `POST /retrain` trains a better one with
`[jobs] promote = gate`, followed by curl over server-sent events to its end. Prints the
percentiles of both, which versions answered, and every answer that was not 200. Wants curl.

The clients are threads that sleep until a request is due: unlike an event loop that looks
at the clock without a pause, they leave the processors to the server and the training. A
latency counts from the moment when its request was due. Where clients, server and training
share two processors, a client too may wait for one: the second row counts from when it sent.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from openloop import percentile
from wire import post

CLIENTS = 16


@dataclass(slots=True)
class Asked:
    """One request.

    Attributes:
        due: seconds on the clock of `time.perf_counter`.
        late: seconds from then until its client was awake and sent it.
        seconds: from when it was due to the end of its answer.
        status: of HTTP; 0 where the connection broke.
        version: that answered.
    """

    due: float
    late: float
    seconds: float
    status: int
    version: int | None


class Clients:
    """Ask from many threads, each its share of the rate, until told to stop."""

    def __init__(self, url: str, image: bytes, rate: float) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        self._request = post(f"{url}/inference", image, "image/png")
        self._rate = rate
        self._stop = threading.Event()
        self.asked: list[Asked] = []
        began = time.perf_counter() + 0.1
        self._threads = [
            threading.Thread(target=self._work, args=(began + number / rate,))
            for number in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> list[Asked]:
        """What was asked, once the last answers are there."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.asked

    def _work(self, due: float) -> None:
        connection: socket.socket | None = None
        while not self._stop.is_set():
            time.sleep(max(0.0, due - time.perf_counter()))
            late = time.perf_counter() - due
            try:
                connection = connection or socket.create_connection(self._address, 30)
                status, version = self._ask(connection)
            except (OSError, ValueError):
                connection, status, version = None, 0, None
            self.asked.append(Asked(due, late, time.perf_counter() - due, status, version))
            due += CLIENTS / self._rate

    def _ask(self, connection: socket.socket) -> tuple[int, int | None]:
        connection.sendall(self._request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += _received(connection)
        head, _, body = data.partition(b"\r\n\r\n")
        fields = dict(
            line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line
        )
        while len(body) < int(fields[b"content-length"]):
            body += _received(connection)
        return int(head.split(b" ", 2)[1]), json.loads(body).get("version")


def _received(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionResetError
    return data


def digit(data: Path) -> bytes:
    """The first test image of MNIST, as a PNG file."""
    from mindtrace.config.settings import load_settings
    from mindtrace.data.datamodule import build_data
    from mindtrace.preprocess import encode_png

    sets = [f"DIR_PATHS.DATA={data}", "data.source=mnist"]
    images = build_data(load_settings(sets=sets, environ={})).split("test").images
    return encode_png(images[0][0].numpy())


@contextmanager
def served(root: Path, data: Path) -> Iterator[str]:
    """`mindtrace serve` on a champion of one epoch; its URL."""
    environ = {
        **os.environ,
        "DIR_PATHS__ROOT": str(root),
        "DIR_PATHS__DATA": str(data),
        "JOBS__PROMOTE": "gate",
        "DATA__SOURCE": "mnist",
    }
    mindtrace = [sys.executable, "-m", "mindtrace"]
    train = [*mindtrace, "train", "-q", "--max-epochs", "1", "--set", "train.lr=0.0003"]
    subprocess.run(train, check=True, env=environ, stdout=subprocess.DEVNULL)
    server = subprocess.Popen(
        [*mindtrace, "serve", "--port", "0", "--json"],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert server.stdout is not None
    try:
        yield json.loads(server.stdout.readline())["url"]
    finally:
        server.terminate()
        server.wait()


def retrained(url: str, epochs: int) -> tuple[float, float, dict[str, Any]]:
    """Submit a job and follow it by curl; when it began to run, when it ended, its document."""
    body = {"data": {"batch_size": 256}, "train": {"max_epochs": epochs, "lr": 0.003}}
    request = urllib.request.Request(
        f"{url}/retrain", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        job = json.load(answer)
    command = ["curl", "-sN", f"{url}/jobs/{job['job_id']}/events"]
    began = 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as curl:
        assert curl.stdout is not None
        for line in curl.stdout:
            name, _, value = line.rstrip("\n").partition(": ")
            if name == "data":
                job = json.loads(value)
                if job.get("state") == "running" and not began:
                    began = time.perf_counter()
    return began, time.perf_counter(), job


def show(title: str, asked: Sequence[Asked]) -> None:
    """Two rows of the table: from when they were due, and from when they were sent."""
    good = [one for one in asked if one.status == 200]
    failed = Counter(one.status for one in asked if one.status != 200)
    for name, seconds in (
        (title, [one.seconds for one in good]),
        ("  once sent", [one.seconds - one.late for one in good]),
    ):
        shares = (percentile(seconds, share) * 1000 for share in (0.5, 0.9, 0.99, 0.999, 1.0))
        row = "".join(f"{share:9.2f}" for share in shares)
        print(f"{name:18}{len(asked):9,}{row}   {dict(failed) or 'all 200'}")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the idle part")
    parser.add_argument("--epochs", type=int, default=30, help="of the training")
    words = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="mindtrace-bench-") as folder,
        served(Path(folder), words.data.resolve()) as url,
    ):
        image = digit(words.data.resolve())
        clients = Clients(url, image, words.rate)
        time.sleep(words.seconds)
        idle = clients.stop()[CLIENTS:]  # the first of each client connects
        clients = Clients(url, image, words.rate)
        began, ended, job = retrained(url, words.epochs)
        time.sleep(3)  # a champion is noticed within two seconds
        asked = clients.stop()[CLIENTS:]
    training = [one for one in asked if began <= one.due <= ended]
    print(f"{words.rate:g} requests a second; milliseconds\n")
    print(f"{'':18}{'requests':>9}{'p50':>9}{'p90':>9}{'p99':>9}{'p99.9':>9}{'max':>9}")
    show("idle", idle)
    show("during training", training)
    show("all of the latter", asked)
    due, sent = (
        percentile([one.seconds - one.late * counted for one in training], 0.99)
        / percentile([one.seconds - one.late * counted for one in idle], 0.99)
        for counted in (0, 1)
    )
    print(f"\np99 during training / idle: {due:.2f}, once sent {sent:.2f}   (promised: 2 at most)")
    versions = Counter(one.version for one in asked)
    print(f"answers by version: {dict(versions)}; the last is {asked[-1].version}")
    print(f"the job: {job['state']}, {ended - began:.1f} s, promotion {job['promotion']}")


if __name__ == "__main__":
    main()
