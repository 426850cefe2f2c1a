"""Signals, files, locks, child processes and the machine: what the standard library lacks."""

import fcntl
import json
import os
import platform
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from mindtrace.errors import InterruptedByUser, UsageError


def stop_signals() -> tuple[signal.Signals, ...]:
    """What asks for an orderly end; SIGHUP not where `nohup` has it ignored."""
    hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM, *(signal.SIGHUP,) * hangs_up)


class Interrupts:
    """Whether a signal has asked this work to stop."""

    def __init__(self) -> None:
        self._signum: int | None = None
        self._deferred = False

    def wanted(self) -> InterruptedByUser | None:
        """The error to raise, or None to go on."""
        return None if self._signum is None else InterruptedByUser(self._signum)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A block that is about to end anyhow: the first signal is ignored, the second raises."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A block that checks `wanted` itself; a signal it missed is raised at its end."""
        with self.held():
            yield
        error = self.wanted()
        if error is not None:
            raise error

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        second = self._signum is not None
        self._signum = signum
        if second or not self._deferred:
            raise InterruptedByUser(signum)


@contextmanager
def interruptible() -> Iterator[Interrupts]:
    """Turn the signals that ask for an end into errors while the block runs."""
    interrupts = Interrupts()
    with handled_signals(interrupts._on_signal):
        yield interrupts


@contextmanager
def handled_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Give the signals that ask for an end to a handler while the block runs."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers no signals here
        return
    before = {signum: signal.signal(signum, handler) for signum in stop_signals()}
    try:
        yield
    finally:
        for signum, old in before.items():
            signal.signal(signum, old)


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of files, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def aside(path: Path) -> Path:
    """A hidden name beside `path` that no other process uses, to write and then rename."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")


def atomic_write(path: Path, data: bytes) -> None:
    """Replace a file as a whole: readers see the old content or the new."""
    part = aside(path)
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def require_output(option: str, path: Path, suffixes: Collection[str]) -> None:
    """Refuse what `write_output` could not write; called before the work."""
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{option} {path}: must end in {' or '.join(suffixes)}")
    if path.is_dir() or not path.parent.is_dir():
        reason = "is a folder" if path.is_dir() else f"no such folder: {path.parent}"
        raise UsageError(f"{option} {path}: {reason}")


def write_output(option: str, path: Path, data: bytes) -> None:
    """Write the file that an option names: whole, or it is as it was; UsageError."""
    try:
        atomic_write(path, data)
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror}") from error


def try_lock(descriptor: int) -> bool:
    """Lock an open file exclusively; False if another process holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def file_lock(path: Path, *, on_wait: Callable[[], None] | None = None) -> Iterator[int]:
    """Hold a lock on a file, freed when the process dies; `on_wait`: another process has it."""
    with path.open("a") as file:
        if not try_lock(file.fileno()):
            if on_wait is not None:
                on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def own_command(*words: str) -> list[str]:
    """The command line of `mindtrace WORDS`, with this interpreter."""
    # -P: a file of the working directory must not stand in for a module.
    return [sys.executable, "-P", "-m", "mindtrace", *words]


@dataclass(frozen=True)
class ChildResult:
    """How a child ended; `document` is the JSON object in the last line of its stdout."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def document(self) -> dict[str, Any]:
        """The last line of stdout as JSON; empty if it is no object."""
        return last_json(self.stdout)

    @property
    def error(self) -> dict[str, Any]:
        """`{type, message, hint}` from the last line of stderr; empty if there is none."""
        found = last_json(self.stderr).get("error")
        return found if isinstance(found, dict) else {}


def last_json(output: bytes) -> dict[str, Any]:
    """The JSON object in the last line; empty if that line holds none."""
    line = output.strip().rpartition(b"\n")[2]
    try:
        found = json.loads(line) if line.startswith(b"{") else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


_NVIDIA = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/proc/driver/nvidia/version"))


def auto_device() -> str:
    """`cuda`, `mps` or `cpu`: what `[compute] device = auto` means on this machine."""
    if any(path.exists() for path in _NVIDIA):
        return "cuda"
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return "mps"
    return "cpu"


def processor() -> str:
    """The processor's name, as far as the system reports it."""
    for line in _cpuinfo().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware."""
    text = _cpuinfo()
    return "avx512_bf16" in text or "amx_bf16" in text


def _cpuinfo() -> str:
    file = Path("/proc/cpuinfo")
    return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""


def hide_gpus() -> None:
    """Hide GPUs from torch; call it before torch is imported, in a process of our own."""
    # A CUDA build of torch without a GPU looks for the driver at each optimizer step,
    # about a tenth of the step of a small network.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
