"""Room data: files and what to do with each come in, records in columns go out, on all cores.

Many files are shared out to child processes: Pillow holds the interpreter for most of a
small image, so threads do not help. The children are started afresh and import no torch;
unlike multiprocessing's they need no guard around the caller's main module. A child reads
its tasks from stdin as JSON and writes records of a fixed size to stdout; where a file
cannot be read it stops and says why on stderr.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from typing import Any

from mindtrace.data.columns import Column
from mindtrace.errors import DataError, ImageError
from mindtrace.preprocess import ImageSpec, Mode

_MODULE = "mindtrace.data.decoding"  # what a child runs
# Records that are made and handed over at once: so many, or so many bytes.
_BLOCK, _BLOCK_BYTES = 256, 4 * 2**20
_FAILED = 3  # the exit status of a child that could not read a file
_TICK_S = 0.2  # how often those who watch are told
# Seconds, roughly: what a file, a pixel and the start of the children cost.
_FILE_S, _PIXEL_S, _START_S = 6e-5, 1e-8, 0.4

Task = tuple[str, Mode | None]  # a file and its own mode; None to find that out
Work = Callable[[Sequence[Task], ImageSpec | None], list[bytes]]  # the bytes of each field
Told = Callable[[int], None]  # hears how many tasks are done


@dataclass(frozen=True)
class Job:
    """What to do with which files.

    Attributes:
        kind: the name of `work` in a child.
        work: does a block of tasks.
        tasks: n files.
        spec: what the work needs of it.
    """

    kind: str
    work: Work
    tasks: Sequence[Task]
    spec: ImageSpec | None = None

    def part(self, start: int, end: int) -> Job:
        """The job with the tasks from `start` to `end` only."""
        return replace(self, tasks=self.tasks[start:end])


def processes_worth(files: int, pixels: int, limit: int) -> int:
    """How many processes, up to `limit`, so much work is worth; 1 is the caller's own."""
    worth = files * _FILE_S + pixels * _PIXEL_S > 2 * _START_S
    return min(limit, files) if worth and sys.executable else 1


def share_out(job: Job, columns: Sequence[Column], workers: int, told: Told) -> None:
    """Do a job and put the records of task i into place i of the columns.

    Args:
        job: the tasks.
        columns: one a field.
        workers: processes; 1 for this one.
        told: called from this thread, now and then.

    Raises:
        ImageError: a file could not be read.
        DataError: a child ended otherwise.
        OSError: the records could not be kept.
    """
    workers = min(workers, len(job.tasks))
    if workers > 1:
        _in_children(job, columns, workers, told)
        return
    step = _block(columns)
    for start in range(0, len(job.tasks), step):
        part = job.tasks[start : start + step]
        for column, data in zip(columns, job.work(part, job.spec), strict=True):
            column.put(start, data)
        told(start + len(part))


def serve(works: Mapping[str, Work]) -> int:
    """The child's side of `share_out`.

    Args:
        works: by the `kind` of their jobs.

    Returns:
        The exit status.
    """
    kind, step, tasks, values = json.load(sys.stdin.buffer)
    spec = values and ImageSpec(**values)
    try:
        for start in range(0, len(tasks), step):
            for data in works[kind](tasks[start : start + step], spec):
                sys.stdout.buffer.write(data)
    except ImageError as error:
        print(json.dumps({"message": error.message, "hint": error.hint}), file=sys.stderr)  # noqa: T201
        return _FAILED
    return 0


def _block(columns: Sequence[Column]) -> int:
    """How many records are made at once."""
    return max(1, min(_BLOCK, _BLOCK_BYTES // sum(column.step for column in columns)))


def _in_children(job: Job, columns: Sequence[Column], workers: int, told: Told) -> None:
    bounds = [len(job.tasks) * worker // workers for worker in range(workers + 1)]
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        children = [stack.enter_context(_Child()) for _ in range(workers)]
        pending = {
            pool.submit(child.run, job.part(start, end), start, columns)
            for child, (start, end) in zip(children, itertools.pairwise(bounds), strict=True)
        }
        while pending:
            done, pending = wait(pending, _TICK_S, FIRST_EXCEPTION)
            for future in done:
                future.result()
            told(sum(child.done for child in children))


class _Child:
    """A process that does a part of a job; gone at the end of `with`.

    Attributes:
        done: how many of its tasks are.
    """

    def __init__(self) -> None:
        self.done = 0
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            # -P: a file of the working directory must not stand in for a library.
            [sys.executable, "-P", "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)},
        )

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def run(self, job: Job, first: int, columns: Sequence[Column]) -> None:
        """Have a job done and its records kept from place `first` on; raises as `share_out`."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and isinstance(stdout, io.BufferedReader)
        step = _block(columns)
        request = [job.kind, step, job.tasks, job.spec and asdict(job.spec)]
        with self.log, stdout:
            with contextlib.suppress(BrokenPipeError), stdin:
                stdin.write(json.dumps(request).encode())
            for start in range(0, len(job.tasks), step):
                count = min(step, len(job.tasks) - start)
                blocks = [stdout.read(column.step * count) for column in columns]
                if len(blocks[-1]) < columns[-1].step * count:
                    break  # it stopped, and its status says why
                for column, data in zip(columns, blocks, strict=True):
                    column.put(first + start, data)
                self.done = start + count
            self._demand_success(len(job.tasks))

    def _demand_success(self, tasks: int) -> None:
        status = self.process.wait()
        self.log.seek(0)
        lines: list[Any] = self.log.read().decode(errors="replace").splitlines()
        if status == _FAILED:
            raise ImageError(**json.loads(lines[-1]))
        if status or self.done < tasks:
            raise DataError(
                f"a decoding process ended with status {status}: {lines[-1] if lines else ''}",
                hint="decode in this process: --set data.num_workers=1",
            )
