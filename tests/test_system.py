"""Signals as errors, files written as a whole, locks, child processes, the machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from mindtrace import system
from mindtrace.errors import InterruptedByUser
from mindtrace.system import atomic_write, file_lock, interruptible, last_json, try_lock

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def send(signum: int) -> None:
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_is_raised_at_once_and_the_handlers_come_back(signum: int) -> None:
    before = [signal.getsignal(signum) for signum in SIGNALS]
    with pytest.raises(InterruptedByUser) as caught, interruptible():
        send(signum)
        raise AssertionError("nobody stopped here")
    assert caught.value.signum == signum
    assert [signal.getsignal(signum) for signum in SIGNALS] == before


def test_a_hangup_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible() as interrupts:
            send(signal.SIGHUP)
            assert interrupts.wanted() is None
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_block_that_looks_itself_is_left_whole(signum: int) -> None:
    done = []
    with pytest.raises(InterruptedByUser) as caught, interruptible() as interrupts:
        with interrupts.deferred():
            send(signum)
            done.append(interrupts.wanted())
        raise AssertionError("what was overlooked is raised at the end of the block")

    assert caught.value.signum == signum
    assert [error.signum for error in done if error is not None] == [signum]


def test_a_deferred_block_without_a_signal_and_with_an_error_of_its_own() -> None:
    with interruptible() as interrupts, interrupts.deferred():
        assert interrupts.wanted() is None
    with pytest.raises(ZeroDivisionError), interruptible() as interrupts, interrupts.deferred():
        send(signal.SIGTERM)
        raise ZeroDivisionError
    with pytest.raises(InterruptedByUser), interruptible() as interrupts:
        with interrupts.deferred():
            pass
        send(signal.SIGTERM)


def test_in_another_thread_nothing_is_changed() -> None:
    before = [signal.getsignal(signum) for signum in SIGNALS]
    seen: list[object] = []

    def work() -> None:
        with interruptible() as interrupts, interrupts.deferred():
            seen.append([signal.getsignal(signum) for signum in SIGNALS])
            seen.append(interrupts.wanted())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert seen == [before, None]


def test_auto_misses_no_device_that_torch_has() -> None:
    """Seen from here; that torch was built for it is looked at where torch is loaded."""
    device = system.auto_device()

    assert device in ("cpu", "cuda", "mps")
    assert not (device == "cpu" and torch.cuda.is_available())


def test_hidden_gpus_are_seen_by_nobody_and_no_torch_is_imported() -> None:
    code = (
        "import os, sys; from mindtrace.system import auto_device, hide_gpus\n"
        "auto_device(); hide_gpus(); assert os.environ['CUDA_VISIBLE_DEVICES'] == ''\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_file_is_replaced_as_a_whole_or_keeps_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "state.json"
    atomic_write(file, b"{}\n")
    atomic_write(file, b"[]\n")
    assert file.read_bytes() == b"[]\n"

    def full(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        atomic_write(file, b"new")
    assert file.read_bytes() == b"[]\n"
    assert list(tmp_path.iterdir()) == [file]


def test_a_lock_is_exclusive_and_a_waiter_is_told_once(tmp_path: Path) -> None:
    waits: list[bool] = []
    free = threading.Event()

    def second() -> None:
        def on_wait() -> None:
            waits.append(True)
            free.set()

        with file_lock(tmp_path / "lock", on_wait=on_wait):
            waits.append(False)

    with file_lock(tmp_path / "lock"):
        with (tmp_path / "lock").open("a") as other:
            assert not try_lock(other.fileno())
        waiter = threading.Thread(target=second)
        waiter.start()
        assert free.wait(10)
        assert waits == [True]
    waiter.join(10)
    assert waits == [True, False]


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (b'progress\n{"a": 1}\n', {"a": 1}),
        *((x, {}) for x in (b'{"a": 1}\nbye', b"{x", b"[1]", b"")),
    ],
)
def test_the_last_line_counts_if_it_is_an_object(output: bytes, found: dict[str, int]) -> None:
    assert last_json(output) == found
