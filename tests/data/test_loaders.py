from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mindtrace.bundle.predictions import pairs_digest
from mindtrace.data import Digits
from mindtrace.data.batches import image_digests
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


def test_an_order_is_a_function_of_seed_and_epoch(data: Digits) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        data.seed = seed
        data.set_epoch(epoch)
        torch.manual_seed(epoch)
        return labels(data.train_dataloader())

    first = order(0, 0)
    assert order(0, 0) == first
    assert order(0, 1) != first
    assert order(1, 0) != first
    assert order(0, 0) == first


def test_a_plain_loop_sees_another_order_each_time(data: Digits) -> None:
    first, second = labels(data.train_dataloader()), labels(data.train_dataloader())
    assert first != second
    data.set_epoch(1)
    assert labels(data.train_dataloader()) == second


def test_a_look_at_one_batch_does_not_move_the_order(data: Digits) -> None:
    assert torch.equal(
        next(iter(data.train_dataloader()))[1], next(iter(data.train_dataloader()))[1]
    )


@pytest.mark.parametrize("chunk", [2, 20, 21, 100])
def test_chunks_hold_the_same_batches(data: Digits, chunk: int) -> None:
    plain = list(data.train_dataloader())
    data.set_epoch(0)
    data.chunk = chunk
    lists = list(data.train_dataloader())
    assert len(lists) == len(data.train_dataloader())
    assert all(len(batches) <= chunk for batches in lists)
    chunked = [batch for batches in lists for batch in batches]
    assert len(chunked) == len(plain)
    for (x, y), (u, v) in zip(plain, chunked, strict=True):
        assert torch.equal(x, u) and torch.equal(y, v)


def test_large_images_come_in_smaller_chunks() -> None:
    data = Digits(batch_size=128, image_size=256)
    data.chunk = 32
    batches = next(iter(data.train_dataloader()))
    assert [len(y) for _, y in batches] == [128, 128]
    assert len(data.train_dataloader()) == 6
    assert len(next(iter(data.test_dataloader()))[1]) == 256


def test_a_sample_is_an_image_and_its_label(data: Digits) -> None:
    image, label = data.sample("test", 5)
    x, y = next(iter(data.test_dataloader()))
    assert torch.equal(image, x[5]) and label == int(y[5])
    assert data.sample()[0].shape == (1, 8, 8)


def test_another_stage_is_a_value_error(data: Digits) -> None:
    with pytest.raises(ValueError, match="'training': one of train, val, test"):
        data.sample("training")
    with pytest.raises(IndexError):
        data.sample("val", 144)


def test_setup_is_idempotent(data: Digits) -> None:
    data.setup("fit")
    split = data.split("train")
    data.setup("test")
    assert data.split("train") is split


@pytest.mark.parametrize("shape", [(5, 4, 6), (5, 4, 6, 3), (0, 2, 2)])
def test_many_digests_are_those_of_one(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert image_digests(pixels) == [image_digest(image) for image in pixels]


def test_a_data_digest_does_not_depend_on_the_order() -> None:
    pairs = [(bytes([n]) * 32, n % 3) for n in range(9)]
    assert pairs_digest(pairs) == pairs_digest(reversed(pairs))
    assert pairs_digest(pairs) != pairs_digest([*pairs[1:], (pairs[0][0], 2)])


def test_digests_name_the_data_and_the_test_set(data: Digits) -> None:
    same, other = Digits(batch_size=8, num_val=0.3), Digits(split_seed=1)
    assert data.digests().counts == {"train": 1294, "val": 144, "test": 359}
    assert same.digests().data_digest == data.digests().data_digest
    assert same.digests().test_digest == data.digests().test_digest
    assert other.digests().data_digest == data.digests().data_digest
    assert other.digests().test_digest != data.digests().test_digest


def test_every_class_is_in_every_split(data: Digits) -> None:
    for stage in ("train", "val", "test"):
        assert set(data.split(stage).labels.tolist()) == set(range(10))


def test_the_digits_are_those_of_scikit_learn(data: Digits) -> None:
    from sklearn.datasets import load_digits

    theirs = load_digits()
    levels = np.round(theirs.images * 255 / 16 + 1e-9).astype(np.uint8)
    expected = sorted(zip(image_digests(levels), theirs.target.tolist(), strict=True))
    found = sorted(
        pair
        for stage in ("train", "val", "test")
        for pair in zip(data.split(stage).digests(), data.split(stage).labels.tolist(), strict=True)
    )
    assert found == expected


def test_another_file_of_digits_is_refused(tmp_path: Path) -> None:
    from mindtrace.data.datasets import read_digits
    from mindtrace.errors import DataError

    path = tmp_path / "digits.csv.gz"
    with pytest.raises(DataError, match="cannot read"):
        read_digits(path)
    path.write_bytes(b"1,2,3")
    with pytest.raises(DataError, match="cannot read"):
        read_digits(path)
    import gzip

    path.write_bytes(gzip.compress(b"1,2,3"))
    with pytest.raises(DataError, match="not the file that is known"):
        read_digits(path)
