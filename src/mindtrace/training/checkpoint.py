"""`last.ckpt`, from which an interrupted training goes on, and what it belongs to."""

from __future__ import annotations

import configparser
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from mindtrace.bundle.bundle import EARLIER_RULE
from mindtrace.config.sections import TRAVELLING, default_texts
from mindtrace.errors import NotFoundError, TrainingError, UsageError, hint_if_full
from mindtrace.system import atomic_write, sync

LAST = "last.ckpt"
_IDENTITY = "training.json"


@dataclass(frozen=True)
class Identity:
    """Which training a checkpoint belongs to; `config` is INI text with every `auto` resolved."""

    run_id: str
    model_name: str
    config: str
    data_digest: str
    split_rule: str = EARLIER_RULE

    def values(self) -> dict[str, str]:
        """The configuration's values by `section.key`, as text."""
        parser = configparser.ConfigParser(interpolation=None, delimiters="=")
        parser.read_string(self.config)
        return {
            f"{section}.{key}": value for section in parser for key, value in parser.items(section)
        }


class Checkpoints(Checkpoint):
    """Writes `last.ckpt` after every epoch; Lightning calls it after the other callbacks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace the checkpoint as a whole: after a power cut the old one or the new is there."""
        part = self._folder / f".{LAST}.part"
        try:
            trainer.save_checkpoint(part)
            sync(part)
            part.replace(self._folder / LAST)
            sync(self._folder)
        except (OSError, RuntimeError) as error:  # torch's writer raises its own
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise TrainingError(
                f"cannot write the checkpoint {self._folder / LAST}: {reason}",
                hint="free some space or set [DIR_PATHS] CHECKPOINTS; the one before is whole",
            ) from error
        finally:
            part.unlink(missing_ok=True)


def begin(checkpoints: Path, identity: Identity) -> Path:
    """Make the folder of a new training."""
    folder = checkpoints / identity.run_id
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_identity(folder, identity)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        reason = f"cannot write checkpoints to {folder}: {error.strerror}"
        raise TrainingError(reason, hint=hint_if_full(error)) from error
    return folder


def write_identity(folder: Path, identity: Identity) -> None:
    """Say, whole or not at all, which training a folder's checkpoint belongs to."""
    atomic_write(folder / _IDENTITY, json.dumps(asdict(identity), indent=1).encode())


def find(checkpoints: Path, which: str) -> tuple[Path, Identity]:
    """The folder of `last` or of a run id, and what it belongs to."""
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
    """UsageError with every difference, more epochs aside, if it would be another training."""
    # A key that is younger than the checkpoint has its default, which changes nothing.
    new = wanted.values()
    old = {key: text for key, text in _defaults().items() if key in new} | found.values()
    if int(new["train.max_epochs"]) > int(old["train.max_epochs"]):
        if old["train.schedule"] != "constant":
            raise UsageError(
                f"cannot resume {found.run_id} with more epochs: under schedule = "
                f"{old['train.schedule']} every learning rate depends on their number",
                hint=f"mindtrace train --resume {found.run_id}  # without more epochs",
            )
        old["train.max_epochs"] = new["train.max_epochs"]
    differences = [
        "[{}] {} was {}, is {}".format(
            *key.split(".", 1), old.get(key, "nothing"), new.get(key, "nothing")
        )
        for key in sorted(old.keys() | new.keys())
        # The images have a digest, wherever they are: their folder may have moved with ROOT.
        if old.get(key) != new.get(key) and key != "data.dir"
    ]
    if found.model_name != wanted.model_name:
        differences.append(f"model_name was {found.model_name}, is {wanted.model_name}")
    if found.data_digest != wanted.data_digest:
        differences.append("the images are not those it began with")
    if differences:
        raise UsageError(
            f"cannot resume {found.run_id}: {'; '.join(differences)}",
            hint="give the configuration it began with, or start anew",
        )


def _defaults() -> dict[str, str]:
    texts = default_texts().items()
    found = {f"{section}.{key}": text for (section, key), text in texts if section in TRAVELLING}
    return found | {"data.resize": "stretch"}  # what was done before there was a choice
