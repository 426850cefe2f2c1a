"""Splits, order and batches of a source in memory; digests; the package's names."""

from __future__ import annotations

import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.nn.functional import cross_entropy

import mindtrace.data
from mindtrace.bundle.predictions import pairs_digest
from mindtrace.config.settings import load_settings
from mindtrace.data import MNIST, Digits, FashionMNIST, ImageFolder, ImageTable, build_data
from mindtrace.preprocess import image_digest


@pytest.fixture
def data() -> Digits:
    return Digits(batch_size=64)


def labels(batches: Any) -> list[int]:
    return [int(label) for _, y in batches for label in y]


def test_batches_are_normalised_tensors(data: Digits) -> None:
    for loader, size in (
        (data.train_dataloader(), 64),
        (data.val_dataloader(), 144),
        (data.test_dataloader(), 359),
    ):
        x, y = next(iter(loader))
        assert x.dtype == torch.float32 and x.shape == (size, 1, 8, 8)
        assert y.dtype == torch.int64 and y.shape == (size,)
    whole = torch.cat([x for x, _ in data.train_dataloader()])
    assert abs(float(whole.mean())) < 0.05 and abs(float(whole.std()) - 1) < 0.05


def test_nothing_is_dropped_and_len_is_right(data: Digits) -> None:
    sizes = [len(y) for _, y in data.train_dataloader()]
    assert len(sizes) == len(data.train_dataloader()) == 21
    assert sum(sizes) == len(data.split("train")) == 1294
    assert sorted(labels(data.train_dataloader())) == sorted(data.split("train").labels.tolist())
    assert labels(data.val_dataloader()) == data.split("val").labels.tolist()


def test_order_is_a_function_of_seed_and_epoch(data: Digits) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        data.order.seed = seed
        data.order.set_epoch(epoch)
        torch.manual_seed(epoch)
        next(iter(data.train_dataloader()))  # one batch does not move the order
        return labels(data.train_dataloader())

    first, second = order(0, 0), order(0, 1)
    assert order(0, 0) == first != second
    assert order(1, 0) != first
    assert order(0, 0) == first
    assert labels(data.train_dataloader()) == second, "a plain loop goes on to the next epoch"


@pytest.mark.parametrize("augment", ["none", "light"])
@pytest.mark.parametrize("chunk", [2, 20, 21, 100])
def test_chunks_hold_the_same_batches(data: Digits, chunk: int, augment: str) -> None:
    data.augment = augment
    plain = list(data.train_dataloader())
    data.order.set_epoch(0)
    data.chunk = chunk
    lists = list(data.train_dataloader())
    assert len(lists) == len(data.train_dataloader())
    assert all(len(batches) <= chunk for batches in lists)
    chunked = [batch for batches in lists for batch in batches]
    for (x, y), (u, v) in zip(plain, chunked, strict=True):
        assert torch.equal(x, u) and torch.equal(y, v)


def test_large_images_come_in_smaller_chunks() -> None:
    data = Digits(batch_size=128, image_size=256)
    data.chunk = 32
    batches = next(iter(data.train_dataloader()))
    assert [len(y) for _, y in batches] == [128, 128]
    assert len(data.train_dataloader()) == 6
    assert len(next(iter(data.test_dataloader()))[1]) == 256


def test_printing_says_images_and_splits(data: Digits) -> None:
    sizes = f"train {len(data.train):,}, val {len(data.val):,}, test {len(data.test):,}"
    assert str(data) == f"Digits: 1,797 images, 8 x 8 grey, 10 classes: {sizes}"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch_size = 0: must be 1 or more"),
        ({"split_seed": -1}, "split_seed = -1: must be 0 or more"),
        ({"image_size": 0}, "image_size = 0: must be"),
    ],
)
def test_a_number_out_of_range_is_refused_at_once(options: dict[str, Any], words: str) -> None:
    for kind in (Digits, MNIST):
        with pytest.raises(ValueError, match=words):
            kind(**options)


def test_sample_and_setup(data: Digits) -> None:
    image, label = data.sample("test", 5)
    x, y = next(iter(data.test_dataloader()))
    assert torch.equal(image, x[5]) and label == int(y[5])
    assert data.sample()[0].shape == (1, 8, 8)
    with pytest.raises(ValueError, match="'training': one of train, val, test"):
        data.sample("training")
    with pytest.raises(IndexError):
        data.sample("val", 144)
    split = data.split("train")
    data.setup("test")
    assert data.split("train") is split


