"""What `data check` finds: counts, kinds, unreadable files, twins, classes; and its picture."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mindtrace.data import Digits, ImageFolder
from mindtrace.data.check import (
    CheckedImage,
    DataCheck,
    Duplicates,
    ImagePlace,
    ImageSize,
    SplitClass,
    check,
)
from mindtrace.data.contact_sheet import contact_sheet, draw_sheet, spread
from mindtrace.errors import DataFolderError


def checked(folder: Path, **options: Any) -> DataCheck:
    return check(ImageFolder(folder, **options))[0]


def same_pixels(found: DataCheck) -> list[Duplicates]:
    """Every set of images with the same pixels, once."""
    return list(dict.fromkeys([*found.leakage, *found.conflicts, *found.duplicates]))


@pytest.fixture
def three_splits(make_folder: Any) -> Path:
    """5 images a class in train, val and test."""
    folder: Path = make_folder(
        *(f"{split}/{name}" for split in ("train", "val", "test") for name in ("a", "b")), count=5
    )
    return folder


@pytest.mark.parametrize("classes", [("a", "b"), ("train/a", "train/b", "val/a", "val/b")])
def test_splits_and_digests_are_those_of_a_training(make_folder: Any, classes: Any) -> None:
    folder = make_folder(*classes)
    digests, found = ImageFolder(folder, split_seed=3).digests(), checked(folder, split_seed=3)
    assert {stage: sum(one.values()) for stage, one in found.counts.items()} == digests.counts
    assert (found.data_digest, found.test_digest) == (digests.data_digest, digests.test_digest)


@pytest.mark.parametrize(
    ("copy", "leak", "contradict"),
    [
        ("test/a/x.png", True, False),
        ("train/a/x.png", False, False),
        ("train/b/x.png", False, True),
        ("test/added/x.png", True, True),
    ],
)
def test_images_with_the_same_pixels(
    three_splits: Path, copy: str, leak: bool, contradict: bool
) -> None:
    """Compressed in another way, so that the bytes differ."""
    (three_splits / copy).parent.mkdir(exist_ok=True)
    Image.open(three_splits / "train/a/0002.png").save(three_splits / copy, compress_level=0)
    (twins,) = same_pixels(checked(three_splits))
    assert (twins.leak, twins.contradict) == (leak, contradict)
    assert sorted(one.path for one in twins.images) == sorted(["train/a/0002.png", copy])


def test_a_missing_an_added_and_an_empty_class(three_splits: Path) -> None:
    shutil.rmtree(three_splits / "val" / "b")
    shutil.move(three_splits / "test" / "a", three_splits / "test" / "c")
    (three_splits / "train" / "empty").mkdir()
    found = checked(three_splits)
    assert set(found.missing_classes) == {
        SplitClass("train", "empty"),
        SplitClass("val", "b"),
        SplitClass("val", "empty"),
        SplitClass("test", "a"),
        SplitClass("test", "empty"),
    }
    assert found.added_classes == (SplitClass("test", "c"),)
    assert found.counts["test"] == {"a": 0, "b": 5, "empty": 0, "c": 5}
    assert found.data_digest is None


def test_a_split_that_lacks_a_class_can_be_trained_on_and_an_empty_one_not(
    three_splits: Path,
) -> None:
    shutil.rmtree(three_splits / "val" / "b")
    found = checked(three_splits)
    assert found.missing_classes == (SplitClass("val", "b"),)
    assert found.data_digest == ImageFolder(three_splits).digests().data_digest
    shutil.rmtree(three_splits / "val" / "a")
    found = checked(three_splits)
    assert found.missing_classes == (SplitClass("val", "a"), SplitClass("val", "b"))
    assert found.data_digest is None
    for path in three_splits.glob("train/*/*"):
        path.unlink()
    with pytest.raises(DataFolderError, match="class 'a' has no images"):
        checked(three_splits)


def test_images_of_unusual_kinds_are_told(make_folder: Any) -> None:
    folder = make_folder("a", "b")
    rng = np.random.default_rng(2)
    home = folder / "a"
    Image.fromarray(rng.integers(0, 256, (6, 8, 4), dtype=np.uint8), "RGBA").save(home / "x.png")
    Image.fromarray(rng.integers(0, 60000, (6, 8), dtype=np.uint16)).save(home / "deep.png")
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.new("RGB", (6, 8), "red").save(home / "turned.jpg", exif=tags)
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    frames[0].save(home / "moving.webp", save_all=True, append_images=frames[1:])
    found = checked(folder)
    assert found.modes == {"L": 20, "RGB": 2, "RGBA": 1, "I;16": 1}
    assert found.formats == {"PNG": 22, "JPEG": 1, "WEBP": 1}
    assert found.sizes == (ImageSize(6, 8, 24),)
    assert found.notes == (
        "1 of 24 images: turned upright, as EXIF says",
        "1 of 24 images: transparent parts become black",
        "1 of 24 images: animated, the first frame counts",
        "1 of 24 images: 16 bits a channel, scaled to 8",
    )
    assert found.data_digest == ImageFolder(folder).digests().data_digest


def test_a_source_without_files() -> None:
    found, _ = check(Digits())
    assert found.dir is None
    assert {split: sum(counts.values()) for split, counts in found.counts.items()} == {
        "train": 1294,
        "val": 144,
        "test": 359,
    }
    assert (found.sizes, found.modes) == ((ImageSize(8, 8, 1797),), {"L": 1797})
    assert same_pixels(found) == []
    assert found.test_digest == Digits().digests().test_digest


@pytest.mark.parametrize("source", ["folder", "digits"])
def test_a_sheet_has_a_row_a_class(three_splits: Path, source: str) -> None:
    data = ImageFolder(three_splits) if source == "folder" else Digits()
    (three_splits / "train" / "b" / "0003.png").write_bytes(b"hello")
    found, images = check(data)
    sheet = contact_sheet(data, images, found)
    columns, rows = (10, 2) if source == "folder" else (10, 10)
    assert sheet.height == 2 * 16 + rows * 78 - 6
    pixels = np.asarray(sheet.convert("L"))
    tiles = (pixels != 255).any(axis=0)[-(16 + columns * 78 - 6) :]
    assert not tiles[-16:].any()
    assert all(tiles[column * 78 + 10 : column * 78 + 60].any() for column in range(columns))


def test_a_sheet_shows_images_as_they_are() -> None:
    red, blue = Image.new("RGB", (200, 100), "red"), Image.new("RGB", (3, 3), "blue")
    sheet = draw_sheet([("ä" * 60, "1,234", [red, blue])], more=7)
    colours = {colour for _, colour in sheet.getcolors(10_000) or ()}
    assert {(255, 0, 0), (0, 0, 255), (255, 255, 255)} <= colours
    counts = {colour: count for count, colour in sheet.getcolors(10_000) or ()}
    assert (counts[255, 0, 0], counts[0, 0, 255]) == (72 * 36, 72 * 72)


def test_a_sheet_spreads_over_all_images() -> None:
    images = [CheckedImage(ImagePlace("train", str(n), "a"), 0, b"") for n in range(95)]
    chosen = [int(one.place.path) for one in spread(images)]
    assert chosen == [0, 9, 19, 28, 38, 47, 57, 66, 76, 85]
    assert spread(images[:3]) == images[:3] and spread([]) == []
