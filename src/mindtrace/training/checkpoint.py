"""`last.ckpt`, from which an interrupted training goes on, and what it belongs to."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from zipfile import is_zipfile

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from mindtrace.bundle.bundle import EARLIER_RULE
from mindtrace.config.ini import values_of
from mindtrace.config.sections import default_texts
from mindtrace.errors import ConflictError, NotFoundError, TrainingError, UsageError
from mindtrace.system import atomic_write, file_lock, sync

LAST = "last.ckpt"
LOCK = "lock"  # held while a process trains
_IDENTITY = "training.json"


@dataclass(frozen=True)
class Identity:
    """Which training a checkpoint belongs to; `config` is INI text with every `auto` resolved."""

    run_id: str
    model_name: str
    config: str
    data_digest: str
    split_rule: str = EARLIER_RULE


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
            message = f"cannot write the checkpoint {self._folder / LAST}: {reason}"
            hint = "free some space or set [DIR_PATHS] CHECKPOINTS; the one before is whole"
            raise TrainingError(message, hint=hint) from error
        finally:
            part.unlink(missing_ok=True)


def write_identity(folder: Path, identity: Identity) -> None:
    """Say, whole or not at all, which training a folder's checkpoint belongs to."""
    atomic_write(folder / _IDENTITY, json.dumps(asdict(identity), indent=1).encode())


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """A training's folder, for this process alone; ConflictError if another one trains there."""

    def refuse() -> None:
        hint = "wait for its end, or resume another run"
        raise ConflictError(f"training {folder.name} goes on in another process", hint=hint)

    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / LOCK, on_wait=refuse):
        yield


def is_held(folder: Path) -> bool:
    """Whether a process trains there."""
    with suppress(ConflictError), held(folder):
        return False
    return True


def abandoned(checkpoints: Path) -> list[str]:
    """The runs of trainings that began here and that no process goes on with."""
    folders = [path.parent for path in checkpoints.glob(f"*/{LOCK}")]
    return [folder.name for folder in folders if not is_held(folder)]


def find(checkpoints: Path, which: str) -> Identity:
    """The training of `last` (of those that no process goes on with), or of a run id."""
    folders = sorted(
        (path.parent for path in checkpoints.glob(f"*/{LAST}")),
        key=lambda folder: (not is_held(folder), (folder / LAST).stat().st_mtime_ns),
        reverse=True,
    )
    for folder in folders:
        if which in ("last", folder.name):
            with suppress(OSError, ValueError, TypeError):
                identity = Identity(**json.loads((folder / _IDENTITY).read_bytes()))
                if is_zipfile(folder / LAST):
                    return identity
            raise TrainingError(f"the checkpoint in {folder} is damaged", hint="start anew")
    raise NotFoundError("checkpoint", which, [folder.name for folder in folders])


def require_same(found: Identity, wanted: Identity) -> None:
    """UsageError with every difference, more epochs aside, if it would be another training."""
    # A key that is younger than the checkpoint has its default, which changes nothing.
    defaults = {f"{section}.{key}": text for (section, key), text in default_texts().items()}
    defaults["data.resize"] = "stretch"  # what was done before there was a choice
    new = values_of(wanted.config)
    old = {key: text for key, text in defaults.items() if key in new} | values_of(found.config)
    more_epochs = int(new["train.max_epochs"]) > int(old["train.max_epochs"])
    # Under another schedule every learning rate depends on the number of epochs.
    if more_epochs and old["train.schedule"] == "constant":
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
        message = f"cannot resume {found.run_id}: {'; '.join(differences)}"
        raise UsageError(message, hint="give the configuration it began with, or start anew")
