"""Who gives way to others, and whether they leave it anything."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from mindtrace.jobs import share
from mindtrace.jobs.share import Share

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a policy of Linux")


@contextmanager
def busy(before: Callable[[], object] | None = None) -> Iterator[int]:
    """A process that computes for as long as it may; its id."""
    program = "while True: pass"
    with subprocess.Popen([sys.executable, "-c", program], preexec_fn=before) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def _step_back() -> None:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def test_who_gives_way_to_those_who_never_stop_starves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "_WINDOW", 0.2)
    with ExitStack() as stack:
        hungry = Share(stack.enter_context(busy(_step_back)))
        others = [stack.enter_context(busy()) for _ in range(os.cpu_count() or 1)]
        one = Share(others[0])
        deadline = time.monotonic() + 60
        while not hungry.starves():
            assert not one.starves()
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_who_sleeps_or_is_gone_does_not_starve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "_WINDOW", 0.05)
    words = [sys.executable, "-c", "print('here', flush=True); input()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.1)  # it falls asleep
        found = Share(process.pid)
        assert not any(found.starves() for _ in looks())
        process.kill()
    assert not any(found.starves() for _ in looks())


def looks() -> Iterator[None]:
    """Long enough for a few windows."""
    for _ in range(20):
        time.sleep(0.02)
        yield
