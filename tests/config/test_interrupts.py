"""SIGINT and SIGTERM arrive as errors, at once or where the work can bear it."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from mindtrace.errors import InterruptedByUser
from mindtrace.system import interruptible

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
