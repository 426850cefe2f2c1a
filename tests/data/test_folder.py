from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mindtrace.data import ImageFolder, InputRequirements
from mindtrace.data.batches import channel_statistics
from mindtrace.errors import DataFolderError, ImageError
from mindtrace.preprocess import decode, image_digest, normalise


def counts(data: ImageFolder) -> dict[str, int]:
    return dict(data.digests().counts)


def test_one_tree_is_split(make_folder: Any) -> None:
    data = ImageFolder(make_folder("cat", "dog"))
    assert counts(data) == {"train": 14, "val": 2, "test": 4}
    assert data.class_names == ("cat", "dog")
    assert data.notes == ()
    assert torch.bincount(data.split("test").labels).tolist() == [2, 2]


def test_splits_of_their_own_are_kept(make_folder: Any) -> None:
    folder = make_folder("train/a", "train/b", "val/a", "val/b", count=8)
    make_folder("test/a", "test/b", count=3)
    assert counts(ImageFolder(folder)) == {"train": 16, "val": 16, "test": 6}


def test_what_has_no_folder_is_drawn_from_the_training_images(make_folder: Any) -> None:
    folder = make_folder("train/a", "train/b", "val/a", "val/b")
    data = ImageFolder(folder, test_fraction=0.3, num_val=3)
    assert counts(data) == {"train": 14, "val": 20, "test": 6}
    make_folder("test/a", "test/b")
    for path in sorted((folder / "val").rglob("*.png")):
        path.unlink()
    for name in ("val/a", "val/b", "val"):
        (folder / name).rmdir()
    assert counts(ImageFolder(folder, num_val=3)) == {"train": 17, "val": 3, "test": 20}


def test_the_split_depends_on_split_seed_alone(make_folder: Any) -> None:
    folder = make_folder("a", "b", count=30)
    first, again, other = (ImageFolder(folder, split_seed=seed).digests() for seed in (0, 0, 1))
    assert first == again
    assert first.data_digest == other.data_digest
    assert first.test_digest != other.test_digest


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_images_are_decoded_as_predict_decodes_them(make_folder: Any, mode: str) -> None:
    folder = make_folder("a", "b", mode=mode)
    data = ImageFolder(folder, image_size=5)
    expected = {}
    for path in folder.rglob("*.png"):
        native = np.asarray(Image.open(path))
        expected[image_digest(native)] = normalise(
            decode(path.read_bytes(), data.spec)[None], data.spec
        )[0]
    assert data.spec.mode == mode
    for stage in ("train", "val", "test"):
        split = data.split(stage)
        for image, digest in zip(data.normalise(split.images), split.digests(), strict=True):
            assert np.abs(image.numpy() - expected[digest]).max() < 1e-5


def test_one_colour_image_makes_all_of_them_colour(make_folder: Any) -> None:
    folder = make_folder("a", "b", mode="L")
    Image.new("RGB", (8, 6), "red").save(folder / "a" / "red.png")
    data = ImageFolder(folder)
    assert data.spec.mode == "RGB"
    assert data.split("train").images.shape[1:] == (3, 6, 8)


def test_grey_and_colour_networks_share_a_test_set(make_folder: Any) -> None:
    folder = make_folder("a", "b", mode="RGB")
    colour = ImageFolder(folder)
    grey = ImageFolder(folder, demand=InputRequirements(mode="L", height=4, width=4))
    assert grey.split("train").images.shape[1:] == (1, 4, 4)
    assert grey.digests() == colour.digests()
    assert len(grey.spec.mean) == len(grey.spec.std) == 1


def test_grey_images_in_a_colour_network_take_no_more_memory(make_folder: Any) -> None:
    data = ImageFolder(make_folder("a", "b"), demand=InputRequirements(mode="RGB"))
    images = data.split("train").images
    assert images.shape == (14, 3, 6, 8)
    assert images.untyped_storage().nbytes() == 20 * 6 * 8
    assert len(data.spec.mean) == 3
    assert next(iter(data.val_dataloader()))[0].shape == (2, 3, 6, 8)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(30, 20)], (30, 20)),
        ([(224, 10)], (224, 10)),
        ([(225, 10)], (64, 64)),
        ([(30, 20), (20, 30)], (64, 64)),
    ],
)
def test_the_size_is_the_images_own_where_that_makes_sense(
    make_folder: Any, sizes: list[tuple[int, int]], expected: tuple[int, int]
) -> None:
    for position, size in enumerate(sizes):
        folder = make_folder(f"a{position}", f"b{position}", count=3, size=size)
    spec = ImageFolder(folder, num_val=1).spec
    assert (spec.height, spec.width) == expected


