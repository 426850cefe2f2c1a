"""Where a version comes from: software, machine, time, person, code; flat text for its tags."""

from __future__ import annotations

import getpass
import hashlib
import platform
import subprocess
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from mindtrace.system import processor
from mindtrace.version import VERSION

GIT_TIMEOUT = 5.0  # seconds
# What weights and predictions come from; the interfaces may change without changing a training.
_TRAINING_CODE = ("data", "models", "training", "preprocess.py")


def who() -> str:
    """The user's name on this machine, `unknown` where there is none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def environment() -> dict[str, str]:
    """Versions of what trains, the platform and the processor."""
    return {
        "mindtrace": VERSION,
        "torch": version("torch"),
        "lightning": version("pytorch-lightning"),
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.machine()}",
        "processor": processor(),
    }


def code_digest() -> str:
    """SHA-256 of the code that trains, ours and the libraries' versions; 64 hexadecimal digits."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for name in ("torch", "torchvision", "timm", "pytorch-lightning", "numpy"):
        digest.update(f"{name} {version(name)}\n".encode())
    for name in _TRAINING_CODE:
        place = package / name
        for path in sorted(place.glob("*.py")) if place.is_dir() else [place]:
            digest.update(f"{path.relative_to(package)}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def git_state(folder: Path) -> dict[str, str]:
    """Commit of the repository around `folder`, and whether it has changes; empty if none."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {}
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"git_commit": commit, "git_dirty": str(bool(changes)).lower()}


def times(started_at: datetime, ended_at: datetime) -> dict[str, str]:
    """Start, end (UTC, ISO 8601) and the seconds between."""
    return {
        "started_at": started_at.isoformat(timespec="milliseconds"),
        "ended_at": ended_at.isoformat(timespec="milliseconds"),
        "duration_s": f"{(ended_at - started_at).total_seconds():.3f}",
    }


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
