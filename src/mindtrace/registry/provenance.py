"""Where a version comes from: software, machine, time, person, code; flat text for its tags."""

import getpass
import hashlib
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

from mindtrace.config.settings import Settings
from mindtrace.registry.names import PREFIX
from mindtrace.system import processor
from mindtrace.version import VERSION

GIT_TIMEOUT = 5.0  # seconds
_PACKAGE = Path(__file__).parents[1]
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
    digest = hashlib.sha256()
    for name in ("torch", "torchvision", "timm", "pytorch-lightning", "numpy"):
        digest.update(f"{name} {version(name)}\n".encode())
    for name in _TRAINING_CODE:
        place = _PACKAGE / name
        for path in sorted(place.glob("*.py")) if place.is_dir() else [place]:
            digest.update(f"{path.relative_to(_PACKAGE)}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


@cache  # what runs is what was imported
def git_state(folder: Path = _PACKAGE) -> dict[str, str]:
    """Commit of the code in `folder` and whether it differs; empty where none is committed."""
    # The folder's own tree: an installed package may lie in the ignored .venv of another project.
    found = _git(folder, "rev-parse", "HEAD", "HEAD:./")
    if found is None:
        return {}
    where = ("--untracked-files=all", "--", ".", ":!*.pyc")
    changes = _git(folder, "status", "--porcelain", *where)
    return {"git_commit": found.split()[0], "git_dirty": str(bool(changes)).lower()}


def run_name(settings: Settings, model: str) -> str:
    """Of an MLflow run, by its model or version: `mnist-cnn seed 0`, `mnist/3 cnn seed 0`."""
    network = settings.model.name
    named = model.partition("/")[0].endswith(f"-{network}")
    return " ".join([model, *([] if named else [network]), f"seed {settings.train.seed}"])


def run_tags(settings: Settings, name: str, job_id: str | None, source: str) -> dict[str, str]:
    """Tags of a run: ours, and what MLflow's pages show as Created by, Source and Description."""
    images = settings.data.dir or settings.data.source
    tags = {
        **{PREFIX + key: value for key, value in environment().items()},
        PREFIX + "job_id": job_id,
        "mlflow.user": who(),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": source,
        "mlflow.source.git.commit": git_state().get("git_commit"),
        "mlflow.note.content": f"mindtrace {VERSION} trains {settings.model.name} on {images} "
        f"with seed {settings.train.seed}, for the model {name}.",
    }
    return {key: value for key, value in tags.items() if value is not None}


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