def test_a_rotated_photograph_counts_as_it_is_seen(make_folder: Any) -> None:
    folder = make_folder("a", "b", size=(6, 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (6, 8)).save(folder / "a" / "turned.jpg", exif=exif)
    data = ImageFolder(folder)
    assert (data.spec.height, data.spec.width) == (6, 8)


def test_mean_and_deviation_are_those_of_the_training_images(make_folder: Any) -> None:
    data = ImageFolder(make_folder("a", "b", mode="RGB", count=20))
    images = data.split("train").images.double() / 255
    mean, std = images.mean((0, 2, 3)), images.std((0, 2, 3), correction=0)
    assert data.spec.mean == tuple(round(float(value), 6) for value in mean)
    assert data.spec.std == pytest.approx(std.tolist(), abs=1e-6)
    assert data.spec.std == tuple(round(value, 6) for value in data.spec.std)
    kept = ImageFolder(
        data.dir, demand=InputRequirements(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    )
    assert (kept.spec.mean, kept.spec.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_images_of_one_level_have_a_deviation_that_divides() -> None:
    images = torch.full((3, 1, 2, 2), 51, dtype=torch.uint8)
    assert channel_statistics(images) == ((0.2,), (1.0,))


def test_classes_that_a_split_lacks_are_told(make_folder: Any) -> None:
    folder = make_folder("train/a", "train/b", "test/a", "val/b")
    assert ImageFolder(folder).notes == (
        "val has no image of class a",
        "test has no image of class b",
    )


def test_a_class_with_one_image_keeps_it_for_training(make_folder: Any) -> None:
    folder = make_folder("a", "b", count=20)
    make_folder("rare", count=1)
    data = ImageFolder(folder)
    assert 2 in data.split("train").labels.tolist()
    assert data.notes == (
        "class rare has one image, to train on, and none to judge it by: "
        "add images or remove the class",
    )


def test_sub_folders_suffixes_in_capitals_and_hidden_files(make_folder: Any) -> None:
    folder = make_folder("a/2023", "a/2024", "b")
    Image.new("L", (8, 6)).save(folder / "b" / "X.PNG")
    (folder / "b" / "._X.png").write_bytes(b"what a Mac leaves")
    (folder / "b" / "notes.txt").touch()
    (folder / ".git").mkdir()
    assert sum(counts(ImageFolder(folder)).values()) == 31


def test_a_folder_with_spaces_and_umlauts(make_folder: Any) -> None:
    folder = make_folder("schöne Bäume", "häßliche Bäume")
    assert ImageFolder(folder).class_names == ("häßliche Bäume", "schöne Bäume")


def folder_error(folder: Path) -> DataFolderError:
    with pytest.raises(DataFolderError) as caught:
        ImageFolder(folder).setup()
    assert caught.value.folder == folder
    assert str(caught.value).startswith(f"[data] dir = {folder}: ")
    assert "\n" not in str(caught.value) + str(caught.value.hint)
    assert caught.value.hint
    return caught.value


def test_a_missing_folder(tmp_path: Path) -> None:
    (tmp_path / "flowers").mkdir()
    error = folder_error(tmp_path / "flovers")
    assert error.reason == "no such folder"
    assert error.hint == f"{tmp_path} has flowers"


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "images").touch()
    assert folder_error(tmp_path / "images").reason == "not a folder"


def test_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").touch()
    assert folder_error(tmp_path).reason == "no images"


def test_images_without_classes(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).touch()
    assert folder_error(tmp_path).reason == "no sub-folders; 2 images directly in it"


def test_a_single_class(make_folder: Any) -> None:
    assert folder_error(make_folder("cat")).reason == "only one class, 'cat'"


def test_an_empty_class(make_folder: Any) -> None:
    folder = make_folder("cat", "dog")
    (folder / "emu").mkdir()
    assert folder_error(folder).reason == f"class 'emu' has no images in {folder / 'emu'}"
    (folder / "emu" / "emu.bmp").touch()
    reason = folder_error(folder).reason
    assert reason == f"class 'emu' has no images: 1 other files in {folder / 'emu'}"


def test_a_class_that_training_does_not_have(make_folder: Any) -> None:
    error = folder_error(make_folder("train/a", "train/b", "test/a", "test/c"))
    assert error.reason == "class c is in test and not in train"
    assert error.hint == "train has a, b"


def test_a_split_with_another_name_is_not_passed_over(make_folder: Any) -> None:
    error = folder_error(make_folder("train/a", "train/b", "valid/a", "valid/b"))
    assert error.reason == "beside train there is valid"


def test_splits_without_train(make_folder: Any) -> None:
    error = folder_error(make_folder("val/a", "val/b", "test/a", "test/b"))
    assert error.reason == "has val, test but no train"


def test_an_empty_split(make_folder: Any) -> None:
    folder = make_folder("train/a", "train/b")
    (folder / "val").mkdir()
    assert folder_error(folder).reason == "val has no classes"


def test_a_class_may_be_called_train(make_folder: Any) -> None:
    assert ImageFolder(make_folder("bus", "train")).class_names == ("bus", "train")


def test_too_few_images_to_split(make_folder: Any) -> None:
    assert folder_error(make_folder("a", "b", count=1)).reason == "2 images are too few to split"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data[:-40], "damaged image"),
        (lambda data: data[:10], "image"),
        (lambda data: b"", "not an image: the file is empty"),
        (lambda data: b"GIF89a" + data, "not an image"),
    ],
    ids=["truncated", "head only", "empty", "another format"],
)
def test_an_unreadable_image_is_named(make_folder: Any, damage: Any, says: str) -> None:
    folder = make_folder("a", "b")
    broken = folder / "b" / "0003.png"
    broken.write_bytes(damage(broken.read_bytes()))
    with pytest.raises(ImageError, match=says) as caught:
        ImageFolder(folder).setup()
    assert str(caught.value).startswith(f"{broken}: ")


def test_a_file_that_goes_away_is_named(make_folder: Any) -> None:
    folder = make_folder("a", "b")
    (folder / "b" / "link.png").symlink_to("nowhere")
    with pytest.raises(ImageError, match=r"b/link\.png: No such file"):
        ImageFolder(folder).setup()
