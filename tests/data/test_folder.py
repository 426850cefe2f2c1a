"""A folder of classes: what is found, how it is split, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mindtrace.data import ImageFolder, InputRequirements
from mindtrace.data.batches import channel_statistics
from mindtrace.errors import DataFolderError, ImageError


def counts(data: ImageFolder) -> dict[str, int]:
    return dict(data.digests().counts)


def test_a_missing_split_is_drawn_and_the_others_are_kept(make_folder: Any) -> None:
    folder = make_folder("train/a", "train/b", "val/a", "val/b")
    drawn = counts(ImageFolder(folder, test_fraction=0.3, num_val=0.9))
    assert drawn["val"] == 20 and drawn["test"] in range(2, 19)
    assert drawn["train"] + drawn["test"] == 20
    make_folder("test/a", "test/b", count=3)
    assert counts(ImageFolder(folder)) == {"train": 20, "val": 20, "test": 6}
    shutil.rmtree(folder / "val")
    data = ImageFolder(folder, num_val=0.3)
    assert data.made_by == {"train": "user", "val": "mindtrace", "test": "user"}
    drawn = counts(data)
    assert drawn["test"] == 6 and drawn["val"] in range(2, 19)
    assert drawn["train"] + drawn["val"] == 20


def test_grey_and_colour_networks_share_a_test_set(make_folder: Any) -> None:
    folder = make_folder("a", "b", mode="RGB")
    colour = ImageFolder(folder)
    grey = ImageFolder(folder, requirements=InputRequirements(mode="L", height=4, width=4))
    assert grey.split("train").images.shape[1:] == (1, 4, 4)
    assert grey.digests() == colour.digests()
    assert len(grey.spec.mean) == len(grey.spec.std) == 1


def test_grey_images_in_a_colour_network_take_no_more_memory(make_folder: Any) -> None:
    data = ImageFolder(make_folder("a", "b"), requirements=InputRequirements(mode="RGB"))
    images = data.split("train").images
    assert images.shape == (len(data.train), 3, 6, 8)
    assert images.untyped_storage().nbytes() == 20 * 6 * 8
    assert len(data.spec.mean) == 3
    assert next(iter(data.val_dataloader()))[0].shape == (len(data.val), 3, 6, 8)


def test_mean_and_deviation_are_those_of_the_training_images(make_folder: Any) -> None:
    data = ImageFolder(make_folder("a", "b", mode="RGB", count=20))
    images = data.split("train").images.double() / 255
    mean, std = images.mean((0, 2, 3)), images.std((0, 2, 3), correction=0)
    assert data.spec.mean == tuple(round(float(value), 6) for value in mean)
    assert data.spec.std == pytest.approx(std.tolist(), abs=1e-6)
    assert data.spec.std == tuple(round(value, 6) for value in data.spec.std)
    kept = ImageFolder(
        data.dir, requirements=InputRequirements(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    )
    assert (kept.spec.mean, kept.spec.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_images_of_one_level_have_a_deviation_that_divides() -> None:
    images = torch.full((3, 1, 2, 2), 51, dtype=torch.uint8)
    assert channel_statistics(images) == ((0.2,), (1.0,))


def test_notes_name_classes_that_lack_images(make_folder: Any) -> None:
    folder = make_folder("train/a", "train/b", "test/a", "val/b")
    assert ImageFolder(folder).notes == (
        "val has no image of class a",
        "test has no image of class b",
    )
    shutil.rmtree(folder)
    make_folder("a", "b", count=20)
    data = ImageFolder(make_folder("rare", count=1))
    assert 2 in data.split("train").labels.tolist()
    assert data.notes[0] == (
        "class rare has one image, to train on, and none to judge it by: "
        "add images or remove the class"
    )


def test_names_of_files_and_classes(make_folder: Any) -> None:
    """Sub-folders belong to a class, capitals are as good, hidden names are passed over."""
    folder = make_folder("schöne Bäume/2023", "schöne Bäume/2024", "train")
    Image.new("L", (8, 6)).save(folder / "train" / "X.PNG")
    (folder / "train" / "._X.png").write_bytes(b"what a Mac leaves")
    (folder / "train" / "notes.txt").touch()
    (folder / ".git").mkdir()
    data = ImageFolder(folder)
    assert data.class_names == ("schöne Bäume", "train")
    assert sum(counts(data).values()) == 31


def folder_error(folder: Path) -> DataFolderError:
    with pytest.raises(DataFolderError) as caught:
        ImageFolder(folder).setup()
    assert caught.value.folder == folder
    assert str(caught.value).startswith(f"[data] dir = {folder}: ")
    assert "\n" not in str(caught.value) + str(caught.value.hint)
    assert caught.value.hint
    return caught.value


def test_folders_that_lack_something(tmp_path: Path, make_folder: Any) -> None:
    (tmp_path / "file").touch()
    error = folder_error(tmp_path / "flovers")
    assert (error.reason, error.hint) == ("no such folder", f"{tmp_path} has file")
    assert folder_error(tmp_path / "file").reason == "not a folder"
    assert folder_error(tmp_path).reason == "no sub-folders"
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).touch()
    assert "; 3 left out: 2 outside the classes (a.png), 1 " in str(folder_error(tmp_path).hint)
    folder = make_folder("train/cat", "train/dog")
    (emu := folder / "train" / "emu").mkdir()
    assert folder_error(folder).reason == f"class 'emu' has no images in {emu}"
    (emu / "emu.txt").touch()
    assert "1 left out: 1 .txt (train/emu/emu.txt)" in str(folder_error(folder).hint)
    shutil.rmtree(emu)
    (folder / "val").mkdir()
    assert folder_error(folder).reason == "val has no classes"


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        (["cat"], "only one class, 'cat'"),
        (["a", "b"], "2 images are too few to split"),
        (["train/a", "train/b", "test/a", "test/c"], "class c is in test and not in train"),
        (["train/a", "train/b", "more/a", "more/b"], "beside train there is more"),
        (["val/a", "val/b", "test/a", "test/b"], "has val, test but no train"),
        (["valid", "test"], "has valid, test but no train"),
        (["Val/a", "Val/b", "cat", "dog"], "has Val but no train"),
        (["Train/a", "Train/b", "cat"], "beside Train there is cat"),
        (["Train", "Test"], "no sub-folders"),
        (
            ["train/a", "train/b", "Valid/a", "Valid/b", "val/a"],
            "has train, Valid, val but two for one split",
        ),
    ],
)
def test_classes_that_cannot_be_trained_on(
    make_folder: Any, classes: list[str], reason: str
) -> None:
    assert folder_error(make_folder(*classes, count=1)).reason == reason


def test_a_file_that_goes_away_is_named(make_folder: Any) -> None:
    folder = make_folder("a", "b")
    (folder / "b" / "link.png").symlink_to("nowhere")
    with pytest.raises(ImageError, match=r"b/link\.png: No such file"):
        ImageFolder(folder).setup()
