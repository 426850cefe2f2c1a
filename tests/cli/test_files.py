"""Which files of a folder are read: the same in train, predict and `data check`, the rest said."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.application.conftest import bundle
from tests.cli.conftest import documents
from tests.conftest import RunCli

__all__ = ["bundle"]

RNG = np.random.default_rng(2)
SETS = ("--set", "data.num_workers=1", "--set", "model.name=mlp")


def picture(path: Path, height: int = 8, width: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (height, width), dtype=np.uint8)
    Image.fromarray(pixels).save(path, {".jfif": "JPEG"}.get(path.suffix))


@pytest.fixture
def folder(tmp_path: Path, root: Path) -> Path:
    """Two classes of 12 images."""
    for name in ("cat", "dog"):
        for number in range(12):
            picture(tmp_path / "pets" / name / f"{number:02}.png")
    return tmp_path / "pets"


def plan(run_cli: RunCli, folder: Path, *sets: str) -> tuple[dict[str, int], str]:
    """How many images a training would have, and stderr."""
    source = ("--source", "folder", "--set", f"data.dir={folder}")
    result = run_cli("train", "--dry-run", "--json", *source, *SETS, *sets)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)["images"], result.stderr


Plant = Callable[[Path], None]


def mac(folder: Path) -> None:
    (folder / "cat" / "._00.jpg").write_bytes(b"what a Mac leaves")
    (folder / ".DS_Store").touch()


def trash(folder: Path) -> None:
    picture(folder / ".Trash" / "b.jpg")
    picture(folder / "cat" / ".thumbnails" / "b.png")


def other_formats(folder: Path) -> None:
    for name in ("a.xcf", "b.XCF", "c.mov", "README"):
        (folder / "dog" / name).touch()


def loose(folder: Path) -> None:
    picture(folder / "cover.png")


def linked_class(folder: Path) -> None:
    for number in range(12):
        picture(folder.parent / "elsewhere" / f"{number}.png")
    (folder / "emu").symlink_to(folder.parent / "elsewhere")


def linked_images(folder: Path) -> None:
    picture(folder.parent / "elsewhere" / "one.png")
    (folder / "cat" / "one.png").symlink_to(folder.parent / "elsewhere" / "one.png")


def loops(folder: Path) -> None:
    (folder / "cat" / "up").symlink_to(folder)
    (folder / "cat" / "here").symlink_to(".")
    (folder / "cat" / "self").symlink_to("self")


def twice(folder: Path) -> None:
    """A link to a class comes before it by name, and yet the class keeps its images."""
    (folder / "cat" / "a").symlink_to(folder / "dog")


def capitals(folder: Path) -> None:
    picture(folder / "cat" / "below" / "X.PNG")
    picture(folder / "cat" / "scan.jfif")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "cat" / "pipe.png")


@pytest.mark.parametrize(
    ("plant", "images", "said"),
    [
        (mac, 24, "2 left out: 2 hidden (.DS_Store)"),
        (trash, 24, "2 left out: 2 hidden (.Trash)"),
        (
            *(other_formats, 24),
            "4 left out: 2 .xcf (dog/a.xcf), 1 .mov (dog/c.mov), 1 without a suffix (dog/README)",
        ),
        (linked_class, 36, None),
        (linked_images, 25, None),
        (
            *(loops, 24),
            "3 left out: 2 read under another name (cat/here), 1 without a suffix (cat/self)",
        ),
        (twice, 24, "1 left out: 1 read under another name (cat/a)"),
        (capitals, 26, None),
        (pipe, 24, "1 left out: 1 not a file (cat/pipe.png)"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_train_predict_and_check_see_the_same_files(
    run_cli: RunCli, folder: Path, bundle: Path, plant: Plant, images: int, said: str | None
) -> None:
    plant(folder)
    counts, stderr = plan(run_cli, folder)
    checked = run_cli("data", "check", str(folder), "--json")
    predicted = run_cli("predict", str(folder), "--json", "--model", str(bundle))
    found = [one["path"] for one in documents(predicted.stdout)]
    assert sum(counts.values()) == json.loads(checked.stdout)["images"] == len(found) == images
    assert (checked.exit_code, predicted.exit_code) == (0, 0)
    assert len({Path(path).resolve() for path in found}) == images
    assert found == sorted(found)
    notes = json.loads(checked.stdout)["notes"]
    notes = [note for note in notes if "moved" not in note]
    if said is None:
        assert notes == [] and "left out" not in stderr + predicted.stderr
    else:
        assert notes == [said] and said in stderr.replace("\n", " ")
        assert f"note: {said}".partition("(")[0] in predicted.stderr


def test_images_beside_the_classes_are_said(run_cli: RunCli, folder: Path, bundle: Path) -> None:
    loose(folder)
    said = "1 left out: 1 outside the classes (cover.png)"
    counts, stderr = plan(run_cli, folder)
    assert sum(counts.values()) == 24 and said in stderr
    assert said in json.loads(run_cli("data", "check", str(folder), "--json").stdout)["notes"]
    predicted = run_cli("predict", str(folder), "--json", "--model", str(bundle))
    assert len(documents(predicted.stdout)) == 25


def test_a_class_that_links_to_another_has_no_images(run_cli: RunCli, folder: Path) -> None:
    (folder / "emu").symlink_to("dog")
    result = run_cli("train", "--dry-run", "--source", "folder", "--set", f"data.dir={folder}")
    assert result.exit_code == 2
    assert "class 'emu' has no images" in result.stderr
    assert "1 read under another name (emu)" in result.stderr


def test_a_class_whose_name_is_no_text_is_refused_before_the_work(
    run_cli: RunCli, folder: Path
) -> None:
    for name in (b"c\xff", b"\xe9t\xe9", "été".encode("utf-16-le")[:1] + b"\xfe"):
        place = folder / os.fsdecode(name)
        shutil.copytree(folder / "cat", place)
        source = ("--source", "folder", "--set", f"data.dir={folder}")
        for words in (("train", "--dry-run", *source), ("data", "check", str(folder))):
            result = run_cli(*words)
            assert (result.exit_code, "is not UTF-8" in result.stderr) == (2, True), result.stderr
            assert "rename its folder" in result.stderr
        shutil.rmtree(place)


def test_what_a_pattern_matches_beside_files_is_said(
    run_cli: RunCli, folder: Path, bundle: Path
) -> None:
    picture(folder / "cover.png")
    result = run_cli("predict", str(folder / "*"), "--json", "--model", str(bundle))
    assert [one["path"] for one in documents(result.stdout)] == [str(folder / "cover.png")]
    assert f"note: 2 left out: 2 not a file ({folder / 'cat'})" in result.stderr


@pytest.mark.parametrize("name", ["photo.raw", ".hidden.png", "notes.txt"])
def test_a_folder_without_images_says_what_is_there(
    run_cli: RunCli, tmp_path: Path, root: Path, name: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / name).touch()
    result = run_cli("predict", str(tmp_path / "empty"))
    assert (result.exit_code, name in result.stderr) == (2, True)
    result = run_cli("data", "check", str(tmp_path / "empty"))
    assert (result.exit_code, name in result.stderr) == (2, True)


# -- one limit of pixels


def blank(path: Path, width: int, height: int) -> None:
    """A grey PNG of any size that is packed small."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    packer = zlib.compressobj(1)
    rows = packer.compress(bytes((width + 7) // 8 * height + height)) + packer.flush()
    data = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


@pytest.mark.parametrize(
    ("size", "limit", "read"),
    [
        ((8064, 6048), None, True),  # a telephone's 48 megapixels
        ((10_000, 10_000), None, True),
        ((10_001, 10_000), None, False),
        ((60, 40), 2399, False),
        ((60, 40), 2400, True),
        ((13_500, 13_500), 200_000_000, True),  # more than Pillow's own limit
    ],
    ids=str,
)
def test_one_limit_of_pixels_for_all(
    run_cli: RunCli,
    folder: Path,
    bundle: Path,
    size: tuple[int, int],
    limit: int | None,
    read: bool,
) -> None:
    blank(folder / "cat" / "large.png", *size)
    sets = SETS if limit is None else (*SETS, "--set", f"data.max_pixels={limit}")
    source = ("--source", "folder", "--set", f"data.dir={folder}")
    results = [
        run_cli("train", "--dry-run", *source, *sets),
        run_cli("data", "check", str(folder), *sets),
        run_cli("predict", str(folder), "--model", str(bundle), *sets),
    ]
    assert [result.exit_code for result in results] == ([0] * 3 if read else [1] * 3)
    for result in results:
        said = f": more than {limit or 100_000_000:,}"
        assert (said in result.stdout + result.stderr) == (not read)


def test_a_lower_limit_refuses_what_was_decoded_before(run_cli: RunCli, folder: Path) -> None:
    assert sum(plan(run_cli, folder)[0].values()) == 24
    source = ("--source", "folder", "--set", f"data.dir={folder}")
    result = run_cli("train", "--dry-run", *source, "--set", "data.max_pixels=63")
    assert (result.exit_code, "more than 63" in result.stderr) == (1, True)


# -- the size that the network reads


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(128, 128)] * 24, None),
        ([(128, 128)] * 23 + [(129, 128)], "128 x 128 pixels: that of 23 of 24 images"),
        ([(128, 128)] * 20 + [(500, 900)] * 4, "128 x 128 pixels: that of 20 of 24 images"),
        ([(120 + n // 2, 100) for n in range(24)], "100 x 126 pixels: that of 2 of 24 images"),
        ([(30, 20), (20, 30)] * 12, "64 x 64 pixels: the images' sides are 20 to 30 pixels"),
        ([(224, 10)] * 24, None),
        ([(225, 10)] * 24, "64 x 64 pixels: the images' sides are 10 to 225 pixels"),
        ([(8, 8)] * 17 + [(8, 30)] * 7, "64 x 64 pixels: the images' sides are 8 to 30 pixels"),
    ],
)
def test_the_size_is_that_of_most_images_and_is_said(
    run_cli: RunCli, folder: Path, sizes: list[tuple[int, int]], expected: str | None
) -> None:
    for path, size in zip(sorted(folder.rglob("*.png")), sizes, strict=True):
        picture(path, *size)
    for _ in range(2):  # decoded, and from what was decoded
        stderr = plan(run_cli, folder)[1]
        if expected is None:
            assert "the network reads" not in stderr
        else:
            assert f"the network reads {expected}; [data] image_size sets another" in stderr
    assert "the network reads" not in plan(run_cli, folder, "--set", "data.image_size=32")[1]


def test_a_folder_that_cannot_be_walked_is_an_error(
    run_cli: RunCli, folder: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def scandir(place: str) -> object:  # not chmod: root may read all the same
        if str(place).endswith("dog"):
            raise PermissionError(13, "Permission denied", place)
        return real(place)

    monkeypatch.setattr("mindtrace.data.listing.os.scandir", scandir)
    source = ("--source", "folder", "--set", f"data.dir={folder}", *SETS)
    for words in (
        ("predict", str(folder), "--model", str(bundle)),
        ("data", "check", str(folder)),
        ("train", "--dry-run", *source),
    ):
        result = run_cli(*words)
        assert result.exit_code == 2
        assert "dog" in result.stderr and "cannot be read: Permission denied" in result.stderr
    shutil.rmtree(folder)
