"""Floor 10: what a server process counts.

In: answers and predictions, from the thread of the event loop alone, so that a plain
number is enough. Out: a `Snapshot`, and the sum of those of several workers. Workers
tell each other through files in a folder that they share: what a worker has counted
stays when it dies, what it was at the time does not.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

# Upper bounds in seconds, of both histograms.
BOUNDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01),
    *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)


class Histogram:
    """How many values fell below each bound.

    Attributes:
        counts: one for each of `BOUNDS`, and one for what is beyond them; not cumulative.
        total: the sum of all values.
    """

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one value."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


@dataclass(frozen=True)
class Snapshot:
    """What was counted until now.

    Attributes:
        requests: (route, code, how often).
        request_counts: of the histogram of `request_seconds`.
        request_seconds: sum.
        inference_counts: of the histogram of `inference_seconds`.
        inference_seconds: sum.
        predictions: by class name.
        swaps: by result.
        queue_depth: requests that wait; no counter.
        models: (name, version) of what is served, as texts; no counter.
    """

    requests: Sequence[tuple[str, int, int]]
    request_counts: Sequence[int]
    request_seconds: float
    inference_counts: Sequence[int]
    inference_seconds: float
    predictions: Mapping[str, int]
    swaps: Mapping[str, int]
    queue_depth: int = 0
    models: Sequence[tuple[str, str]] = field(default=())

    def of_the_dead(self) -> Snapshot:
        """What of it still counts when its worker has gone."""
        return replace(self, queue_depth=0, models=())


class Meters:
    """The counters of this process.

    Attributes:
        requests: by the route's template and the status.
        predictions: by class name.
        request_seconds: from the head of a request to the head of its answer.
        inference_seconds: decoding and the network.
    """

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.predictions: Counter[str] = Counter()
        self.request_seconds = Histogram()
        self.inference_seconds = Histogram()

    def answered(self, route: str, code: int, seconds: float) -> None:
        """Count one request."""
        self.requests[route, code] += 1
        self.request_seconds.observe(seconds)

    def predicted(self, class_names: Iterable[str], seconds: float) -> None:
        """Count the predictions of one request, and the time that they took."""
        for name in class_names:
            self.predictions[name] += 1
        self.inference_seconds.observe(seconds)

    def snapshot(
        self, swaps: Mapping[str, int], queue_depth: int, model: tuple[str, str] | None
    ) -> Snapshot:
        """All of it, with what others count, as it is now."""
        return Snapshot(
            requests=[(route, code, count) for (route, code), count in self.requests.items()],
            request_counts=list(self.request_seconds.counts),
            request_seconds=self.request_seconds.total,
            inference_counts=list(self.inference_seconds.counts),
            inference_seconds=self.inference_seconds.total,
            predictions=dict(self.predictions),
            swaps=dict(swaps),
            queue_depth=queue_depth,
            models=() if model is None else (model,),
        )


def together(snapshots: Sequence[Snapshot]) -> Snapshot:
    """The sum of the snapshots of at least one worker."""
    requests: Counter[tuple[str, int]] = Counter()
    predictions: Counter[str] = Counter()
    swaps: Counter[str] = Counter()
    for snapshot in snapshots:
        requests.update({(route, code): count for route, code, count in snapshot.requests})
        predictions.update(snapshot.predictions)
        swaps.update(snapshot.swaps)
    return Snapshot(
        requests=[(route, code, count) for (route, code), count in requests.items()],
        request_counts=_sums([s.request_counts for s in snapshots]),
        request_seconds=sum(s.request_seconds for s in snapshots),
        inference_counts=_sums([s.inference_counts for s in snapshots]),
        inference_seconds=sum(s.inference_seconds for s in snapshots),
        predictions=predictions,
        swaps=swaps,
        queue_depth=sum(s.queue_depth for s in snapshots),
        models=sorted({model for s in snapshots for model in s.models}),
    )


def _sums(rows: Sequence[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*rows, strict=True)]


class Exchange:
    """One worker's place in the folder through which the workers of a server tell their counts.

    A worker holds a lock on its file `*.alive` for as long as it lives, however it ends.
    """

    def __init__(self, folder: Path) -> None:
        """Take a place.

        Raises:
            OSError: the folder cannot be written.
        """
        self._folder = folder
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._own = folder / f"{name}.json"
        self._alive = (folder / f"{name}.alive").open("wb")
        fcntl.flock(self._alive, fcntl.LOCK_EX)

    def tell(self, snapshot: Snapshot) -> None:
        """Replace what the others read of this worker, whole or not at all.

        Raises:
            OSError: the folder cannot be written.
        """
        os.utime(self._alive.fileno())  # or who cleans up old files might take it
        draft = self._own.with_suffix(f".{secrets.token_hex(4)}")
        draft.write_text(json.dumps(asdict(snapshot)))
        draft.replace(self._own)

    def others(self) -> list[Snapshot]:
        """What the other workers have told, the dead ones too."""
        found = []
        for path in self._folder.glob("*.json"):
            if path != self._own:
                fields = json.loads(path.read_text())
                fields["requests"] = [tuple(row) for row in fields["requests"]]
                fields["models"] = [tuple(row) for row in fields["models"]]
                snapshot = Snapshot(**fields)
                alive = _is_locked(path.with_suffix(".alive"))
                found.append(snapshot if alive else snapshot.of_the_dead())
        return found

    def close(self) -> None:
        """Give up the place; what was told stays."""
        self._alive.close()


def _is_locked(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
