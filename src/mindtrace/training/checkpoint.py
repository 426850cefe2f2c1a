"""What a training needs to go on after it was interrupted, always whole on the disk.

In: a trainer at the end of an epoch. Out: `last.ckpt`, which holds the last epoch's
weights, the optimizer, Lightning's counters, and the best weights so far. A new one
replaces the old one by a rename after both were synced, so that at any moment, power
cut included, there is one or the other and never half of one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from mindtrace.bundle.manifest import sync
from mindtrace.errors import NotFoundError, TrainingError, UsageError

LAST = "last.ckpt"
_IDENTITY = "training.json"


@dataclass(frozen=True)
class Identity:
    """Which training a checkpoint belongs to.

    Attributes:
        run_id: of its MLflow run.
        model_name: under which it will register.
        config: INI text with every `auto` resolved.
        data_digest: of all images.
    """

    run_id: str
    model_name: str
    config: str
    data_digest: str


class Checkpoints(Checkpoint):
    """Writes `last.ckpt` after every epoch; Lightning calls it after the other callbacks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write aside, sync, rename, sync the folder."""
        aside = self._folder / f".{LAST}.part"
        try:
            trainer.save_checkpoint(aside)
            sync(aside)
            aside.replace(self._folder / LAST)
            sync(self._folder)
        except OSError as error:
            raise TrainingError(
                f"cannot write the checkpoint {self._folder / LAST}: {error.strerror}",
                hint="free some space or set [DIR_PATHS] CHECKPOINTS; the one before is whole",
            ) from error


def begin(checkpoints: Path, identity: Identity) -> Path:
    """Make the folder of a new training.

    Raises:
        TrainingError: it cannot be written.
    """
    folder = checkpoints / identity.run_id
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _IDENTITY).write_text(json.dumps(asdict(identity), indent=1), encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"cannot write checkpoints to {folder}: {error.strerror}") from error
    return folder


def find(checkpoints: Path, which: str) -> tuple[Path, Identity]:
    """The folder of `last` or of a run id, and what it belongs to.

    Raises:
        NotFoundError: there is no such checkpoint; with those that exist, newest first.
    """
    folders = sorted(
        (path.parent for path in checkpoints.glob(f"*/{LAST}")),
        key=lambda folder: (folder / LAST).stat().st_mtime_ns,
        reverse=True,
    )
    for folder in folders:
        if which in ("last", folder.name):
            text = (folder / _IDENTITY).read_text(encoding="utf-8")
            return folder, Identity(**json.loads(text))
    raise NotFoundError("checkpoint", which, [folder.name for folder in folders])


def require_same(found: Identity, wanted: Identity) -> None:
    """A training goes on as what it began as, or not at all.

    Raises:
        UsageError: with every line of the configuration that differs.
    """
    differences = [
        f"{key} was {old}, is {new}"
        for key, (old, new) in _changed(_values(found.config), _values(wanted.config)).items()
    ]
    if found.model_name != wanted.model_name:
        differences.append(f"model_name was {found.model_name}, is {wanted.model_name}")
    if found.data_digest != wanted.data_digest:
        differences.append("the images are others than those it began with")
    if differences:
        raise UsageError(
            f"cannot resume {found.run_id}: {'; '.join(differences)}",
            hint="give the configuration it began with, or start anew without --resume",
        )


def remove(folder: Path) -> None:
    """A training that ended well needs its checkpoint no more."""
    shutil.rmtree(folder, ignore_errors=True)


def _values(config: str) -> dict[str, str]:
    """`section.key` to value, of INI text that `Settings.to_ini` wrote."""
    values, section = {}, ""
    for line in config.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif "=" in line:
            key, _, value = line.partition("=")
            values[f"[{section}] {key.strip()}"] = value.strip()
    return values


def _changed(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    return {
        key: (old.get(key, "nothing"), new.get(key, "nothing"))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    }