def test_a_data_digest_does_not_depend_on_the_order() -> None:
    pairs = [(bytes([n]) * 32, n % 3) for n in range(9)]
    assert pairs_digest(pairs) == pairs_digest(reversed(pairs))
    assert pairs_digest(pairs) != pairs_digest([*pairs[1:], (pairs[0][0], 2)])


def test_digests_name_the_data_and_the_test_set(data: Digits) -> None:
    same, other = Digits(batch_size=8, num_val=0.3), Digits(split_seed=1)
    assert data.digests().counts == {"train": 1294, "val": 144, "test": 359}
    for found in (same, other):
        assert found.digests().data_digest == data.digests().data_digest
    assert same.digests().test_digest == data.digests().test_digest
    assert other.digests().test_digest != data.digests().test_digest


def test_digits_are_those_of_scikit_learn(data: Digits) -> None:
    from sklearn.datasets import load_digits

    theirs = load_digits()
    levels = np.round(theirs.images * 255 / 16 + 1e-9).astype(np.uint8)
    digests = [image_digest(image) for image in levels]
    expected = sorted(zip(digests, theirs.target.tolist(), strict=True))
    found = []
    for stage in ("train", "val", "test"):
        split = data.split(stage)
        assert set(split.labels.tolist()) == set(range(10))
        found += zip(split.digests(), split.labels.tolist(), strict=True)
    assert sorted(found) == expected


@pytest.mark.parametrize(
    ("source", "kind", "own"),
    [
        ("digits", Digits, {"num_val": 50, "test_fraction": 0.5, "augment": "light"}),
        ("mnist", MNIST, {"mirror": "http://m.example/x", "num_train": None, "num_val": 5_000}),
        ("fashion_mnist", FashionMNIST, {"batch_size": 32, "image_size": 20, "augment": "none"}),
        ("folder", ImageFolder, {"dir": Path("/pets"), "num_workers": 1, "num_val": 0.1}),
        ("table", ImageTable, {"dir": Path("/pets.csv"), "group": r"p(\d+)", "split_seed": 7}),
    ],
)
def test_settings(root: Path, source: str, kind: type, own: dict[str, Any]) -> None:
    sets = [f"data.{key}={value}" for key, value in own.items() if key != "num_train"]
    data: Any = build_data(load_settings(sets=[f"data.source={source}", *sets]))
    assert (type(data), data.source) == (kind, source)
    assert {name: getattr(data, name) for name in own} == own
    if source != "digits":
        home = data.cache_dir.parent if hasattr(data, "cache_dir") else data.data_dir
        assert home == root / "data"
    if isinstance(data, MNIST):
        assert kind().data_dir == root / "data", "also without settings"


def test_the_package_loads_nothing_until_it_is_used() -> None:
    code = (
        "import sys, mindtrace.data as data; assert 'torch' not in sys.modules;"
        "import mindtrace.data.decode; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in mindtrace.data.__all__:
        assert getattr(mindtrace.data, name).__name__ == name
    with pytest.raises(AttributeError, match="attribute CIFAR"):
        mindtrace.data.CIFAR  # noqa: B018


class Mine(pl.LightningModule):
    """A module of the user's own; it keeps the labels that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(64, 10)
        self.seen: list[int] = []

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        batches = batch if isinstance(batch[0], tuple) else [batch]
        self.seen += labels(batches)
        return torch.stack([cross_entropy(self.net(x.flatten(1)), y) for x, y in batches]).mean()

    def validation_step(self, batch: Any, index: int) -> None:
        """Lightning asks for validation batches because of it."""

    def test_step(self, batch: Any, index: int) -> None:
        self.seen += labels([batch])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


# Lightning 2.6 asks torch for a class that torch 2.14 has deprecated.
@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec:FutureWarning")
@pytest.mark.parametrize(("chunk", "module"), [(1, True), (8, True), (1, False)])
def test_lightnings_trainer_feeds_a_module_of_ones_own(
    data: Digits, chunk: int, module: bool
) -> None:
    data.chunk, model = chunk, Mine()
    quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "logger"), False)
    trainer = pl.Trainer(max_epochs=3, accelerator="cpu", enable_checkpointing=False, **quiet)
    loaders = (data.train_dataloader(), data.val_dataloader())
    trainer.fit(model, *((data,) if module else loaders))
    assert trainer.global_step == 3 * len(data.train_dataloader())
    trainer.test(model, data, verbose=False)
    train, orders = data.split("train").labels, list[list[int]]()
    for epoch in range(3):
        data.order.set_epoch(epoch)
        orders.append(train[data.order.indices(len(train))].tolist())
    assert model.seen == [*chain(*orders), *data.split("test").labels.tolist()]
    assert orders[0] != orders[1] != orders[2]
