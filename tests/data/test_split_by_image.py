"""The split by image: growth, removal and names move nothing; copies stay together."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from tests.data.conftest import write_images

from mindtrace.data import ImageFolder
from mindtrace.data.check import check
from mindtrace.data.listing import STAGES
from mindtrace.errors import UsageError

Placed = dict[str, tuple[str, str]]  # by path: its image's digest and split


def placed(data: ImageFolder) -> Placed:
    found: Placed = {}
    for stage in STAGES:
        split = data.split(stage)
        pairs = zip(split.files or (), split.digests(), strict=True)
        found |= {path: (digest.hex(), stage) for path, digest in pairs}
    return found


def splits(data: ImageFolder) -> dict[str, set[str]]:
    """The splits of each image; those that were moved by exception left out, with their copies."""
    (note,) = [note for note in data.notes if note.startswith("moved")] or [""]
    found: dict[str, set[str]] = {}
    places = placed(data)
    moved = {digest for path, (digest, _) in places.items() if f"{path} to " in note}
    for digest, stage in places.values():
        if digest not in moved:
            found.setdefault(digest, set()).add(stage)
    return found


@st.composite
def two_folders(draw: st.DrawFn) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Two states of one folder: images come and go, have copies, and change names and folders."""
    states = []
    for state in ("before", "after"):
        images = []
        for label in range(3):
            numbers = draw(st.sets(st.integers(0, 60), min_size=12, max_size=40))
            for number in numbers:
                for copy in range(draw(st.sampled_from((1, 1, 1, 2)))):
                    name = draw(st.integers(0, 10**6))
                    path = f"class {label}/{state[copy:]}/{name}-{number}-{copy}.png"
                    images.append((path, 61 * label + number))
        states.append(images)
    return states[0], states[1]


@given(two_folders(), st.integers(0, 2**40))
@settings(max_examples=25)
def test_no_image_ever_changes_its_split_and_copies_share_one(
    states: tuple[list[tuple[str, int]], list[tuple[str, int]]], seed: int
) -> None:
    found = []
    for images in states:
        with tempfile.TemporaryDirectory() as folder:
            data = ImageFolder(write_images(Path(folder), images), split_seed=seed, num_workers=1)
            found.append(splits(data))
            assert all(len(one) == 1 for one in found[-1].values())
            for stage in STAGES:
                assert set(data.split(stage).labels.tolist()) == {0, 1, 2}
    before, after = found
    assert all(before[image] == after[image] for image in before.keys() & after.keys())


def pets(folder: Path, count: int = 300) -> Path:
    """Two classes of as many different images."""
    return write_images(folder, [(f"{'ab'[n % 2]}/{n}.png", n) for n in range(2 * count)])


def test_shares_are_near_the_fractions_and_the_seed_draws_anew(tmp_path: Path) -> None:
    pets(tmp_path)
    data = ImageFolder(tmp_path, test_fraction=0.3, num_val=0.2)
    counts = data.digests().counts
    assert data.notes == ()
    for stage, share in (("test", 0.3), ("val", 0.2), ("train", 0.5)):
        assert counts[stage] / 600 == pytest.approx(share, abs=0.06)
    drawn_anew = ImageFolder(tmp_path, test_fraction=0.3, num_val=0.2, split_seed=1)
    assert drawn_anew.digests().data_digest == data.digests().data_digest
    assert drawn_anew.digests().test_digest != data.digests().test_digest
    other = splits(drawn_anew)
    changed = sum(other[image] != stage for image, stage in splits(data).items())
    assert changed / 600 == pytest.approx(1 - 0.3**2 - 0.2**2 - 0.5**2, abs=0.1)
    larger = splits(ImageFolder(tmp_path, test_fraction=0.4, num_val=0.2))
    tested = {image for image, stage in splits(data).items() if stage == {"test"}}
    assert all(larger[image] == {"test"} for image in tested), "a larger test set keeps its images"


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (1, {"train": 1, "val": 0, "test": 0}),
        (2, {"train": 1}),
        (3, {"train": 1, "val": 1, "test": 1}),
        (4, {}),
    ],
    ids=["one", "two", "three", "four"],
)
@pytest.mark.parametrize("seed", range(6))
def test_a_class_of_few_images(
    tmp_path: Path, images: int, expected: dict[str, int], seed: int
) -> None:
    write_images(pets(tmp_path, 20), [(f"rare/{n}.png", 5000 + n) for n in range(images)])
    found, _ = check(data := ImageFolder(tmp_path, split_seed=seed))
    counts = {stage: found.counts[stage]["rare"] for stage in STAGES}
    assert counts.items() >= expected.items() and sum(counts.values()) == images
    assert sum(count > 0 for count in counts.values()) == min(images, 3)
    for _ in range(2):  # decoded, and from what was decoded
        kept = ImageFolder(tmp_path, split_seed=seed, cache_dir=tmp_path.with_name("cache"))
        assert placed(data) == placed(kept)
        assert found.notes == data.notes == kept.notes
    moved = ["rare/" in note for note in data.notes if note.startswith("moved, as its class had")]
    assert any(moved) or images in (1, 4), "of few images one has to be moved, or two"
    lacking = [stage for stage in STAGES if not counts[stage]]
    if images == 2:
        assert f"{lacking[0]} has no image of class rare" in data.notes


def test_copies_count_as_one_image(tmp_path: Path) -> None:
    write_images(pets(tmp_path, 20), [(f"rare/{n}.png", 5000) for n in range(9)])
    found, _ = check(ImageFolder(tmp_path))
    assert found.counts["train"]["rare"] == 9
    assert (found.leakage, len(found.duplicates)) == ((), 1)


@pytest.mark.parametrize(
    "options",
    [
        {"num_val": 5},
        {"num_val": 1},
        {"num_val": 30.0},
        {"num_val": 0},
        {"test_fraction": 0.6, "num_val": 0.4},
        {"test_fraction": 1.0},
    ],
    ids=str,
)
def test_counts_and_fractions_that_leave_nothing_are_refused(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    data = ImageFolder(pets(tmp_path, 3), **options)
    for read in (data.setup, lambda: check(data)):
        with pytest.raises(UsageError, match=r"fractions with a sum below 1 here, no counts"):
            read()
    shutil.rmtree(tmp_path)
    for stage in STAGES:
        pets(tmp_path / stage, 3)
    ImageFolder(tmp_path, num_val=5).setup()  # nothing is drawn


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Train", "Val", "Test"),
        ("training", "valid", "testing"),
        ("TRAIN", "Validation", "TEST"),
        ("training_set", "validation set", "test-set"),
        ("train_images", "val_data", "TestImages"),
    ],
)
def test_splits_in_other_spelling(tmp_path: Path, train: str, val: str, test: str) -> None:
    for name, count in ((train, 6), (val, 4), (test, 2)):
        pets(tmp_path / name, count)
    data = ImageFolder(tmp_path)
    assert data.class_names == ("a", "b")
    assert data.digests().counts == {"train": 12, "val": 8, "test": 4}
    assert set(data.made_by.values()) == {"user"}


@pytest.mark.parametrize("names", [("train", "bus"), ("valid", "invalid"), ("tests", "trainer")])
def test_a_single_such_name_may_be_a_class(tmp_path: Path, names: tuple[str, str]) -> None:
    write_images(tmp_path, [(f"{names[n % 2]}/{n}.png", n) for n in range(12)])
    assert ImageFolder(tmp_path).class_names == tuple(sorted(names))
