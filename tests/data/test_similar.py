"""Photos that look alike across splits: bursts, other sizes, light, compression."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from mindtrace.data import ImageFolder
from mindtrace.data.check import check, similar_pairs
from mindtrace.data.decode import difference_hashes


def scene(seed: int, side: int = 160) -> Image.Image:
    """A picture with structure: random levels, enlarged smoothly."""
    levels = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
    return Image.fromarray(levels).resize((side, side), Image.Resampling.BICUBIC)


def moved(image: Image.Image, by: int) -> Image.Image:
    return image.crop((by, by // 2, image.width - 4 + by, image.height - 4 + by // 2))


COPIES = {
    "the same": lambda one: one,
    "moved": lambda one: moved(one, 4),
    "brighter": lambda one: ImageEnhance.Brightness(one).enhance(1.2),
    "smaller": lambda one: one.resize((90, 100)),
    "grey": lambda one: one.convert("L"),
}


@pytest.mark.parametrize("change", COPIES)
def test_copies_are_found(change: str) -> None:
    hashes = np.array(
        [difference_hashes(image) for image in [*map(scene, range(40)), COPIES[change](scene(7))]]
    )
    splits = np.array([0] * 40 + [2])
    assert [pair[:2] for pair in similar_pairs(hashes, splits)] == [(40, 7)]
    assert list(similar_pairs(hashes, np.zeros(41, np.int64))) == [], "in one split it is no leak"


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGB", (200, 200), "white"),
        Image.linear_gradient("L").rotate(90),
        scene(3, side=47),
    ],
    ids=["plain", "gradient", "small"],
)
def test_pictures_that_say_nothing_are_like_nothing(image: Image.Image) -> None:
    hashes = np.array([difference_hashes(image)] * 2)
    assert list(similar_pairs(hashes, np.array([0, 2]))) == []


def test_data_check_names_both_files(tmp_path: Path) -> None:
    for number, split in enumerate(["train"] * 6 + ["val"] * 2 + ["test"] * 2):
        folder = tmp_path / split / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        scene(number).save(folder / f"{number}.png")
    moved(scene(2), 3).save(tmp_path / "test" / "a" / "again.jpg", quality=70)
    found, _ = check(ImageFolder(tmp_path))
    (one,) = found.similar
    assert (one.image.path, one.like.path) == ("test/a/again.jpg", "train/a/2.png")
    assert found.leakage == ()
    assert any(note.startswith("1 photo looks like one of another split") for note in found.notes)
