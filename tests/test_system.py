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
from mindtrace.system import atomic_write, file_lock, interruptible, last_json, run_child, try_lock

SIGNALS = [signal.SIGINT, signal.SIGTERM]


def send(signum: int) -> None:
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_is_raised_at_once(signum: int) -> None:
    with pytest.raises(InterruptedByUser) as caught, interruptible():
        send(signum)
        raise AssertionError("nobody stopped here")

    assert caught.value.signum == signum


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


def test_nobody_who_asked_for_nothing_wants_to_stop() -> None:
    with interruptible() as interrupts, interrupts.deferred():
        assert interrupts.wanted() is None


def test_an_error_of_the_block_itself_comes_through() -> None:
    with pytest.raises(ZeroDivisionError), interruptible() as interrupts, interrupts.deferred():
        send(signal.SIGTERM)
        raise ZeroDivisionError


def test_after_a_deferred_block_signals_are_raised_at_once_again() -> None:
    with pytest.raises(InterruptedByUser), interruptible() as interrupts:
        with interrupts.deferred():
            pass
        send(signal.SIGTERM)


def test_the_handlers_of_before_come_back_whatever_happens() -> None:
    before = [signal.getsignal(signum) for signum in SIGNALS]

    with pytest.raises(InterruptedByUser), interruptible():
        send(signal.SIGINT)

    assert [signal.getsignal(signum) for signum in SIGNALS] == before


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


def test_hidden_gpus_are_seen_by_nobody_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    system.hide_gpus()

    done = subprocess.run(
        [sys.executable, "-c", "import os; print(repr(os.environ['CUDA_VISIBLE_DEVICES']))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "''\n"


def test_looking_at_the_machine_imports_no_torch() -> None:
    script = "import sys; from mindtrace.system import auto_device; auto_device()"

    done = subprocess.run(
        [sys.executable, "-c", script + "; sys.exit('torch' in sys.modules)"], check=False
    )
    assert done.returncode == 0


def test_a_file_is_replaced_as_a_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    atomic_write(file, "{}\n")
    atomic_write(file, b"[]\n", durable=False)

    assert file.read_bytes() == b"[]\n"
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_cannot_be_written_keeps_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "state.json"
    file.write_text("old")

    def full(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        atomic_write(file, "new")

    assert file.read_text() == "old"
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


def test_a_child_is_this_mindtrace_and_its_last_line_is_read() -> None:
    done = run_child(["registry", "show", "nobody@nowhere", "--json"], timeout=60)

    assert (done.status, done.document) == (4, {})
    assert set(done.error) >= {"type", "message", "hint"}


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (b'progress\n{"a": 1}\n', {"a": 1}),
        (b'{"a": 1}\nbye\n', {}),
        (b"{broken\n", {}),
        (b"[1]\n", {}),
        (b"", {}),
    ],
)
def test_the_last_line_counts_if_it_is_an_object(output: bytes, found: dict[str, int]) -> None:
    assert last_json(output) == found
