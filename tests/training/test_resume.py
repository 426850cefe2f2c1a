"""A training that was interrupted ends as one that was not."""

from __future__ import annotations

import os
import resource
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest
import pytorch_lightning as pl
from tests.training.conftest import Fit, InterruptAt, PowerCutError, digest

from mindtrace.errors import ConflictError, NotFoundError, TrainingError, UsageError
from mindtrace.training import checkpoint
from mindtrace.training.checkpoint import Identity
from mindtrace.training.fit import TrainResult

ONE_CYCLE = ("train.max_epochs=5", "train.schedule=one_cycle", "train.lr=0.01")
FROZEN = ("model.name=cnn", "model.freeze=true", "train.max_epochs=4")
IMPATIENT = ("train.patience=1", "train.lr=0.3", "train.max_epochs=30")


@pytest.fixture(scope="module")
def whole(fitted: Fit) -> TrainResult:
    return fitted(*ONE_CYCLE)


def same(resumed: TrainResult, whole: TrainResult) -> bool:
    assert digest(resumed) == digest(whole)
    assert resumed.metrics == whole.metrics
    numbers = ("steps", "epochs", "best_epoch")
    return all(getattr(resumed, name) == getattr(whole, name) for name in numbers)


@pytest.mark.parametrize("epoch", [2, 4, 5])
def test_resumed_weights_are_those_of_an_uninterrupted_training(
    fitted: Fit, whole: TrainResult, tmp_path: Path, epoch: int
) -> None:
    with pytest.raises(PowerCutError):
        fitted(*ONE_CYCLE, callbacks=[InterruptAt(epoch)], checkpoints=tmp_path)
    assert same(fitted(*ONE_CYCLE, checkpoints=tmp_path, resume=True), whole)
    again = fitted(*ONE_CYCLE, checkpoints=tmp_path, resume=True)
    assert same(again, whole), "after the last epoch it needs no more steps"


@pytest.mark.parametrize("epoch", [2, 4])
@pytest.mark.parametrize("root", ["a", "b"], ids=["graph kept", "graph gone"])
def test_so_are_those_of_a_last_layer_alone(
    fitted: Fit, tmp_path: Path, epoch: int, root: str
) -> None:
    sets = (*FROZEN, f"dir_paths.root={tmp_path / 'a'}")
    whole = fitted(*sets)
    with pytest.raises(PowerCutError):
        fitted(*sets, callbacks=[InterruptAt(epoch)], checkpoints=tmp_path)
    other = (*FROZEN, f"dir_paths.root={tmp_path / root}")
    assert same(fitted(*other, checkpoints=tmp_path, resume=True), whole)


def test_patience_is_counted_across_an_interruption(fitted: Fit, tmp_path: Path) -> None:
    whole = fitted(*IMPATIENT)
    assert whole.epochs < 30, "the test wants a training that stops early"
    with pytest.raises(PowerCutError):
        fitted(*IMPATIENT, callbacks=[InterruptAt(whole.epochs)], checkpoints=tmp_path)
    assert same(fitted(*IMPATIENT, checkpoints=tmp_path, resume=True), whole)


def _left(checkpoints: Path, run_id: str, *, age: int | None = None) -> Path:
    """The folder of a training that was killed, its checkpoint of that age; None: it has none."""
    folder = checkpoints / run_id
    with checkpoint.held(folder):
        checkpoint.write_identity(folder, Identity(run_id, "m", "", "d"))
        if age is not None:
            ZipFile(folder / checkpoint.LAST, "w").close()
            os.utime(folder / checkpoint.LAST, (1000 - age, 1000 - age))
    return folder


def test_last_is_the_newest_checkpoint_of_those_that_nobody_goes_on_with(tmp_path: Path) -> None:
    for run_id, age in (("old", 10), ("new", 5), ("oldest", 20), ("without", None)):
        _left(tmp_path, run_id, age=age)

    assert checkpoint.find(tmp_path, "last").run_id == "new"
    assert checkpoint.find(tmp_path, "oldest").run_id == "oldest"
    with checkpoint.held(tmp_path / "new"):
        assert checkpoint.find(tmp_path, "last").run_id == "old"
        assert checkpoint.find(tmp_path, "new").run_id == "new"
        assert sorted(checkpoint.abandoned(tmp_path)) == ["old", "oldest", "without"]
        with pytest.raises(ConflictError, match="new goes on in another process"):
            checkpoint.held(tmp_path / "new").__enter__()
    with pytest.raises(NotFoundError) as caught:
        checkpoint.find(tmp_path, "without")
    assert caught.value.known == ("new", "old", "oldest")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((checkpoint.LAST, content) for content in (b"", b"PK\x03\x04 and no end", b"other")),
        *(("training.json", content) for content in (b"", b"{", b"[]", b'{"x": 1}', b"\xff")),
        ("training.json", None),
    ],
)
def test_a_damaged_checkpoint_is_said_to_be(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    file = _left(tmp_path, "run", age=1) / name
    file.unlink() if content is None else file.write_bytes(content)
    for which in ("last", "run"):
        with pytest.raises(TrainingError, match="damaged") as caught:
            checkpoint.find(tmp_path, which)
        assert caught.value.hint == "start anew"


def test_another_configuration_is_refused_with_every_difference() -> None:
    found = Identity("r", "m", "[train]\nmax_epochs = 1\nlr = 0.1\nseed = 0\n", "d")

    with pytest.raises(UsageError) as caught:
        checkpoint.require_same(
            found, Identity("r", "n", "[train]\nmax_epochs = 1\nlr = 0.2\nseed = 0\n", "e")
        )

    assert "[train] lr was 0.1, is 0.2" in caught.value.message
    assert "model_name was m, is n" in caught.value.message
    assert "images" in caught.value.message
    assert "seed" not in caught.value.message


def test_a_key_that_is_younger_than_the_checkpoint_has_its_default() -> None:
    found = Identity("r", "m", "[train]\nmax_epochs = 1\nseed = 0\n", "d")
    now = "[train]\nmax_epochs = 1\nseed = 0\nmixup = {}\nbalance = none\n"
    checkpoint.require_same(found, replace(found, config=now.format("0")))
    with pytest.raises(UsageError, match=r"mixup was 0, is 0\.5"):
        checkpoint.require_same(found, replace(found, config=now.format("0.5")))


class NoRoomFrom(pl.Callback):
    """From an epoch on no file may grow beyond 10 kB, as on a disk that is full."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch + 1 == self.epoch:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))


def test_without_room_for_a_checkpoint_the_one_before_stays_whole(
    fitted: Fit, whole: TrainResult, tmp_path: Path
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(TrainingError, match=str(tmp_path / checkpoint.LAST)):
            fitted(*ONE_CYCLE, callbacks=[NoRoomFrom(3)], checkpoints=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert same(fitted(*ONE_CYCLE, checkpoints=tmp_path, resume=True), whole)
